"""Intensities that mean the same on every scanner, and tissue fractions read from them."""

from __future__ import annotations

import numpy as np

from headstart.errors import HeadstartError

BINS = 256
GREY_LEVEL, WHITE_LEVEL = 0.5, 1.0
LOWEST, HIGHEST = -0.5, 2.0
SURE = 0.8, 0.9  # template probabilities above which a voxel counts as grey or white matter: near 3,000 each at 4 mm


def scale_robust(volume: np.ndarray, mask: np.ndarray, grey: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Scheme ``brain-robust-1``: grey matter's median becomes 0.5 and white matter's 1; outside the mask exactly 0.

    Two tissues fix level and contrast alike; percentiles of the whole brain move with the very atrophy that a model
    is to see. Fluid comes out near 0.

    Args:
        volume: intensities of a registered T1w brain, (X, Y, Z).
        mask: bool, the brain.
        grey, white: the template's tissue probabilities on the same grid.

    Returns:
        float32 in [-0.5, 2].

    Raises:
        HeadstartError: white matter is not brighter than grey matter.
    """
    low, high = (np.median(volume[mask & (tissue > sure)]) for tissue, sure in zip((grey, white), SURE))
    if not high > low:  # also where a median is NaN: the brain lies off the template
        raise HeadstartError("white matter is not brighter than grey matter after registration",
                             fix="Check that this is a T1-weighted scan of an adult, and look at its orientation.")
    scaled = GREY_LEVEL + (WHITE_LEVEL - GREY_LEVEL) * (volume - low) / (high - low)
    return np.where(mask, np.clip(scaled, LOWEST, HIGHEST), 0).astype(np.float32)


def tissue_fractions(values: np.ndarray, iterations: int = 200) -> tuple[float, float, float]:
    """Shares of cerebrospinal fluid, grey and white matter in T1w brain intensities.

    Three Gaussians are fitted to the histogram by expectation maximisation (Dempster et al. 1977), started at the
    10th, 50th and 85th percentiles.

    Args:
        values: intensities of brain voxels, any shape, at least a few hundred.

    Returns:
        (csf, grey, white); they sum to 1.
    """
    low, high = np.percentile(values, (0.2, 99.8))
    counts, edges = np.histogram(values, BINS, (low, max(high, low + 1e-6)))
    centres = (edges[:-1] + edges[1:]) / 2
    means = np.percentile(values, (10, 50, 85))
    sds = np.full(3, np.std(centres) / 4)
    weights = np.full(3, 1 / 3)
    for _ in range(iterations):
        weights, means, sds = _em_step(centres, counts, weights, means, sds)
    csf, grey, white = weights[np.argsort(means)]
    return float(csf), float(grey), float(white)


def _em_step(x: np.ndarray, counts: np.ndarray, weights: np.ndarray, means: np.ndarray,
             sds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One expectation and one maximisation; ``x`` (bins,), the parameters (3,)."""
    log_density = np.log(weights) - np.log(sds) - 0.5 * ((x[:, None] - means) / sds) ** 2  # (bins, 3)
    shares = np.exp(log_density - log_density.max(1, keepdims=True))
    shares *= (counts / shares.sum(1))[:, None]
    mass = shares.sum(0) + 1e-9
    means = x @ shares / mass
    variances = (shares * (x[:, None] - means) ** 2).sum(0) / mass
    narrowest = 2 * (x[1] - x[0])
    return mass / mass.sum(), means, np.sqrt(variances).clip(narrowest)
