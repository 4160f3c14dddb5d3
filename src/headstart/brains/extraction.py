"""Which voxels are brain: recognise scans that are already brain-extracted, extract the others with deepbet.

deepbet: L. Fisch et al., "deepbet: Fast brain extraction of T1-weighted MRI using Convolutional Neural Networks",
Computers in Biology and Medicine 179 (2024) 108845. Its weights are inside its wheel.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np

from headstart.errors import HeadstartError

# A brain with its ventricles and cerebellum lies within these; a head, even a cropped or defaced one, is larger.
BRAIN_ML = (300.0, 2300.0)
MIN_BACKGROUND_SHARE = 0.25  # a brain fills about half of its tightest box


def brain_mask(data: np.ndarray, voxel_ml: float) -> tuple[np.ndarray, bool]:
    """The brain's voxels, bool (X, Y, Z), and whether the scan came already extracted.

    Args:
        data: intensities, (X, Y, Z), RAS+.
        voxel_ml: volume of a voxel in millilitres.

    Raises:
        HeadstartError: no brain was found.
    """
    foreground = _foreground(data)
    already = _is_brain_only(foreground, voxel_ml)
    mask = foreground if already else _deepbet_mask(data)
    if not BRAIN_ML[0] <= mask.sum() * voxel_ml <= BRAIN_ML[1]:
        raise HeadstartError(f"no brain was found (the mask has {mask.sum() * voxel_ml:.0f} ml)",
                             fix="Check that this is a T1-weighted scan of an adult head with the right voxel size.")
    return mask, already


def _is_brain_only(foreground: np.ndarray, voxel_ml: float) -> bool:
    """A constant background round a brain-sized object: nobody's head is that small, skull and neck included."""
    enough_background = foreground.mean() <= 1 - MIN_BACKGROUND_SHARE
    return bool(enough_background and BRAIN_ML[0] <= foreground.sum() * voxel_ml <= BRAIN_ML[1])


def _foreground(data: np.ndarray) -> np.ndarray:
    """Voxels that differ from the most frequent value among the edges of the volume."""
    faces = np.concatenate([np.take(data, side, axis).ravel() for axis in range(3) for side in (0, -1)])
    values, counts = np.unique(faces, return_counts=True)
    background = values[counts.argmax()]
    tolerance = 1e-3 * (np.percentile(data[::4, ::4, ::4], 99.5) - background)  # ringing of a resampled mask
    return np.abs(data - background) > abs(tolerance)


@lru_cache(maxsize=1)
def _network() -> Any:
    """deepbet's two U-Nets, loaded once a process."""
    from deepbet.bet import BrainExtraction

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its weights are TorchScript
        return BrainExtraction(no_gpu=True)


def _deepbet_mask(data: np.ndarray) -> np.ndarray:
    import torch

    network = _network()
    try:
        with torch.inference_mode():
            probability = network.run_model(np.ascontiguousarray(data, np.float32))
        return np.asarray(network.postprocess(probability > 0.5), bool)
    except (AssertionError, ValueError) as error:  # deepbet found no foreground, or nothing to keep
        raise HeadstartError(f"no brain was found ({error})",
                             fix="Check that this is a T1-weighted scan of a head.") from error
