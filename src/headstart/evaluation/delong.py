"""DeLong's test: two models' areas under the ROC curve on the same scans."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from headstart.errors import HeadstartError
from headstart.evaluation.predictions import Predictions


@dataclass(frozen=True)
class DeLong:
    """Two correlated areas under the ROC curve: areas, difference a − b, its standard error and two-sided p."""

    auc_a: float
    auc_b: float
    difference: float
    standard_error: float
    p: float


def delong(positive: np.ndarray, a: np.ndarray, b: np.ndarray, cluster: np.ndarray | None = None) -> DeLong:
    """Test of two correlated AUROCs (DeLong et al. 1988) by midranks (Sun and Xu 2014).

    With clusters (several scans of a subject) the variance is Obuchowski's (1997), which equals DeLong's
    when each cluster holds one scan.

    Args:
        positive: (n,) bool.
        a: (n,) one model's scores.
        b: (n,) the other's, for the same scans.
        cluster: (n,) subject of each scan.

    Raises:
        HeadstartError: all scans are of one class.
    """
    positive = np.asarray(positive, bool)
    if positive.all() or not positive.any():
        raise HeadstartError("DeLong's test needs scans of both classes")
    cluster = np.arange(len(positive)) if cluster is None else np.unique(cluster, return_inverse=True)[1]
    places_a, places_b = _placements(positive, a), _placements(positive, b)
    areas = places_a[positive].mean(), places_b[positive].mean()
    variance = _clustered_variance(positive, (places_a - areas[0]) - (places_b - areas[1]), cluster)
    difference, error = areas[0] - areas[1], float(np.sqrt(max(variance, 0)))
    p = 2 * norm.sf(abs(difference) / error) if error > 1e-12 else float(abs(difference) < 1e-12)
    return DeLong(float(areas[0]), float(areas[1]), float(difference), error, float(p))


def _placements(positive: np.ndarray, score: np.ndarray) -> np.ndarray:
    """For each scan, the share of the other class that it is on the right side of (a tie counts half): (n,)."""
    everywhere, out = rankdata(score), np.empty(len(score))
    for own in (positive, ~positive):
        out[own] = (everywhere[own] - rankdata(score[own])) / (~own).sum()
    out[~positive] = 1 - out[~positive]
    return out


def _clustered_variance(positive: np.ndarray, component: np.ndarray, cluster: np.ndarray) -> float:
    """Variance of mean(component | positive), which equals mean(component | negative), from sums within clusters."""
    sums = [np.bincount(cluster, component * own, cluster.max() + 1) / own.sum() for own in (positive, ~positive)]
    counts = [len(np.unique(cluster[own])) for own in (positive, ~positive)]
    every = len(np.unique(cluster))
    own = sum(count / max(count - 1, 1) * (total @ total) for count, total in zip(counts, sums, strict=True))
    return float(own + 2 * every / max(every - 1, 1) * (sums[0] @ sums[1]))


def delong_tables(a: Predictions, b: Predictions) -> DeLong:
    """DeLong's test on two tables of the same scans (two classes), probabilities averaged over seeds."""
    a, b = a.seed_mean(), b.seed_mean()
    scores = [np.asarray(table.probabilities)[:, 1] for table in (a, b)]
    return delong(a.truth == 1, scores[0], scores[1], a.subject)
