"""Real anatomies from label maps: aligned once to the template and kept as soft, adjustable tissue maps.

A label map becomes a *bank* on a 2 mm grid: for every voxel the fraction of each tissue, the cortex at several degrees
of sulcal widening (its border with CSF moved at 1 mm, before any averaging) and at several positions of its border
with white matter, and the displacement that dilates or shrinks each deep structure. Mixing those columns gives any
subject's tissue in one pass.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from headstart.brains.progress import progress_bar
from headstart.brains.volumes import VolumeSpec, template, volume_spec
from headstart.brains.workers import run_each
from headstart.errors import HeadstartError
from headstart.files import atomic_write, cache_dir, sha256_file
from headstart.simulation.freesurfer import CORTEX_IDS, LABELS, WHITE_IDS, WHOLE, check_structures, read_labels
from headstart.simulation.regions import TEMPORO_PARIETAL, Ellipsoid, radius

BANK_VERSION = 3
BANK_GRID = volume_spec("2mm")
PUSH_GRID = volume_spec("4mm")
FINE_GRID = volume_spec("1mm")
PIAL_MM = (-1.6, -0.8, 0.0, 1.2)  # cortex lost at its CSF border
WHITE_MM = (-0.7, 0.0, 0.7, 1.4)  # white matter gained at its cortical border
# Reach of each structure's dilation or shrinkage, mm.
PUSHES = {"lateral_ventricles": 14.0, "third_ventricle": 6.0, "hippocampus": 6.0, "amygdala": 5.0, "thalamus": 8.0,
          "putamen": 6.0, "caudate": 6.0}
ENTORHINAL_MM, ENTORHINAL_RADIUS_MM = (23.0, -8.0, -32.0), 11.0
NIGRA_MM, NIGRA_RADIUS_MM = (10.0, -19.0, -12.0), 5.0
SEED = 1  # of the registration's sampling
FIXED = (*LABELS, "nigra")
COLUMNS = (*(f"csf{s}" for s in PIAL_MM), *(f"white{w}" for w in WHITE_MM), *FIXED, "entorhinal", "temporo_parietal",
           "depth_mm")


@dataclass(frozen=True)
class Anatomy:
    """One bank.

    Attributes:
        bank: (voxels of ``BANK_GRID``, 24) float16, ``COLUMNS``.
        pushes: (voxels of ``PUSH_GRID``, 24) float16, three columns a structure of ``PUSHES``, unit vectors outward.
    """

    name: str
    bank: torch.Tensor
    pushes: torch.Tensor


def load_anatomy(path: Path, spec: VolumeSpec) -> Anatomy:
    """The bank of one label map, made on first use and then read from the cache (memory-mapped).

    Raises:
        HeadstartError: the file is not a 3D map of FreeSurfer ids.
    """
    file = _bank_file(path, spec)
    if (arrays := _kept(file)) is None:
        print(f"note: building the anatomy of {path}, once: about a minute, kept in {file.parent}",
              file=sys.stderr, flush=True)
        _keep(path, spec)
        arrays = [np.load(name, mmap_mode="c") for name in _files(file)]
    return Anatomy(path.name, *(torch.from_numpy(a) for a in arrays))


def build_anatomies(paths: Sequence[Path], spec: VolumeSpec, *, jobs: int = 1, progress: bool = True) -> None:
    """Make the banks that the cache lacks, ``jobs`` at a time: about a minute of one core each, once.

    Raises:
        HeadstartError: some files are not maps of FreeSurfer ids; all of them are named, and the others are kept.
    """
    todo, failures = [path for path in paths if _kept(_bank_file(path, spec)) is None], []
    with progress_bar("Building anatomies of label maps, once", len(todo), progress) as advance:
        for path, failure in run_each(partial(_keep, spec=spec), todo, jobs):
            failures += [_named(failure, path)] if failure is not None else []
            advance()
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise HeadstartError(f"{len(failures)} of {len(paths)} label maps cannot be used:\n"
                             + "\n".join(f"  {failure}" for failure in failures), path=paths[0].parent,
                             fix="Mend them, or move them elsewhere; the others are kept.")


def _named(failure: Exception, path: Path) -> HeadstartError:
    """The failure with the file that it is of: a worker that died does not know it."""
    if isinstance(failure, HeadstartError):
        return failure if failure.path is not None else HeadstartError(failure.problem, path=path, fix=failure.fix)
    return HeadstartError(f"cannot be made an anatomy ({str(failure) or type(failure).__name__})", path=path)


def sha256_of(path: Path) -> str:
    """Of a label map's bytes.

    Raises:
        HeadstartError: the file cannot be read.
    """
    try:
        return sha256_file(path)
    except OSError as error:
        raise HeadstartError(f"cannot be read ({error.strerror})", path=path,
                             fix="Give label maps that are files you may read.") from error


def _bank_file(path: Path, spec: VolumeSpec) -> Path:
    """Where the bank of a label map with these very bytes is, or will be; its pushes are beside it."""
    return cache_dir() / "anatomies" / f"v{BANK_VERSION}-{sha256_of(path)[:16]}-{_prefilter_mm(spec):.2f}.npy"


def _files(file: Path) -> tuple[Path, Path]:
    """Bank and pushes."""
    return file, file.with_suffix(".push.npy")


def _kept(file: Path) -> list[np.ndarray] | None:
    """Bank and pushes of the cache, mapped; None where they are missing or not whole."""
    try:
        return [np.load(name, mmap_mode="c") for name in _files(file)]
    except (OSError, ValueError, EOFError):  # a file that was cut off is shorter than its header says
        return None


def _keep(path: Path, spec: VolumeSpec) -> None:
    made = _build(path, _prefilter_mm(spec))
    for name, array in zip(_files(_bank_file(path, spec)), made):
        with atomic_write(name, "wb") as out:
            np.save(out, array)


def _prefilter_mm(spec: VolumeSpec) -> float:
    """Sigma that averages 1 mm maps for the grid ``spec``, less what trilinear reading of the 2 mm bank adds."""
    wanted = 0.42**2 * max(spec.spacing_mm**2 - 1, 0)
    return round(float(np.sqrt(max(wanted - BANK_GRID.spacing_mm**2 / 6, 0.25))), 2)


def _build(path: Path, smooth_mm: float) -> tuple[np.ndarray, np.ndarray]:
    labels = _aligned(path)
    check_structures(labels, path, PUSHES, " once it is aligned to the template")
    maps = _maps(labels)
    bank = np.zeros((int(np.prod(BANK_GRID.shape)), 24), np.float16)
    for column, name in enumerate(COLUMNS):
        bank[:, column] = _to_grid(maps[name], smooth_mm, BANK_GRID).ravel()
    pushes = np.zeros((int(np.prod(PUSH_GRID.shape)), 24), np.float16)
    for number, (name, reach) in enumerate(PUSHES.items()):
        pushes[:, 3 * number:3 * number + 3] = _push(maps[name] > 0.5, reach)
    return bank, pushes


def _aligned(path: Path) -> np.ndarray:
    """The label map on the 1 mm template grid, brain only, after affine registration of a T1w painted from it."""
    labels, affine = read_labels(path, PUSHES)
    try:
        to_map = _register(_paint(labels), affine)
    except RuntimeError as error:  # all that SimpleITK raises
        raise HeadstartError(f"cannot be aligned to the template ({str(error).strip().splitlines()[-1]})", path=path,
                             fix=WHOLE) from error
    source = np.linalg.inv(affine) @ to_map @ FINE_GRID.affine
    return ndimage.affine_transform(labels, source[:3, :3], source[:3, 3], FINE_GRID.shape, order=0)


def _paint(labels: np.ndarray) -> np.ndarray:
    """A plain T1w (white 1, grey 0.7, CSF 0.25) inside the brain's outline."""
    table = np.zeros(int(labels.max()) + 1, np.float32)
    table[1:] = 0.7
    for ids, value in (((*WHITE_IDS, 7, 46, 16, 28, 60, 85), 1.0), ((24, 4, 43, 14, 15, 5, 44), 0.25)):
        table[[i for i in ids if i < len(table)]] = value
    return np.where(_outline(labels), table[labels], 0)


def _outline(labels: np.ndarray) -> np.ndarray:
    """The brain as brain extraction leaves it: tissue, sulci and ventricles, without the CSF outside."""
    tissue = (labels > 0) & (labels != 24)
    box = tuple(slice(max(s.start - 12, 0), s.stop + 12) for s in ndimage.find_objects(tissue.astype(int))[0])
    inside = np.zeros_like(tissue)
    # Closing by distance (9 mm bridges sulci and the gap under the temporal lobes).
    grown = ndimage.distance_transform_edt(~tissue[box]) <= 8
    inside[box] = ndimage.binary_fill_holes(ndimage.distance_transform_edt(grown) > 7.5)
    return inside | tissue


def _register(moving: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """(4, 4) template world to the map's world, by SimpleITK."""
    import SimpleITK as sitk

    grid = template("2mm")
    fixed = _itk(np.where(grid.brain, grid.t1, 0), grid.spec.affine)
    image = _itk(ndimage.gaussian_filter(moving, 0.8), affine)
    start = sitk.CenteredTransformInitializer(fixed, image, sitk.AffineTransform(3),
                                              sitk.CenteredTransformInitializerFilter.MOMENTS)
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.2, SEED)  # which is else taken from the clock
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 200, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([4, 2, 0])
    method.SetInitialTransform(start, inPlace=True)
    method.SetNumberOfThreads(1)
    method.Execute(fixed, image)
    return _matrix(start)


def _itk(data: np.ndarray, affine: np.ndarray):
    """An ITK image of RAS data; ITK's world is LPS."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T.astype(np.float32)))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def _matrix(transform) -> np.ndarray:
    """(4, 4) in RAS world of an ITK affine transform."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, 3] = origin
    for axis in range(3):
        matrix[:3, axis] = np.array(transform.TransformPoint(tuple(np.eye(3)[axis]))) - origin
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    return flip @ matrix @ flip


def _maps(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Column -> (X, Y, Z) float32 at 1 mm."""
    maps = {name: np.isin(labels, ids).astype(np.float32) for name, ids in LABELS.items()}
    nigra = _balls(NIGRA_MM, NIGRA_RADIUS_MM) * np.isin(labels, (16, 28, 60))
    maps["nigra"] = nigra
    for name in ("brainstem", "pallidum"):
        maps[name] = maps[name] * (1 - nigra)
    maps.update(region_fields())
    inside, outside = (ndimage.distance_transform_edt(m).astype(np.float32) for m in _both(_outline(labels)))
    maps["depth_mm"] = np.clip(inside - outside, -8, 8)
    maps.update(_ribbon(labels))
    return maps


def _both(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return mask, ~mask


def region_fields() -> dict[str, np.ndarray]:
    """The two regions of cortex that have no label: how near to the entorhinal one, and what is temporo-parietal."""
    here, far = (radius(parts, FINE_GRID.affine, FINE_GRID.shape)
                 for parts in ((Ellipsoid(ENTORHINAL_MM, (ENTORHINAL_RADIUS_MM,) * 3),), TEMPORO_PARIETAL))
    return {"entorhinal": np.clip(5 * (1 - here), -5, 5), "temporo_parietal": np.clip((1.15 - far) / 0.3, 0, 1)}


def _balls(centre_mm: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    """A soft ball at ``centre_mm`` and its mirror image, on the 1 mm grid."""
    x, y, z = (FINE_GRID.affine[i, 3] + np.arange(n) for i, n in enumerate(FINE_GRID.shape))
    far = np.sqrt((np.abs(x)[:, None, None] - centre_mm[0]) ** 2 + (y[None, :, None] - centre_mm[1]) ** 2
                  + (z[None, None, :] - centre_mm[2]) ** 2)
    return np.clip((radius_mm - far) / 3 + 0.5, 0, 1).astype(np.float32)


def _ribbon(labels: np.ndarray) -> dict[str, np.ndarray]:
    """CSF for each of ``PIAL_MM`` and white matter for each of ``WHITE_MM``; cortex is what they leave."""
    cortex, white = np.isin(labels, CORTEX_IDS), np.isin(labels, WHITE_IDS)
    tissue = (labels > 0) & (labels != 24) & (labels != 15)
    to_white, to_cortex = (ndimage.distance_transform_edt(~mask) for mask in (white, cortex))
    height = _height(cortex, to_white, tissue)
    csf = {s: np.where(cortex, np.clip(s - height + 0.5, 0, 1), 0) + _flooded(s, to_cortex, tissue) for s in PIAL_MM}
    out = {f"csf{s}": value.astype(np.float32) for s, value in csf.items()}
    beyond, within = to_white - 0.5, 0.5 - to_cortex
    for w in WHITE_MM:
        level = np.where(white, np.clip(w - within + 0.5, 0, 1), np.where(cortex, np.clip(w - beyond + 0.5, 0, 1), 0))
        out[f"white{w}"] = np.minimum(level, 1 - csf[max(PIAL_MM)]).astype(np.float32) if w > 0 \
            else level.astype(np.float32)
    return out


def _height(cortex: np.ndarray, to_white: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """Depth (mm) of cortex below the CSF, counting buried sulci: the crests of the distance to white matter."""
    above = ndimage.distance_transform_edt(tissue) - 0.5
    far = ndimage.gaussian_filter(to_white, 0.6)
    steep = np.sqrt(sum(g**2 for g in np.gradient(far)))
    crest = cortex & (far > 1.7) & (steep < 0.55) & (above > 1)
    return np.minimum(above, ndimage.distance_transform_edt(~crest) + 0.4)


def _flooded(pial_mm: float, to_cortex: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """CSF outside tissue; at a negative shift, cortex grows into it."""
    if pial_mm >= 0:
        return (~tissue).astype(np.float32)
    thicker = np.clip(to_cortex + pial_mm, 0, 1)
    return np.where(tissue, 0, thicker)


def _to_grid(data: np.ndarray, smooth_mm: float, grid: VolumeSpec, start: tuple[int, ...] = (0, 0, 0)) -> np.ndarray:
    """``data`` at 1 mm, a box that begins at voxel ``start``, averaged and read at the centres of ``grid``."""
    matrix = np.linalg.inv(FINE_GRID.affine) @ grid.affine
    smooth = ndimage.gaussian_filter(np.asarray(data, np.float32), smooth_mm, truncate=3)
    mode = "nearest" if data.shape == FINE_GRID.shape else "constant"
    return ndimage.affine_transform(smooth, np.diag(matrix)[:3], matrix[:3, 3] - start, grid.shape, order=1, mode=mode)


def _push(mask: np.ndarray, reach_mm: float) -> np.ndarray:
    """(voxels of ``PUSH_GRID``, 3) outward direction, fading with the distance from the border of ``mask``."""
    margin = int(2.5 * reach_mm) + 2  # beyond it nothing is left of the push
    box = tuple(slice(max(s.start - margin, 0), s.stop + margin) for s in ndimage.find_objects(mask.astype(np.int8))[0])
    distance = ndimage.distance_transform_edt(~mask[box]) - ndimage.distance_transform_edt(mask[box])
    distance = ndimage.gaussian_filter(distance.astype(np.float32), 1.5)
    fade = np.exp(-((distance / reach_mm) ** 2))
    start = tuple(s.start for s in box)
    return np.stack([_to_grid(g * fade, 1.5, PUSH_GRID, start).ravel() for g in np.gradient(distance)], 1)
