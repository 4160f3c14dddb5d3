"""One scanner for all generators: tissue becomes a T1-weighted image with contrast, bias field, blur, noise, artefacts.

A site is a ``Scanner``; ``acquire`` images one subject with it. Contrasts look like
those of MPRAGE with white matter at 1, and fall with age; their ranges are choices, not measurements.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from headstart.brains.intensity import scale_robust
from headstart.brains.volumes import VolumeSpec, template
from headstart.errors import HeadstartError
from headstart.simulation.base import PURPOSES, TISSUES, Shape, Subject
from headstart.simulation.fields import scatter, smooth_field, smooth_volume

# Where a tissue lies between cortex (0) and white matter (1); fluid apart. Chosen by eye on T1w scans, not fitted.
BETWEEN = {"cortex": 0.0, "entorhinal": -0.05, "white": 1.0, "lesion": 0.35, "hippocampus": 0.05, "amygdala": 0.0,
           "thalamus": 0.66, "putamen": 0.25, "caudate": 0.12, "pallidum": 0.8, "cerebellum_grey": 0.3,
           "cerebellum_white": 1.08, "brainstem": 0.85, "nigra": 0.6}
FLUID = ("csf", "lateral_ventricles", "third_ventricle")
FAR_MM = 8.0  # depths are known this far from the brain's outline: it is the rim that stores keep
TEXTURE_MM = ((30.0, 0.8), (14.0, 0.6))  # knots and share of each band of ``Scanner.texture``
CONTRAST_YEARS, CONTRAST_LOSS = 55.0, 0.03  # contrasts hold at this age; loss per decade, chosen


@dataclass(frozen=True)
class Scanner:
    """A site's imaging parameters.

    Attributes:
        fluid, grey: intensities of fluid and of cortex, white matter at 1.
        tissue_sd: of each tissue's place between grey and white, from subject to subject.
        texture: standard deviation of how cortex and white matter vary within a brain (myelin, iron), over the
            contrast between the two.
        bias: standard deviation of the log field that bias correction leaves.
        blur_mm: standard deviation, along each axis (thick slices blur one axis more).
        noise: standard deviation of Rician noise at the grid's own voxels, white matter at 1.
        outline_mm: where brain extraction cuts, mean distance outside (+) or inside (-) the outline.
        rim: brightness of meninges and vessels left in the rim, white matter at 1.
        ringing: amplitude of Gibbs ringing; motion: of ghosts.
    """

    name: str
    fluid: float
    grey: float
    tissue_sd: float
    texture: float
    bias: float
    blur_mm: tuple[float, float, float]
    noise: float
    outline_mm: float
    rim: float
    ringing: float
    motion: float


def draw_scanner(rng: np.random.Generator, *, name: str = "sim", purpose: str = "upstream",
                 strength: float = 1.0) -> Scanner:
    """A random site. The scanners of the two purposes have grey matter in disjoint ranges, so none occurs in both.

    Args:
        strength: of domain randomisation; 1 is what real sites differ by. At 0 all values are the middles of their
            ranges (an upstream's grey matter has two, and any axis may be the blurred one); beyond 1 all spread further
            but grey matter, whose ranges keep the purposes apart.
    """
    if purpose not in PURPOSES:
        raise HeadstartError(f"unknown purpose '{purpose}'", fix=f"Choose one of: {', '.join(PURPOSES)}.")

    def between(low: float, high: float, most: float = np.inf) -> float:
        value = (low + high) / 2 + min(strength, most) * rng.uniform(-0.5, 0.5) * (high - low)
        return max(value, 0.0) if low >= 0 else value

    grey = (between(0.60, 0.70, most=1) if purpose == "cohort" else
            rng.choice([between(0.50, 0.598, most=1), between(0.702, 0.78, most=1)]))
    blur = between(0.8, 2.0)
    # Masks of other people's tools, bet's and deepbet's, cut more variously than one study's own.
    outline_mm = between(-1.0, 3.5) if purpose == "upstream" else between(0.0, 2.5)
    thick = [blur, blur, blur]
    thick[int(rng.integers(3))] += between(0.0, 0.8)
    return Scanner(
        name=name, grey=float(grey), fluid=float(grey) * between(0.25, 0.6), tissue_sd=0.07 * strength,
        texture=between(0.0, 0.2), bias=between(0.01, 0.06), blur_mm=(thick[0], thick[1], thick[2]),
        noise=between(0.002, 0.012), outline_mm=outline_mm, rim=between(0.0, 0.6),
        ringing=between(-0.02, 0.025), motion=between(-0.02, 0.04))


def acquire(shape: Shape, subject: Subject, scanner: Scanner, spec: VolumeSpec) -> torch.Tensor:
    """One brain-extracted T1-weighted image.

    Returns:
        (X, Y, Z) float32; white matter about 1; exactly 0 outside the brain.
    """
    rng = subject.rng("scan")
    levels = _levels(rng, subject, scanner)
    image = scatter(levels @ shape.tissues + _textured(rng, levels, shape, scanner, spec), spec)
    depth = scatter(shape.depth_mm, spec, outside=-FAR_MM)
    image = image + _rim(rng, depth, scanner, spec)
    image = _blurred(image, [s / spec.spacing_mm for s in scanner.blur_mm])
    image = _artefacts(rng, image, scanner)
    image *= smooth_volume(rng, spec, ((60.0, scanner.bias),))[0].exp_()
    noise = torch.from_numpy(rng.standard_normal((2, *spec.shape), dtype=np.float32)).mul_(scanner.noise)
    image = image.add_(noise[0]).square_().addcmul_(noise[1], noise[1]).sqrt_()
    return image.mul_(_extracted(rng, depth, scanner, spec))


def as_prepared(image: torch.Tensor, spec: VolumeSpec) -> torch.Tensor:
    """Intensities as preparation leaves them (scheme ``brain-robust-1``), (X, Y, Z)."""
    target = template(spec.name)
    volume = image.numpy()
    return torch.from_numpy(scale_robust(volume, volume != 0, target.grey, target.white))


def _levels(rng: np.random.Generator, subject: Subject, scanner: Scanner) -> torch.Tensor:
    """(tissues,) intensity of each tissue in this subject."""
    closer = CONTRAST_LOSS * (subject.age - CONTRAST_YEARS) / 10 + scanner.tissue_sd * 0.4 * rng.standard_normal()
    grey = scanner.grey + (1 - scanner.grey) * np.clip(closer, -0.2, 0.3)
    values = []
    for tissue in TISSUES:
        if tissue in FLUID:
            values.append(scanner.fluid * (1 + scanner.tissue_sd * rng.standard_normal()))
        else:
            place = BETWEEN[tissue] + scanner.tissue_sd * rng.standard_normal() * (tissue not in ("cortex", "white"))
            values.append(grey + (1 - grey) * place)
    return torch.tensor(values, dtype=torch.float32)


def _textured(rng: np.random.Generator, levels: torch.Tensor, shape: Shape, scanner: Scanner,
              spec: VolumeSpec) -> torch.Tensor:
    """(n,) what regions of cortex and of white matter are brighter or darker by, each with a pattern of its own."""
    cortex, white = TISSUES.index("cortex"), TISSUES.index("white")
    patterns = smooth_field(rng, spec, TEXTURE_MM, channels=2) * (scanner.texture * (levels[white] - levels[cortex]))
    return patterns[0] * shape.tissues[cortex] + patterns[1] * shape.tissues[white]


def _rim(rng: np.random.Generator, depth: torch.Tensor, scanner: Scanner, spec: VolumeSpec) -> torch.Tensor:
    """Patches of meninges and vessels about the outline, brighter than fluid."""
    patches = smooth_volume(rng, spec, ((14.0, 1.0),))[0].sub_(0.3).clamp_(0, 1.5)
    strength = scanner.rim * rng.uniform(0.3, 1.0)
    return torch.exp(((depth + 1.0) / 2.5).square_().neg_()).mul_(patches).mul_(strength)


def _extracted(rng: np.random.Generator, depth: torch.Tensor, scanner: Scanner, spec: VolumeSpec) -> torch.Tensor:
    """Which voxels brain extraction keeps: a cut near the outline that wavers."""
    mean = scanner.outline_mm + 0.3 * rng.standard_normal()
    return (depth + smooth_volume(rng, spec, ((25.0, 0.5),))[0] > -mean) & (depth > 0.1 - FAR_MM)


def _blurred(image: torch.Tensor, sigmas: list[float]) -> torch.Tensor:
    """Gaussian blur, one axis at a time; sigmas in voxels."""
    x, y, z = (_blur(size, sigma) for size, sigma in zip(image.shape, sigmas))
    return (x @ torch.matmul(y, image @ z.T).flatten(1)).reshape(image.shape)


def _blur(size: int, sigma: float) -> torch.Tensor:
    """(size, size) Gaussian blur along one axis, its ends replicated."""
    reach = max(1, int(np.ceil(2.5 * sigma)))
    offsets = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (offsets / max(sigma, 1e-3)) ** 2)
    read = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    return torch.zeros(size, size).scatter_add_(1, read, (kernel / kernel.sum()).expand(size, -1))


def _artefacts(rng: np.random.Generator, image: torch.Tensor, scanner: Scanner) -> torch.Tensor:
    """Ringing along one axis at edges, and a shifted faint copy for motion; a good part of scans has neither."""
    axis = int(rng.integers(3))
    ringing, ghost = max(scanner.ringing, 0.0) * rng.random(), max(scanner.motion, 0.0) * rng.random()
    if ringing > 0:
        image = image + ringing * (2 * image - image.roll(2, axis) - image.roll(-2, axis))
    if ghost > 0:
        shift = int(rng.integers(3, 8))
        image = (1 - ghost) * image + ghost * image.roll(shift, (axis + 1) % 3)
    return image.clamp_min(0)
