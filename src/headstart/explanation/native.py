"""A map on the template's grid, brought to the scan it explains."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headstart.brains.facts import Facts
from headstart.brains.image import Image, resample
from headstart.brains.nifti import read_nifti
from headstart.brains.volumes import VolumeSpec


def to_native(found: np.ndarray, spec: VolumeSpec, facts: Facts, scan: str | Path) -> Image:
    """``found`` (X, Y, Z) on the template's grid, resampled linearly onto the voxels of ``scan``, RAS+.

    Args:
        found: a map, e.g. from ``explain``.
        spec: the template's grid.
        facts: of the scan's preparation: they hold the registration.
        scan: the NIfTI file that was prepared.
    """
    native = read_nifti(scan)
    to_template = np.array(facts.affine) @ native.affine
    shape = (native.data.shape[0], native.data.shape[1], native.data.shape[2])
    return Image(resample(Image(found, spec.affine), to_template, shape), native.affine)
