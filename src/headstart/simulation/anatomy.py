"""Brains from the ICBM152 average alone: own folding for every subject, and volumes that are set.

The average has no sharp sulci. What it has is the *phase* of folding: how far towards white matter (a gyrus' core) or
towards the fluid of a sulcus a place lies. A subject's phase is the average's plus a band-limited random field; white
matter is where it is highest, fluid where it is lowest, and the two thresholds are those that give grey and white
matter their volumes. Raising the lower one widens all sulci, as ageing does. Deep structures are dilated or shrunk to
their volumes by displacement.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from headstart.brains.volumes import Template, VolumeSpec, template
from headstart.files import atomic_write, cache_dir
from headstart.simulation.anatomies import (
    BANK_GRID,
    FINE_GRID,
    NIGRA_MM,
    NIGRA_RADIUS_MM,
    PUSH_GRID,
    PUSHES,
    _balls,
    _prefilter_mm,
    _push,
    _to_grid,
    region_fields,
)
from headstart.simulation.base import GREY, TISSUES, WHITE, Shape, Subject
from headstart.simulation.fields import sample, smooth_field
from headstart.simulation.morph import (
    TEMPLATE_INTRACRANIAL_ML,
    Chance,
    Deformable,
    Response,
    above,
    entorhinal_of,
    measure_response,
    nigra_lost,
    target_ml,
    warped,
)
from headstart.simulation.regions import label_regions

BANK_VERSION = 2
# As far from the template, and from each other, as prepared real brains are: docs/simulation.md, "Real or simulated?".
CHANCE = Chance(warp_mm=((45.0, 1.3), (22.0, 0.8), (12.0, 0.3)), tilt_degrees=1.2, shift_mm=0.8, stretch=0.012)
FIXED = ("lateral_ventricles", "third_ventricle", "hippocampus", "amygdala", "thalamus", "putamen", "caudate",
         "pallidum", "cerebellum_grey", "cerebellum_white", "brainstem", "nigra")
COLUMNS = (*FIXED, "entorhinal", "temporo_parietal", "depth_mm", "phase", "fold")
FOLD_MM = ((13.0, 0.15), (8.0, 0.125))  # knots of the random phase, standard deviation of each band
EVENED = 0.8  # how far the phase is freed of what differs between lobes
RIM_MM, RIM_SLOPE = 3.6, 0.6  # so deep below the outline there is no white matter; phase lost per mm above that
THINNING = 2.4  # phase lost per share of cortex lost: so much that, at 4 mm, that share of its volume goes


@dataclass(frozen=True)
class AnatomyGenerator:
    """Generator on the template that nilearn ships; nothing else is needed."""

    name: str = field(default="anatomy", init=False)

    def shape(self, subject: Subject, spec: VolumeSpec) -> Shape:
        """Tissue of one subject; see ``base.Shape``."""
        columns = placed_columns(subject, spec)
        return Shape(_tissues(columns, subject, spec), columns[COLUMNS.index("depth_mm")],
                     subject.head_ml / TEMPLATE_INTRACRANIAL_ML)


def placed_columns(subject: Subject, spec: VolumeSpec) -> torch.Tensor:
    """(columns, n) ``COLUMNS`` of the average where the subject's anatomy has them, folded in the subject's own way."""
    average, rng = load_average(spec), subject.rng("shape")
    points, _ = warped(rng, spec, CHANCE)
    moved = average.deep.fitted(points, np.array([target_ml(subject, name) for name in PUSHES]), spec)
    columns = sample(average.bank, BANK_GRID, moved, len(COLUMNS))
    columns[COLUMNS.index("phase")].addcmul_(columns[COLUMNS.index("fold")], smooth_field(rng, spec, FOLD_MM)[0])
    return columns


def _tissues(columns: torch.Tensor, subject: Subject, spec: VolumeSpec) -> torch.Tensor:
    """(tissues, n) from (columns, n): the cortex's borders are put where grey and white matter have their volumes."""
    ml, by = spec.spacing_mm**3 / 1000, dict(zip(COLUMNS, columns))
    by["nigra"].mul_(1 - nigra_lost(subject))
    fixed = columns[:len(FIXED)]
    total = dict(zip(FIXED, (fixed.sum(1) * ml).tolist()))
    space = fixed.sum(0).neg_().add_(1).clamp_(0, 1)
    phase = torch.minimum(by["phase"], (by["depth_mm"] - RIM_MM).mul_(RIM_SLOPE))
    white = above(phase, space, target_ml(subject, "white") - sum(total.get(name, 0.0) for name in WHITE), spec)
    thinned = phase.sub_(by["temporo_parietal"], alpha=THINNING * subject.losses["temporo_parietal"])
    solid = float(white.sum()) * ml + target_ml(subject, "grey") - sum(total.get(name, 0.0) for name in GREY)
    ribbon = above(thinned, space, solid, spec).sub_(white).clamp_(min=0)
    entorhinal, kept = entorhinal_of(by["entorhinal"], ribbon, subject, spec)
    csf = space.sub_(white).sub_(ribbon).add_(entorhinal, alpha=1 - kept).clamp_(min=0)
    tissues = {**by, "csf": csf, "white": white, "entorhinal": kept * entorhinal, "cortex": ribbon.sub_(entorhinal),
               "lesion": torch.zeros_like(white)}
    return torch.stack([tissues[name] for name in TISSUES])


@dataclass(frozen=True)
class Average:
    """The template as a bank.

    Attributes:
        bank: (voxels of ``BANK_GRID``, 24) float16, ``COLUMNS`` then padding.
        deep: its deep structures alone, eight columns.
    """

    bank: torch.Tensor
    deep: Deformable


@lru_cache(maxsize=4)
def load_average(spec: VolumeSpec) -> Average:
    """The bank for grid ``spec``, made on first use (seconds) and then read from the cache."""
    smooth_mm = _prefilter_mm(spec)
    file = cache_dir() / "anatomies" / f"icbm152-v{BANK_VERSION}-{smooth_mm:.2f}.npz"
    if not file.exists():
        _build(smooth_mm, file)
    with np.load(file) as arrays:
        bank, pushes = torch.from_numpy(arrays["bank"]), torch.from_numpy(arrays["pushes"])
        response = Response(arrays["rest_ml"], arrays["log_change"])
    deep = bank[:, [*(COLUMNS.index(name) for name in PUSHES), -1]]
    return Average(bank, Deformable.of(deep, range(len(PUSHES)), pushes, response))


def _build(smooth_mm: float, file: Path) -> None:
    maps = _maps()
    bank = np.zeros((int(np.prod(BANK_GRID.shape)), 24), np.float16)
    for column, name in enumerate(COLUMNS):
        bank[:, column] = _to_grid(maps[name], smooth_mm, BANK_GRID).ravel()
    pushes = np.zeros((int(np.prod(PUSH_GRID.shape)), 24), np.float16)
    for number, (name, reach) in enumerate(PUSHES.items()):
        pushes[:, 3 * number:3 * number + 3] = _push(maps[name] > 0.5, reach)
    places = [COLUMNS.index(name) for name in PUSHES]
    response = measure_response(torch.from_numpy(bank), places, torch.from_numpy(pushes))
    with atomic_write(file, "wb") as out:
        np.savez(out, bank=bank, pushes=pushes, rest_ml=response.rest_ml, log_change=response.log_change)


def _maps() -> dict[str, np.ndarray]:
    """Column -> (X, Y, Z) float32 at 1 mm."""
    icbm = template(FINE_GRID.name)
    regions = label_regions(icbm)
    maps = {name: mask.astype(np.float32) for name, mask in regions.items()}
    maps["nigra"] = _balls(NIGRA_MM, NIGRA_RADIUS_MM) * regions["brainstem"]
    maps["brainstem"] = maps["brainstem"] - maps["nigra"]
    maps.update(region_fields())
    maps["cerebellum_white"], maps["cerebellum_grey"] = _cerebellum(icbm, regions)
    inside, outside = (ndimage.distance_transform_edt(m).astype(np.float32) for m in (icbm.brain, ~icbm.brain))
    maps["depth_mm"] = np.clip(inside - outside, -8, 8)
    cerebrum = icbm.brain & ~np.any(list(regions.values()), axis=0)
    maps["phase"], maps["fold"] = _phase(icbm, cerebrum)
    return maps


def _cerebellum(icbm: Template, regions: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """White and grey matter; folia are thinner than voxels, so both share most of them."""
    mask = regions["cerebellum_white"] | regions["cerebellum_grey"]
    white = np.where(mask, np.clip(1.4 * icbm.white / (icbm.white + icbm.grey + 1e-3), 0, 1), 0).astype(np.float32)
    return white, mask - white


def _phase(icbm: Template, cerebrum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Phase of folding of the average (above 0 in white matter, below -1 in fluid), and where folding may vary."""
    csf = np.where(icbm.brain, np.clip(1 - icbm.grey - icbm.white, 0, 1), 1)
    core = ndimage.distance_transform_edt(icbm.white > 0.4)  # mm below the cortex
    fold = np.clip(1 - (core - 3) / 4, 0, 1) * cerebrum
    plain = icbm.white - 1.5 * csf
    detail = _local_contrast(plain, cerebrum & (core < 6), 8.0)
    phase = (1 - EVENED * fold) * (plain - 0.5) + EVENED * fold * detail + 0.3 * np.clip(core - 3, 0, 4)
    return phase.astype(np.float32), ndimage.gaussian_filter(fold.astype(np.float32), 1.0)


def _local_contrast(t1: np.ndarray, mask: np.ndarray, reach_mm: float) -> np.ndarray:
    """Intensity over its own neighbourhood within ``mask``, in standard deviations."""
    weight = ndimage.gaussian_filter(mask.astype(np.float32), reach_mm) + 1e-3
    mean = ndimage.gaussian_filter(np.where(mask, t1, 0), reach_mm) / weight
    square = ndimage.gaussian_filter(np.where(mask, (t1 - mean)**2, 0), reach_mm) / weight
    return np.where(mask, np.clip((t1 - mean) / np.sqrt(square + 1e-4), -2, 2), 0)
