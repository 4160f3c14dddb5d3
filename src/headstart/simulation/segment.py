"""Tissue volumes of a prepared scan by intensity alone: no parameter of a simulation, and nothing of a label, goes in.

Preparation has put grey matter at 0.5 and white matter at 1; the level of fluid is read where ventricles lie. Between
two levels a voxel holds both tissues in proportion, so that what is thinner than a voxel is counted too. Only the
inside of the template's brain is looked at: where brain extraction cut must not matter.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import ndimage

from headstart.brains.intensity import GREY_LEVEL, WHITE_LEVEL
from headstart.brains.volumes import VolumeSpec, template
from headstart.simulation.regions import label_regions

DARKEST = 5  # percentile, where ventricles lie, that is taken for pure fluid
INSIDE_MM = 4.0  # below the template's outline
DEEP_MM, ROOM_MM = 12.0, 12.0  # ventricles lie so far below the outline, and others' reach so far beyond the template's
CLASSES = ("csf", "grey", "white", "lateral_ventricles")


def tissue_ml(volume: np.ndarray, spec: VolumeSpec,
              regions: Mapping[str, np.ndarray] | None = None) -> dict[str, float]:
    """Volumes of ``CLASSES`` in template space, mL, of a prepared scan (X, Y, Z)."""
    target = template(spec.name)
    core = (regions or label_regions(target))["lateral_ventricles"]
    fluid = min(float(np.percentile(volume[core], DARKEST)), GREY_LEVEL - 0.1)
    inside = (volume != 0) & _eroded(target.brain, INSIDE_MM, spec)
    csf = inside * np.clip((GREY_LEVEL - volume) / (GREY_LEVEL - fluid), 0, 1)
    white = inside * np.clip((volume - GREY_LEVEL) / (WHITE_LEVEL - GREY_LEVEL), 0, 1)
    room = _dilated(core, ROOM_MM, spec) & _eroded(target.brain, DEEP_MM, spec)
    shares = {"csf": csf, "grey": inside - csf - white, "white": white,
              "lateral_ventricles": csf * _connected(csf * room > 0.5, core) * room}
    return {name: float(share.sum()) * spec.spacing_mm**3 / 1000 for name, share in shares.items()}


def _connected(mask: np.ndarray, core: np.ndarray) -> np.ndarray:
    """What of ``mask`` hangs together with its part in ``core``, and one voxel more: borders are fluid in part."""
    parts, _ = ndimage.label(mask)
    held = np.setdiff1d(parts[core], [0])
    return ndimage.binary_dilation(np.isin(parts, held))


def _eroded(mask: np.ndarray, mm: float, spec: VolumeSpec) -> np.ndarray:
    return ndimage.binary_erosion(mask, iterations=max(1, round(mm / spec.spacing_mm)))


def _dilated(mask: np.ndarray, mm: float, spec: VolumeSpec) -> np.ndarray:
    return ndimage.binary_dilation(mask, iterations=max(1, round(mm / spec.spacing_mm)))
