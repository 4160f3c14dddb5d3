"""Intervals and tests that respect how the data came about: scans belong to subjects, and models meet the same ones.

The unit of resampling is the subject: all sessions and seeds of a person enter a replicate together. A comparison also
resamples seeds, crossed with subjects, since another seed would have given another model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata
from scipy.stats import t as student

from headstart.errors import HeadstartError
from headstart.evaluation.metrics import Metric, why_undefined
from headstart.evaluation.predictions import Predictions

REPLICATES = 2000
LEVEL = 0.95
FEWEST_SUBJECTS = 3  # fewer have no interval
MOST_UNDEFINED = 0.5  # share of replicates; beyond it there is no interval


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, and the number of subjects behind it.

    ``value`` is None where the metric is undefined, ``low`` and ``high`` where no interval can be had;
    ``reason`` then says why.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    reason: str = ""


@dataclass(frozen=True)
class Paired:
    """A difference a − b on the same scans and seeds, with the p value of no difference.

    ``p`` belongs to ``difference``. ``p_delong`` asks another question, of the AUROC of scores averaged over seeds.
    """

    difference: Estimate
    p: float | None
    p_delong: float | None = None


@dataclass(frozen=True)
class Sampled:
    """A metric of one table by seed.

    Attributes:
        values: (K,) one a seed.
        replicates: (B, K) the same subjects in each row.
        jackknife: (S, K) without one subject at a time.
    """

    values: np.ndarray
    replicates: np.ndarray
    jackknife: np.ndarray

    def __sub__(self, other: Sampled) -> Sampled:
        return Sampled(self.values - other.values, self.replicates - other.replicates, self.jackknife - other.jackknife)

    def __mul__(self, factor: float) -> Sampled:
        return Sampled(self.values * factor, self.replicates * factor, self.jackknife * factor)

    def relative_to(self, base: Sampled) -> Sampled:
        """In shares of the mean over seeds of ``base``, replicate by replicate."""
        pairs = ((getattr(self, part), getattr(base, part).mean(-1, keepdims=True))
                 for part in ("values", "replicates", "jackknife"))
        return Sampled(*(np.where(below != 0, above / np.where(below != 0, below, 1), np.nan)
                         for above, below in pairs))

    @classmethod
    def mean(cls, parts: Sequence[Sampled]) -> Sampled:
        """The mean of several that were sampled on the same subjects and seeds."""
        return cls(*(np.mean([getattr(one, part) for one in parts], axis=0)
                     for part in ("values", "replicates", "jackknife")))


@dataclass(frozen=True)
class Bootstrap:
    """Resampling plan; the draws are a pure function of ``seed`` and the number of subjects (and of seeds)."""

    replicates: int = REPLICATES
    seed: int = 0
    _kept: dict[tuple, Any] = field(default_factory=dict, repr=False, compare=False)

    def estimate(self, table: Predictions, metric: Metric) -> Estimate:
        """Mean over seeds of ``metric``, with an interval over subjects."""
        if not len(table):
            return Estimate(None, None, None, 0, "no scans")
        sampled = self.sample(table, metric)
        mean = Sampled(*(values.mean(-1) for values in (sampled.values, sampled.replicates, sampled.jackknife)))
        return _estimate(mean, table.num_subjects, why_undefined(metric, table.outcome()))

    def compare(self, a: Predictions, b: Predictions, metric: Metric) -> Paired:
        """Difference a − b in the mean over seeds, from the crossed subject × seed bootstrap.

        For AUROC of two classes DeLong's test on probabilities averaged over seeds stands beside it.

        Raises:
            HeadstartError: the tables do not hold the same scans and seeds.
        """
        if not a.same_rows(b):
            a, b = a.sorted(), b.sorted()
        if not a.same_rows(b):
            raise HeadstartError("a comparison needs the same scans and seeds on both sides",
                                 fix="Compare models that were run with the same split.")
        values = self.sample(a, metric), self.sample(b, metric)
        reason = why_undefined(metric, a.outcome() if np.isnan(values[0].values).any() else b.outcome())
        difference, p = self.crossed(values[0] - values[1], a.num_subjects, reason)
        apply_delong = metric.name == "auroc" and len(a.classes) == 2 and p is not None
        return Paired(difference, p, delong_tables(a, b).p if apply_delong else None)

    def crossed(self, apart: Sampled, subjects: int, reason: str = "") -> tuple[Estimate, float | None]:
        """Mean over seeds of anything sampled, its interval over subjects and seeds, and the p value of zero.

        Args:
            apart: by seed.
            subjects: how many were resampled.
            reason: in words, should there be no value.
        """
        value = apart.values.mean()
        variance, freedom = crossed_variance(apart, subjects)
        crossed = _scaled((apart.replicates * self.seed_weights(len(apart.values))).sum(1), value, variance)
        difference = _estimate(Sampled(value, crossed, apart.jackknife.mean(1)), subjects, reason, freedom)
        return difference, _p_value(difference, variance, freedom)

    def sample(self, table: Predictions, metric: Metric) -> Sampled:
        """``metric`` of each seed on the data, on every replicate and without each subject in turn."""
        key = (id(table), metric.name)
        if key not in self._kept:
            self._kept[key] = table, self._sample(table, metric)  # the table is kept too, so that its id stays its own
        return self._kept[key][1]

    def _sample(self, table: Predictions, metric: Metric) -> Sampled:
        subjects, subject = np.unique(table.subject, return_inverse=True)
        weights = self._weights(len(subjects))
        parts = []
        for seed in table.seeds:
            rows = np.flatnonzero(table.seed == seed)
            parts.append(metric(table.select(rows).outcome(), weights[subject[rows]]))
        values = np.stack(parts, 1)
        return Sampled(values[0], values[1: 1 + self.replicates], values[1 + self.replicates:])

    def _weights(self, subjects: int) -> np.ndarray:
        """Weights of the subjects (S, 1 + B + S): all ones, the replicates, then each left out once."""
        key = ("weights", subjects)
        if key not in self._kept:
            draws = self._generator(subjects, 0).multinomial(subjects, np.full(subjects, 1 / subjects), self.replicates)
            self._kept[key] = np.concatenate([np.ones((subjects, 1)), draws.T, 1 - np.eye(subjects)], axis=1)
        return self._kept[key]

    def seed_weights(self, seeds: int) -> np.ndarray:
        """Weights of the seeds (B, K), each row summing to 1."""
        return self._generator(seeds, 1).multinomial(seeds, np.full(seeds, 1 / seeds), self.replicates) / seeds

    def _generator(self, size: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, purpose, size]))


def crossed_variance(apart: Sampled, subjects: int) -> tuple[float, float]:
    """Variance of a mean difference over crossed subjects and seeds, and its degrees of freedom.

    The variance over subjects (bootstrap, with the seeds as they are) plus that over seeds (from their values). Their
    interaction is in both, so that tests are conservative where seeds only add noise; resampling both at once would
    count it three times (Owen 2007). Degrees of freedom are Satterthwaite's (1946): few seeds tell little about seeds.

    Args:
        apart: the difference, by seed.
        subjects: how many.
    """
    seeds, few = len(apart.values), max(subjects - 1, 1)
    replicates = apart.replicates[~np.isnan(apart.replicates).any(1)]
    if len(replicates) < 2:
        return float("nan"), float(few)
    of_subjects = float(replicates.mean(1).var()) * subjects / few
    if seeds == 1:
        return of_subjects, float(few)
    of_seeds = float(np.var(apart.values, ddof=1)) / seeds
    variance = of_subjects + of_seeds
    parts = of_subjects**2 / few + of_seeds**2 / (seeds - 1)
    return variance, variance**2 / parts if parts > 0 else float(few)


def _scaled(replicates: np.ndarray, value: float, variance: float) -> np.ndarray:
    """Replicates stretched about ``value`` to the given variance; their shape stays."""
    spread = float(np.nanvar(replicates)) if not np.isnan(replicates).all() else 0.0
    return value + (replicates - value) * np.sqrt(variance / spread) if spread > 1e-24 else replicates


def _estimate(mean: Sampled, subjects: int, reason: str, freedom: float | None = None) -> Estimate:
    value = float(mean.values)
    if np.isnan(value):
        return Estimate(None, None, None, subjects, reason)
    defined = mean.replicates[~np.isnan(mean.replicates)]
    if subjects < FEWEST_SUBJECTS or len(defined) < MOST_UNDEFINED * len(mean.replicates):
        return Estimate(value, None, None, subjects, "too few subjects for an interval")
    low, high = bca_interval(value, defined, mean.jackknife, subjects, freedom)
    return Estimate(value, low, high, subjects)


def bca_interval(value: float, replicates: np.ndarray, jackknife: np.ndarray, n: int,
                 freedom: float | None = None) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval (Efron 1987), widened for small n (Hesterberg 2015, §4.1.4).

    Args:
        value: the statistic on the data.
        replicates: (B,) on resamples.
        jackknife: (n,) without each subject; NaN is left out.
        n: subjects.
        freedom: degrees of freedom, where the replicates' variance is already unbiased.
    """
    shift, acceleration = _bca_terms(value, replicates, jackknife)
    bessel = 1.0 if freedom else np.sqrt(n / (n - 1))
    wide = bessel * student.ppf((1 + LEVEL) / 2, freedom or n - 1)
    ends = shift + np.array([-wide, wide])
    low, high = np.quantile(replicates, norm.cdf(shift + ends / np.maximum(1 - acceleration * ends, 0.05)))
    return float(min(low, value)), float(max(high, value))


def _bca_terms(value: float, replicates: np.ndarray, jackknife: np.ndarray) -> tuple[float, float]:
    """Median bias (as a normal quantile; a tie counts half) and acceleration."""
    below = (replicates < value).sum() + (replicates == value).sum() / 2
    shift = norm.ppf((below + 0.5) / (len(replicates) + 1))
    spread = np.nanmean(jackknife) - jackknife[~np.isnan(jackknife)] if not np.isnan(jackknife).all() else np.zeros(1)
    power = (spread**2).sum() ** 1.5
    return float(shift), float((spread**3).sum() / (6 * power)) if power > 1e-300 else 0.0


def _p_value(difference: Estimate, variance: float, freedom: float) -> float | None:
    """Two-sided p of no difference, by Student's t."""
    if difference.low is None or difference.value is None:
        return None
    if variance < 1e-24:
        return 1.0 if abs(difference.value) < 1e-12 else 0.0
    return float(2 * student.sf(abs(difference.value) / np.sqrt(variance), freedom))


# ---- DeLong ---------------------------------------------------------------------------------------------------------


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


# ---- many comparisons -----------------------------------------------------------------------------------------------


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted p values that hold the family-wise error rate (Holm 1979); None stays None and is not counted."""
    known = sorted((p, position) for position, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, position) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[position] = highest
    return adjusted


def score(table: Predictions, metrics: Sequence[Metric], bootstrap: Bootstrap) -> dict[str, Estimate]:
    """Every metric of a table, by name, each with its 95 % interval over people and seeds; empty for no rows."""
    return {metric.name: bootstrap.estimate(table, metric) for metric in metrics} if len(table) else {}
