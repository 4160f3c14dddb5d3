"""Scores of a model, vectorised over case weights, so that a bootstrap replicate is just another column of weights.

Every metric maps an ``Outcome`` of n scans and weights (n, B) to B values; NaN where it is undefined (one class only,
a constant prediction), without a warning. Weights are frequencies: integers repeat a scan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["regression", "classification"]
ECE_BINS = 10


@dataclass(frozen=True)
class Outcome:
    """Truth and prediction of n scans.

    Attributes:
        truth: (n,) the number, or the class's index.
        prediction: (n,) likewise.
        probabilities: (n, C) for classification; of two classes the last is the positive one.
        site: (n,) integer codes.
    """

    truth: np.ndarray
    prediction: np.ndarray
    probabilities: np.ndarray | None
    site: np.ndarray

    def __len__(self) -> int:
        return len(self.truth)


@dataclass(frozen=True)
class Metric:
    """A declared score; ``better`` says which direction is good, ``in_units`` that it is in the target's unit.

    ``limits`` is the range that no value leaves.
    """

    name: str
    label: str
    kind: Kind
    better: Literal["higher", "lower"]
    function: Callable[[Outcome, np.ndarray], np.ndarray]
    in_units: bool = False
    limits: tuple[float, float] = (0.0, 1.0)

    def __call__(self, outcome: Outcome, weights: np.ndarray | None = None) -> np.ndarray:
        """Values (B,) for weights (n, B); one value, (1,), without weights."""
        if weights is None:
            weights = np.ones((len(outcome), 1))
        if not len(outcome):
            return np.full(weights.shape[1], np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.function(outcome, weights)


# ---- classification -------------------------------------------------------------------------------------------------


def _one_vs_rest(outcome: Outcome, weights: np.ndarray, score: Callable[..., np.ndarray]) -> np.ndarray:
    """``score(positive (n,) bool, probability (n,), weights)``: of the positive class, or the mean over classes."""
    probabilities = np.asarray(outcome.probabilities)
    classes = range(1, 2) if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    return _mean_defined(np.stack([score(outcome.truth == c, probabilities[:, c], weights) for c in classes]))


def _mean_defined(values: np.ndarray) -> np.ndarray:
    """Mean over axis 0 of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    return np.where(defined, values, 0).sum(0) / np.where(defined.any(0), defined.sum(0), np.nan)


def _tied_sums(probability: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of positives and of negatives at each distinct probability, ascending: two arrays (distinct, B)."""
    order = np.argsort(probability, kind="stable")
    starts = np.flatnonzero(np.diff(probability[order], prepend=-np.inf))
    ordered, is_positive = weights[order], positive[order, None]
    above = np.add.reduceat(np.where(is_positive, ordered, 0), starts, axis=0)
    return above, np.add.reduceat(np.where(is_positive, 0, ordered), starts, axis=0)


def _auroc(positive: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    positives, negatives = _tied_sums(probability, positive, weights)
    below = np.cumsum(negatives, axis=0) - negatives / 2  # a tie counts half
    return (positives * below).sum(0) / (positives.sum(0) * negatives.sum(0))


def _auprc(positive: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision: the step-wise area, without interpolation."""
    positives, negatives = (sums[::-1] for sums in _tied_sums(probability, positive, weights))
    hits = np.cumsum(positives, axis=0)
    called = hits + np.cumsum(negatives, axis=0)
    precision = np.where(called > 0, hits / called, 0)
    return (positives * precision).sum(0) / np.where(negatives.sum(0) > 0, positives.sum(0), np.nan)


def _brier(positive: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _mean((probability - positive) ** 2, weights)


def _ece(positive: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Expected calibration error over ten bins of equal width: mean |observed − predicted|, weighted by bin size."""
    bins = np.minimum((probability * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.eye(ECE_BINS)[bins] * (positive - probability)[:, None]  # (n, bins)
    return np.abs(gaps.T @ weights).sum(0) / weights.sum(0)


def _class_sums(outcome: Outcome, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights of hits, of truths and of calls per class: three arrays (C, B)."""
    classes = np.arange(np.asarray(outcome.probabilities).shape[1])[:, None]
    truth, called = outcome.truth == classes, outcome.prediction == classes
    return (truth & called) @ weights, truth @ weights, called @ weights


def _balanced_accuracy(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Mean recall over the classes present; undefined when there is but one."""
    hits, truths, _ = _class_sums(outcome, weights)
    return np.where((truths > 0).sum(0) > 1, _mean_defined(hits / truths), np.nan)


def _f1(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Of the positive class, or the mean over the classes present."""
    hits, truths, calls = _class_sums(outcome, weights)
    scores = np.where(truths > 0, 2 * hits / (truths + calls), np.nan)
    return scores[1] if len(scores) == 2 else _mean_defined(scores)


def _auroc_within_site(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """The share of pairs of one site that are in the right order: no credit for telling sites apart.

    Sites count by their pairs; one with a single class has none.
    """
    def concordant(positive: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> np.ndarray:
        ordered, pairs = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
        for rows in (outcome.site == site for site in np.unique(outcome.site)):
            here = weights[rows][positive[rows]].sum(0) * weights[rows][~positive[rows]].sum(0)
            ordered += np.where(here > 0, _auroc(positive[rows], probability[rows], weights[rows]) * here, 0)
            pairs += here
        return np.where(pairs > 0, ordered / pairs, np.nan)

    return _one_vs_rest(outcome, weights, concordant)


# ---- regression -----------------------------------------------------------------------------------------------------


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return values @ weights / weights.sum(0)


def _mae(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    return _mean(np.abs(outcome.prediction - outcome.truth), weights)


def _rmse(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    return np.sqrt(_mean((outcome.prediction - outcome.truth) ** 2, weights))


def _co_moments(outcome: Outcome, weights: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of squares and products around group means, summed over groups: (tt, pp, tp), each (B,)."""
    truth, prediction = outcome.truth - outcome.truth.mean(), outcome.prediction - outcome.prediction.mean()
    member = (groups == np.unique(groups)[:, None]).astype(float)  # (groups, n)
    total = member @ weights
    total = np.where(total > 0, total, 1)
    sum_t, sum_p = (member * truth) @ weights, (member * prediction) @ weights  # (groups, B)
    pairs = ((truth, truth, sum_t * sum_t), (prediction, prediction, sum_p * sum_p), (truth, prediction, sum_t * sum_p))
    tt, pp, tp = ((a * b) @ weights - (products / total).sum(0) for a, b, products in pairs)
    return tt, pp, tp


def _correlation(outcome: Outcome, weights: np.ndarray, groups: np.ndarray) -> np.ndarray:
    tt, pp, tp = _co_moments(outcome, weights, groups)
    scale = 1e-12 * weights.sum(0)  # below it a variance is rounding
    spread_t, spread_p = max(np.ptp(outcome.truth), 1e-300) ** 2, max(np.ptp(outcome.prediction), 1e-300) ** 2
    varied = (tt > scale * spread_t) & (pp > scale * spread_p) & (tt > 0) & (pp > 0)
    return np.where(varied, np.clip(tp / np.sqrt(np.where(varied, tt * pp, 1)), -1, 1), np.nan)


def _r(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    return _correlation(outcome, weights, np.zeros(len(outcome), int))


def _r_within_site(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    """Pearson's r after truth and prediction lost their site means: no credit for telling sites apart."""
    return _correlation(outcome, weights, outcome.site)


def _r2(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    tt, _, _ = _co_moments(outcome, weights, np.zeros(len(outcome), int))
    varied = tt > 1e-12 * weights.sum(0) * max(np.ptp(outcome.truth), 1e-300) ** 2
    errors = (outcome.prediction - outcome.truth) ** 2 @ weights
    return np.where(varied, 1 - errors / np.where(varied, tt, 1), np.nan)


# ---- registry -------------------------------------------------------------------------------------------------------


def _binary(score: Callable[..., np.ndarray]) -> Callable[[Outcome, np.ndarray], np.ndarray]:
    return lambda outcome, weights: _one_vs_rest(outcome, weights, score)


METRICS: dict[str, Metric] = {metric.name: metric for metric in (
    Metric("auroc", "AUROC", "classification", "higher", _binary(_auroc)),
    Metric("auprc", "AUPRC", "classification", "higher", _binary(_auprc)),
    Metric("balanced_accuracy", "Balanced accuracy", "classification", "higher", _balanced_accuracy),
    Metric("f1", "F1", "classification", "higher", _f1),
    Metric("brier", "Brier score", "classification", "lower", _binary(_brier)),
    Metric("ece", "Calibration error (ECE)", "classification", "lower", _binary(_ece)),
    Metric("mae", "Mean absolute error", "regression", "lower", _mae, in_units=True, limits=(0.0, np.inf)),
    Metric("rmse", "Root mean squared error", "regression", "lower", _rmse, in_units=True, limits=(0.0, np.inf)),
    Metric("r", "Correlation r", "regression", "higher", _r, limits=(-1.0, 1.0)),
    Metric("r_within_site", "r, site means removed", "regression", "higher", _r_within_site, limits=(-1.0, 1.0)),
    Metric("r2", "R²", "regression", "higher", _r2, limits=(-np.inf, 1.0)),
)}
# Of people whom several models were tested on, each at sites of its own: a site's mean output is its model's.
WITHIN_SITE: dict[str, Metric] = {
    "regression": METRICS["r_within_site"],
    "classification": Metric("auroc_within_site", "AUROC within sites", "classification", "higher", _auroc_within_site),
}
PRIMARY: dict[str, str] = {"regression": "mae", "classification": "auroc"}


def metrics_for(kind: str) -> tuple[Metric, ...]:
    """The metrics of a task of this kind, the primary one first."""
    return tuple(metric for metric in METRICS.values() if metric.kind == kind)


def why_undefined(metric: Metric, outcome: Outcome) -> str:
    """In plain words, why ``metric`` has no value on ``outcome``."""
    if not len(outcome):
        return "no scans"
    if len(np.unique(outcome.truth)) == 1:
        return "all scans are of one class" if metric.kind == "classification" else "all targets are equal"
    if metric.kind == "classification":
        return "a seed or class has no scan to score"
    return "nothing varies within a site" if metric.name == "r_within_site" else "the prediction is constant"
