"""Intensities that mean the same on every scanner, and tissue fractions read from them."""

from __future__ import annotations

import numpy as np

LOW_PERCENTILE, HIGH_PERCENTILE = 5.0, 95.0
BINS = 256


def scale_robust(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Scheme ``brain-robust-1``: inside the mask the 5th percentile becomes 0 and the 95th 1; outside exactly 0.

    Args:
        volume: intensities, any shape.
        mask: bool, the same shape; the brain.

    Returns:
        float32, clipped to [-0.5, 2].
    """
    low, high = np.percentile(volume[mask], (LOW_PERCENTILE, HIGH_PERCENTILE))
    scaled = (volume - low) / max(float(high - low), np.finfo(np.float32).tiny)
    return np.where(mask, np.clip(scaled, -0.5, 2.0), 0).astype(np.float32)


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
