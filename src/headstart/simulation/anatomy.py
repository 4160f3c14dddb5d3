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

import numpy as np
import torch
from scipy import ndimage

from headstart.brains.volumes import Template, VolumeSpec, template
from headstart.files import atomic_write, cache_dir
from headstart.simulation.anatomies import (
    BANK_GRID,
    ENTORHINAL_MM,
    ENTORHINAL_RADIUS_MM,
    FINE_GRID,
    NIGRA_MM,
    NIGRA_RADIUS_MM,
    PUSH_GRID,
    PUSHES,
    _balls,
    _prefilter_mm,
    _push,
    _to_grid,
)
from headstart.simulation.base import GREY, TISSUES, WHITE, Shape, Subject
from headstart.simulation.fields import sample, smooth_field
from headstart.simulation.morph import (
    TEMPLATE_INTRACRANIAL_ML,
    Response,
    displacement,
    measure_response,
    target_ml,
    warped,
)
from headstart.simulation.regions import TEMPORO_PARIETAL, label_regions, radius

BANK_VERSION = 1
FIXED = ("lateral_ventricles", "third_ventricle", "hippocampus", "amygdala", "thalamus", "putamen", "caudate",
         "pallidum", "cerebellum_grey", "cerebellum_white", "brainstem", "nigra")
COLUMNS = (*FIXED, "entorhinal", "temporo_parietal", "depth_mm", "phase", "fold")
FOLD_MM = ((13.0, 0.55), (8.0, 0.35))  # knots of the random phase, standard deviation of each band
RIM_MM, RIM_SLOPE = 2.6, 0.7  # so deep below the outline there is no white matter; phase lost per mm above that
SOFT = 0.55  # range of phase over which one tissue gives way to the next
THINNING = 6.0  # phase lost per unit of local loss of cortex


@dataclass(frozen=True)
class AnatomyGenerator:
    """Generator on the template that nilearn ships; nothing else is needed."""

    name: str = field(default="anatomy", init=False)

    def shape(self, subject: Subject, spec: VolumeSpec) -> Shape:
        """Tissue of one subject; see ``base.Shape``."""
        average, rng = load_average(spec), subject.rng("shape")
        points, shrinkage = warped(rng, spec)
        wanted = np.array([target_ml(subject, name) for name in PUSHES])
        moved = points - displacement(average.pushes, points, average.response.amounts(wanted * shrinkage))
        columns = dict(zip(COLUMNS, sample(average.bank, BANK_GRID, moved).unbind(1)))
        random = sum(sd * smooth_field(rng, spec, knots_mm)[:, 0] for knots_mm, sd in FOLD_MM)
        columns["phase"] = columns["phase"] + columns["fold"] * random
        return Shape(_tissues(columns, subject, spec), columns["depth_mm"], subject.head_ml / TEMPLATE_INTRACRANIAL_ML)


def _tissues(columns: dict[str, torch.Tensor], subject: Subject, spec: VolumeSpec) -> torch.Tensor:
    """(n, tissues): both borders of the cortex are put where grey and white matter have their volumes."""
    ml = spec.spacing_mm**3 / 1000
    fixed = {name: columns[name] for name in FIXED}
    fixed["nigra"] = fixed["nigra"] * (1 - subject.losses.get("nigra", 0.0))
    total = {name: float(value.double().sum()) * ml for name, value in fixed.items()}
    space = (1 - torch.stack(list(fixed.values())).sum(0)).clamp(0, 1)
    phase = torch.minimum(columns["phase"], (columns["depth_mm"] - RIM_MM) * RIM_SLOPE)
    white = _above(phase, space, target_ml(subject, "white") - sum(total.get(name, 0.0) for name in WHITE), ml)
    thinned = phase - THINNING * subject.losses.get("temporo_parietal", 0.0) * columns["temporo_parietal"]
    solid = white.sum().item() * ml + target_ml(subject, "grey") - sum(total.get(name, 0.0) for name in GREY)
    ribbon = (_above(thinned, space, solid, ml) - white).clamp_min(0)
    entorhinal = ribbon * columns["entorhinal"]
    kept = min(1.0, target_ml(subject, "entorhinal") / max(float(entorhinal.sum()) * ml, 1e-3))
    tissues = {**fixed, "white": white, "entorhinal": kept * entorhinal, "cortex": ribbon - entorhinal,
               "lesion": torch.zeros_like(white)}
    tissues["csf"] = (1 - torch.stack(list(tissues.values())).sum(0)).clamp(0, 1)
    return torch.stack([tissues[name] for name in TISSUES], 1)


def _above(phase: torch.Tensor, space: torch.Tensor, wanted_ml: float, ml: float, rounds: int = 14) -> torch.Tensor:
    """(n,) share of each voxel whose phase is above the threshold that gives ``wanted_ml``, found by bisection."""
    low, high = -8.0, 4.0
    for _ in range(rounds):
        threshold = (low + high) / 2
        share = torch.minimum(((phase - threshold) / SOFT + 0.5).clamp(0, 1), space)
        low, high = (threshold, high) if float(share.sum()) * ml > wanted_ml else (low, threshold)
    return share


@dataclass(frozen=True)
class Average:
    """The template as a bank.

    Attributes:
        bank: (voxels of ``BANK_GRID``, 24) float16, ``COLUMNS`` then padding.
        pushes: (voxels of ``PUSH_GRID``, 24) float16, three columns a structure of ``PUSHES``, unit vectors outward.
        response: how volumes answer to pushes.
    """

    bank: torch.Tensor
    pushes: torch.Tensor
    response: Response


@lru_cache(maxsize=4)
def load_average(spec: VolumeSpec) -> Average:
    """The bank for grid ``spec``, made on first use (seconds) and then read from the cache."""
    smooth_mm = _prefilter_mm(spec)
    file = cache_dir() / "anatomies" / f"icbm152-v{BANK_VERSION}-{smooth_mm:.2f}.npz"
    if not file.exists():
        with atomic_write(file, "wb") as out:
            np.savez(out, **_build(smooth_mm))
    with np.load(file) as arrays:
        bank, pushes = torch.from_numpy(arrays["bank"]), torch.from_numpy(arrays["pushes"])
        return Average(bank, pushes, Response(arrays["rest_ml"], arrays["log_change"]))


def _build(smooth_mm: float) -> dict[str, np.ndarray]:
    maps = _maps()
    bank = np.zeros((int(np.prod(BANK_GRID.shape)), 24), np.float16)
    for column, name in enumerate(COLUMNS):
        bank[:, column] = _to_grid(maps[name], smooth_mm, BANK_GRID).ravel()
    pushes = np.zeros((int(np.prod(PUSH_GRID.shape)), 24), np.float16)
    for number, (name, reach) in enumerate(PUSHES.items()):
        pushes[:, 3 * number:3 * number + 3] = _push(maps[name] > 0.5, reach)
    response = measure_response(torch.from_numpy(bank), torch.from_numpy(pushes), COLUMNS)
    return {"bank": bank, "pushes": pushes, "rest_ml": response.rest_ml, "log_change": response.log_change}


def _maps() -> dict[str, np.ndarray]:
    """Column -> (X, Y, Z) float32 at 1 mm."""
    icbm = template(FINE_GRID.name)
    regions = label_regions(icbm)
    maps = {name: mask.astype(np.float32) for name, mask in regions.items()}
    maps["nigra"] = _balls(NIGRA_MM, NIGRA_RADIUS_MM) * regions["brainstem"]
    maps["brainstem"] = maps["brainstem"] - maps["nigra"]
    maps["entorhinal"] = _balls(ENTORHINAL_MM, ENTORHINAL_RADIUS_MM)
    far = radius(TEMPORO_PARIETAL, FINE_GRID.affine, FINE_GRID.shape)
    maps["temporo_parietal"] = np.clip((1.15 - far) / 0.3, 0, 1)
    inside, outside = (ndimage.distance_transform_edt(m).astype(np.float32) for m in (icbm.brain, ~icbm.brain))
    maps["depth_mm"] = np.clip(inside - outside, -8, 8)
    cerebrum = icbm.brain & ~np.any(list(regions.values()), axis=0)
    maps["phase"], maps["fold"] = _phase(icbm, cerebrum)
    return maps


def _phase(icbm: Template, cerebrum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Phase of folding of the average (about 0.5 in white matter, below -1 in fluid), and where folding may vary."""
    csf = np.where(icbm.brain, np.clip(1 - icbm.grey - icbm.white, 0, 1), 1)
    detail = _local_contrast(icbm.t1, cerebrum, 7.0)
    core = ndimage.distance_transform_edt(icbm.white > 0.4)  # mm below the cortex
    fold = np.clip(1 - (core - 3) / 4, 0, 1) * cerebrum
    phase = icbm.white - 0.5 - 1.5 * csf + 0.5 * fold * detail + 0.3 * np.clip(core - 3, 0, 4)
    return phase.astype(np.float32), ndimage.gaussian_filter(fold.astype(np.float32), 1.0)


def _local_contrast(t1: np.ndarray, mask: np.ndarray, reach_mm: float) -> np.ndarray:
    """Intensity over its own neighbourhood within ``mask``, in standard deviations."""
    weight = ndimage.gaussian_filter(mask.astype(np.float32), reach_mm) + 1e-3
    mean = ndimage.gaussian_filter(np.where(mask, t1, 0), reach_mm) / weight
    square = ndimage.gaussian_filter(np.where(mask, (t1 - mean)**2, 0), reach_mm) / weight
    return np.where(mask, np.clip((t1 - mean) / np.sqrt(square + 1e-4), -2, 2), 0)
