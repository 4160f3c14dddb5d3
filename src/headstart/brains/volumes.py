"""The four grids that every brain is brought to, and the template that defines them.

World coordinates are those of ICBM152 2009a symmetric, in mm, RAS+: x to the right, y to the front, z up.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from headstart.errors import HeadstartError
from headstart.files import atomic_write, cache_dir

SPACE = "MNI152NLin2009aSym"
# The middle of the template's brain: +-72 mm across, -108..74 back to front, -72..83 up, measured on its mask.
CENTRE_MM = (0.0, -17.0, 5.0)
DILATION_MM = 8.0  # rows keep this rim, so that registration error loses no cortex


@dataclass(frozen=True)
class VolumeSpec:
    """A grid in template space.

    Attributes:
        name: what users say, e.g. ``4mm``.
        shape: voxels along (X, Y, Z), RAS+.
        spacing_mm: isotropic voxel size.
    """

    name: str
    shape: tuple[int, int, int]
    spacing_mm: float

    @property
    def affine(self) -> np.ndarray:
        """Voxel to world (4, 4), float64; the grid is centred on ``CENTRE_MM``."""
        affine = np.diag([self.spacing_mm] * 3 + [1.0])
        affine[:3, 3] = np.array(CENTRE_MM) - self.spacing_mm * (np.array(self.shape) - 1) / 2
        return affine

    @property
    def patch(self) -> int:
        """Edge of a vision transformer's patch on this grid, in voxels."""
        return 16 if self.spacing_mm <= 1 else 8


VOLUMES = {spec.name: spec for spec in (
    VolumeSpec("4mm", (40, 48, 40), 4.0),
    VolumeSpec("3mm", (64, 64, 64), 3.0),
    VolumeSpec("2mm", (80, 96, 80), 2.0),
    VolumeSpec("1mm", (160, 192, 160), 1.0),
)}


def volume_spec(name: str) -> VolumeSpec:
    """The grid called ``name``: ``4mm``, ``3mm``, ``2mm`` or ``1mm``.

    Raises:
        HeadstartError: there is no such grid; the message lists them.
    """
    if name not in VOLUMES:
        raise HeadstartError(f"unknown volume '{name}'", fix=f"Choose one of: {', '.join(VOLUMES)}.")
    return VOLUMES[name]


@dataclass(frozen=True)
class Template:
    """ICBM152 2009a symmetric on one grid; every array has the grid's shape.

    Attributes:
        t1: float32, scaled so that white matter is about 1, zero outside the head's brain.
        brain: bool, the template's brain mask.
        kept: bool, ``brain`` dilated by 8 mm: the voxels that a store's row holds.
        grey, white: float32 tissue probabilities.
    """

    spec: VolumeSpec
    t1: np.ndarray
    brain: np.ndarray
    kept: np.ndarray
    grey: np.ndarray
    white: np.ndarray


@lru_cache(maxsize=4)
def template(name: str) -> Template:
    """The template on grid ``name``; computed once from nilearn's wheel, then read from the cache.

    Raises:
        HeadstartError: there is no such grid, or the cached file was damaged (it is removed).
    """
    spec = volume_spec(name)
    path = cache_dir() / f"template-v1-{SPACE}-{name}.npz"
    if not path.exists():
        with atomic_write(path, "wb") as file:
            np.savez_compressed(file, **_compute_template(spec))  # type: ignore[arg-type]
    try:
        with np.load(path) as arrays:
            return Template(spec, **{key: arrays[key] for key in ("t1", "brain", "kept", "grey", "white")})
    except (OSError, ValueError, KeyError, EOFError) as error:  # a cache that another program damaged
        path.unlink(missing_ok=True)
        raise HeadstartError(f"is damaged ({error})", path=path,
                             fix="It was removed; run the command again.") from error


def _compute_template(spec: VolumeSpec) -> dict[str, np.ndarray]:
    from nilearn import datasets
    from nilearn.image import resample_img
    from scipy.ndimage import distance_transform_edt

    def on_grid(image) -> np.ndarray:
        # Averaging before the coarse grid samples it keeps probabilities honest at 4 mm.
        smooth = _smoothed(image, spec.spacing_mm)
        with warnings.catch_warnings():  # a mask is resampled linearly on purpose: it is thresholded below
            warnings.simplefilter("ignore", UserWarning)
            out = resample_img(smooth, spec.affine, spec.shape, interpolation="linear",
                               copy_header=True, force_resample=True)
        return np.asarray(out.dataobj, np.float32)

    t1 = on_grid(datasets.load_mni152_template(resolution=1))
    brain = on_grid(datasets.load_mni152_brain_mask(resolution=1)) >= 0.5
    grey = on_grid(datasets.load_mni152_gm_template(resolution=1)).clip(0, 1)
    white = on_grid(datasets.load_mni152_wm_template(resolution=1)).clip(0, 1)
    kept = distance_transform_edt(~brain, sampling=spec.spacing_mm) <= DILATION_MM
    reference = np.median(t1[white > 0.9])
    return {"t1": np.where(kept, t1 / reference, 0).astype(np.float32), "brain": brain, "kept": kept,
            "grey": grey, "white": white}


def _smoothed(image, spacing_mm: float):
    import nibabel as nib
    from scipy.ndimage import gaussian_filter

    data = np.asarray(image.dataobj, np.float32)
    sigma = 0.42 * np.sqrt(max(spacing_mm**2 - 1, 0))  # FWHM of one output voxel less the input's own
    return nib.Nifti1Image(gaussian_filter(data, sigma) if sigma else data, image.affine)
