"""How many labelled scans a head start is worth: scratch's learning curve, read the other way round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.evaluation.metrics import Metric
from headstart.evaluation.statistics import LEVEL, Bootstrap, Sampled


@dataclass(frozen=True)
class Worth:
    """Scans that scratch needs to score like a start that learned from ``scans``.

    A bound that lies beyond scratch's curve is the curve's end, and said to be so: ``at_least`` and ``at_most`` tell
    whether value, low and high are only known to lie beyond the largest, or below the smallest, training size.
    """

    scans: float
    value: float
    low: float
    high: float
    at_most: tuple[bool, bool, bool]
    at_least: tuple[bool, bool, bool]

    @property
    def saved(self) -> float:
        """Scans that need no label, at the value."""
        return self.value - self.scans

    @property
    def told(self) -> bool:
        """Whether the interval says anything: not where it runs from one end of scratch's curve to the other."""
        return not (self.at_most[1] and self.at_least[2])


def worth(bootstrap: Bootstrap, scratch: Sequence[Sampled], sizes: Sequence[float], start: Sampled, scans: float,
          metric: Metric) -> Worth | None:
    """Interpolate scratch's curve (made monotone) in the logarithm of its size, on the data and on every replicate.

    Args:
        bootstrap: the replicates that all scores share.
        scratch: by training size, ascending, on the same people and seeds as ``start``.
        sizes: labelled scans of each.
        start: the head start's scores, from ``scans`` labelled scans.
        scans: how many those were.
        metric: what was scored.

    Returns:
        None where scratch has fewer than two sizes, or a score is undefined.
    """
    if len(sizes) < 2:
        return None
    sign = 1.0 if metric.better == "higher" else -1.0
    draws = bootstrap.seed_weights(len(start.values))
    every = [sign * np.concatenate([[one.values.mean()], (one.replicates * draws).sum(1)]) for one in (*scratch, start)]
    curve, reached = monotone(np.stack(every[:-1])), every[-1]
    defined = ~np.isnan(curve).any(0) & ~np.isnan(reached)
    if not defined[0] or defined.mean() < LEVEL:
        return None
    needed = inverted(curve[:, defined], np.asarray(sizes, float), reached[defined])
    tail = (1 - LEVEL) / 2
    ends = np.array([needed[0], *np.quantile(needed[1:], [tail, 1 - tail], method="nearest")])
    known = np.clip(ends, sizes[0], sizes[-1])
    below, beyond = (tuple(map(bool, outside)) for outside in (ends < sizes[0], ends > sizes[-1]))
    value, low, high = map(float, known)
    return Worth(float(scans), value, low, high, below, beyond)  # type: ignore[arg-type]


def monotone(curve: np.ndarray) -> np.ndarray:
    """Isotonic (least-squares, never falling) version of each column of ``curve`` (sizes, B): max-min of means."""
    sizes = len(curve)
    sums = np.concatenate([np.zeros((1, curve.shape[1])), np.cumsum(curve, 0)])
    mean = {(a, b): (sums[b + 1] - sums[a]) / (b + 1 - a) for a in range(sizes) for b in range(a, sizes)}
    return np.stack([np.max([np.min([mean[a, b] for b in range(i, sizes)], 0) for a in range(i + 1)], 0)
                     for i in range(sizes)])


def inverted(curve: np.ndarray, sizes: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """Sizes (B,) at which rising curves (sizes, B) reach a score (B,); 0 below the curve, inf beyond it."""
    logs = np.log(sizes)
    place = (curve < reached).sum(0)  # the first point that is not below the score
    left = np.clip(place - 1, 0, len(sizes) - 2)
    column = np.arange(curve.shape[1])
    low, high = curve[left, column], curve[left + 1, column]
    share = np.where(high > low, (reached - low) / np.where(high > low, high - low, 1), 0)
    between = np.exp(logs[left] + np.clip(share, 0, 1) * (logs[left + 1] - logs[left]))
    exact = reached == curve[0]
    return np.where(place == len(sizes), np.inf, np.where((place == 0) & ~exact, 0.0, between))
