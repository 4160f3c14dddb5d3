"""One scan, from its file to the template's grid: the same function for training sets and for new patients."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from headstart.brains.bias import log_bias_field
from headstart.brains.contract import Contract
from headstart.brains.extraction import brain_mask
from headstart.brains.facts import Facts
from headstart.brains.image import Image, resample
from headstart.brains.intensity import scale_robust, tissue_fractions
from headstart.brains.nifti import read_nifti
from headstart.brains.registration import GRID, linear_scale, register
from headstart.brains.volumes import template
from headstart.errors import HeadstartError
from headstart.files import sha256_file

WORKING_MM = 2.0  # bias field, tissue fractions and registration share one copy of the brain at this spacing
LOW_OVERLAP = 0.90
LOW_CORRELATION = 0.45  # 96 real scans: 0.50 to 0.75 at 4 mm; one below at 2 mm, the same that is lowest at 4 mm


@dataclass(frozen=True)
class Prepared:
    """A scan on the template's grid.

    Attributes:
        volume: float32 (X, Y, Z), RAS+, scaled intensities, exactly 0 outside the brain.
        facts: what was measured on the way.
        seconds: by step; not among the facts, because they differ from run to run.
    """

    volume: np.ndarray
    facts: Facts
    seconds: dict[str, float]


@dataclass
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 4)


@dataclass(frozen=True)
class _Brain:
    """A brain without its surroundings, and the mask that cut it out, on one grid."""

    image: Image  # float32, 0 outside the mask
    mask: Image  # float32 in [0, 1]


def prepare_scan(path: str | Path, contract: Contract) -> Prepared:
    """Bring the T1w scan at ``path`` to the contract's grid. Deterministic.

    Raises:
        HeadstartError: the file cannot be used; it says why.
    """
    clock = _Clock()
    try:
        with clock.step("read"):
            image, sha256 = read_nifti(path), sha256_file(path)
        return _prepare_image(image, contract, sha256, clock)
    except HeadstartError as error:
        if error.path is not None:
            raise
        raise HeadstartError(error.problem, path=path, fix=error.fix) from error


def _prepare_image(image: Image, contract: Contract, sha256: str, clock: _Clock) -> Prepared:
    voxel_ml = abs(np.linalg.det(image.affine[:3, :3])) / 1000
    with clock.step("extract"):
        mask, already = brain_mask(image.data, voxel_ml)
    with clock.step("working copy"):
        brain = _cut_out(image, mask)
        working = _working_copy(brain)
        inside = working.mask.data > 0.5
    with clock.step("bias field"):
        field_ = _log_field(working, inside, contract)
        corrected = working.image.data * np.exp(-field_)
    with clock.step("register"):
        alignment = register(corrected, working.image.affine, template(GRID), contract.registration)
    with clock.step("resample"):
        volume, on_grid = _to_grid(brain, Image(field_, working.image.affine), alignment.affine, contract)
    with clock.step("scale"):
        target = template(contract.volume)
        volume = scale_robust(volume, on_grid, target.grey, target.white)
        csf, grey, white = tissue_fractions(corrected[inside])
    overlap, correlation = _agreement(volume, on_grid, contract)
    facts = Facts(
        source_sha256=sha256, already_extracted=already, brain_volume_ml=round(float(mask.sum() * voxel_ml), 2),
        linear_scale=round(linear_scale(alignment.affine), 6),
        affine=tuple(tuple(round(float(v), 8) for v in row) for row in alignment.affine),
        overlap=round(overlap, 4), correlation=round(correlation, 4),
        csf_fraction=round(csf, 4), grey_fraction=round(grey, 4), white_fraction=round(white, 4),
        voxel_size_mm=tuple(np.linalg.norm(image.affine[:3, :3], axis=0).round(4).tolist()),
        notes=(*image.notes, *_notes(overlap, correlation)))
    return Prepared(volume, facts, clock.seconds)


def _cut_out(image: Image, mask: np.ndarray) -> _Brain:
    """The masked scan cropped to the mask's box and one voxel more."""
    spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    box = tuple(slice(max(0, span[0] - 1), span[-1] + 2) for span in spans)
    corner = np.eye(4)
    corner[:3, 3] = [side.start for side in box]
    affine = image.affine @ corner
    inside = mask[box]
    return _Brain(Image(np.where(inside, image.data[box], 0).astype(np.float32), affine),
                  Image(inside.astype(np.float32), affine))


def _working_copy(brain: _Brain) -> _Brain:
    """The brain on an upright isotropic grid of ``WORKING_MM`` that just holds it."""
    shape = np.array(brain.image.data.shape)
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), -1).reshape(-1, 3)
    world = corners @ brain.image.affine[:3, :3].T + brain.image.affine[:3, 3]
    low = world.min(0) - 2 * WORKING_MM
    affine = np.diag([WORKING_MM] * 3 + [1.0])
    affine[:3, 3] = low
    size = tuple(np.ceil((world.max(0) + 2 * WORKING_MM - low) / WORKING_MM).astype(int).tolist())
    return _Brain(*(Image(resample(part, affine, size), affine) for part in (brain.image, brain.mask)))


def _log_field(working: _Brain, inside: np.ndarray, contract: Contract) -> np.ndarray:
    if contract.bias_correction == "none":
        return np.zeros(inside.shape, np.float32)
    return log_bias_field(working.image.data, inside, working.image.affine)


def _to_grid(brain: _Brain, log_field: Image, affine: np.ndarray, contract: Contract) -> tuple[np.ndarray, np.ndarray]:
    """The one resampling from native voxels: bias-corrected intensities and brain mask on the grid."""
    spec = contract.spec

    def moved(image: Image) -> np.ndarray:
        return resample(Image(image.data, affine @ image.affine), spec.affine, spec.shape)

    coverage = moved(brain.mask)
    mask = coverage > 0.5
    # Dividing by the coverage averages over brain only: the rim is not darkened by the background.
    volume = moved(brain.image) / np.maximum(coverage, 0.5) * np.exp(-moved(log_field))
    return np.where(mask, volume, 0), mask


def _agreement(volume: np.ndarray, mask: np.ndarray, contract: Contract) -> tuple[float, float]:
    """Dice overlap of the masks, correlation with the template's T1 where they meet."""
    target = template(contract.volume)
    both = mask & target.brain
    if both.sum() < 2:
        return 0.0, 0.0
    overlap = 2 * both.sum() / (mask.sum() + target.brain.sum())
    return float(overlap), float(np.corrcoef(volume[both], target.t1[both])[0, 1])


def _notes(overlap: float, correlation: float) -> tuple[str, ...]:
    doubts = {f"overlaps the template by only {overlap:.2f}: look at this scan": overlap < LOW_OVERLAP,
              f"correlates with the template by only {correlation:.2f}: it may lie wrongly":
              correlation < LOW_CORRELATION}
    return tuple(words for words, doubtful in doubts.items() if doubtful)
