"""What preparation learned about a scan: plain numbers that go into the store's index and the QC page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Facts:
    """Measured while a scan was prepared; every number is reproducible, so a store is too.

    Attributes:
        source_sha256: of the file that was read.
        already_extracted: the scan came without its skull.
        brain_volume_ml: volume of the brain mask in the scan's own space.
        linear_scale: cube root of the registration's determinant: how much larger, per axis, the brain became.
            Native volume = registered volume / ``linear_scale`` ** 3.
        affine: native world to template world, 4 x 4, mm.
        overlap: Dice coefficient of the registered brain mask with the template's.
        correlation: of intensities with the template's T1 inside both masks.
        csf_fraction, grey_fraction, white_fraction: of the brain mask, by a three-class intensity mixture.
        voxel_size_mm: of the scan as it was read (RAS).
        notes: what a reader of the QC page should know, in plain words.
    """

    source_sha256: str
    already_extracted: bool
    brain_volume_ml: float
    linear_scale: float
    affine: tuple[tuple[float, ...], ...]
    overlap: float
    correlation: float
    csf_fraction: float
    grey_fraction: float
    white_fraction: float
    voxel_size_mm: tuple[float, float, float]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Facts:
        tuples = {"affine": tuple(tuple(row) for row in value["affine"]),
                  "voxel_size_mm": tuple(value["voxel_size_mm"]), "notes": tuple(value["notes"])}
        return cls(**{**value, **tuples})
