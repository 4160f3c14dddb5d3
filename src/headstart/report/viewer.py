"""Slices of a brain that a reader moves through, with maps over it: what the pages' script draws."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class View:
    """One brain as the script reads it: bytes in C order, as base64.

    Attributes:
        shape: voxels by axis, comma-separated.
        brain: grey levels; outline: 1 within it, or empty for none.
        maps: (title, map) in the order in which they are offered; 128 is zero.
    """

    shape: str
    brain: str
    outline: str
    maps: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, volume: np.ndarray, maps: Mapping[str, np.ndarray], outline: np.ndarray | None = None) -> View:
        """A prepared scan (X, Y, Z), maps on its grid by title, and an outline that it should fit."""
        return cls(",".join(map(str, volume.shape)), _encoded(_grey(volume)),
                   _encoded(outline.astype(np.uint8)) if outline is not None else "",
                   tuple((title, _encoded(_signed(found))) for title, found in maps.items()))


def _encoded(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _grey(volume: np.ndarray) -> np.ndarray:
    """Scaled intensities as grey levels; outside the brain is black."""
    return np.where(volume == 0, 0, 30 + 150 * np.clip(volume, -0.2, 1.5)).astype(np.uint8)


def _signed(found: np.ndarray) -> np.ndarray:
    """A map as bytes: 128 is zero; its strongest half per cent is full."""
    inside = np.abs(found[found != 0])
    top = float(np.percentile(inside, 99.5)) if len(inside) else 1.0
    return np.rint(128 + 127 * np.clip(found / max(top, 1e-12), -1, 1)).astype(np.uint8)
