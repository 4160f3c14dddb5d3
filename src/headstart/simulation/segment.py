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
INSIDE_MM, ROOM_MM = 4.0, 8.0  # below the template's outline; how far beyond its ventricles others' reach
CLASSES = ("csf", "grey", "white", "lateral_ventricles")


def tissue_ml(volume: np.ndarray, spec: VolumeSpec,
              regions: Mapping[str, np.ndarray] | None = None) -> dict[str, float]:
    """Volumes of ``CLASSES`` in template space, mL, of a prepared scan (X, Y, Z)."""
    target = template(spec.name)
    core = (regions or label_regions(target))["lateral_ventricles"]
    fluid = min(float(np.percentile(volume[core], DARKEST)), GREY_LEVEL - 0.1)
    inside = (volume != 0) & ndimage.binary_erosion(target.brain, iterations=_voxels(INSIDE_MM, spec))
    csf = inside * np.clip((GREY_LEVEL - volume) / (GREY_LEVEL - fluid), 0, 1)
    white = inside * np.clip((volume - GREY_LEVEL) / (WHITE_LEVEL - GREY_LEVEL), 0, 1)
    near = ndimage.binary_dilation(core, iterations=_voxels(ROOM_MM, spec))
    shares = {"csf": csf, "grey": inside - csf - white, "white": white, "lateral_ventricles": csf * near}
    return {name: float(share.sum()) * spec.spacing_mm**3 / 1000 for name, share in shares.items()}


def _voxels(mm: float, spec: VolumeSpec) -> int:
    return max(1, round(mm / spec.spacing_mm))
