"""Intervals and tests that respect how the data came about: scans belong to subjects, and models meet the same ones.

The unit of resampling is the subject: all sessions and seeds of a person enter a replicate together. A comparison also
reckons with other seeds, crossed with subjects, since another seed would have given another model. So few values as
there are seeds are not resampled: they enter by their variance and Student's t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student

from headstart.errors import HeadstartError
from headstart.evaluation.delong import delong_tables
from headstart.evaluation.metrics import Metric, why_undefined
from headstart.evaluation.predictions import Predictions

REPLICATES = 2000
LEVEL = 0.95
FEWEST_SUBJECTS = 3  # fewer have no interval
SMALLEST_P = 1e-12
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
        """Difference a − b in the mean over seeds, over subjects (bootstrap) and seeds (``crossed``).

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
        """Mean over seeds of a difference, its interval over subjects and seeds, and the p value of zero.

        The interval leaves out zero where p is below 0.05, and only there.

        Args:
            apart: by seed.
            subjects: how many were resampled.
            reason: in words, should there be no value.
        """
        value, crossed = float(apart.values.mean()), Crossed.of(apart, subjects)
        if (refused := _refused(value, apart.replicates.mean(1), subjects, reason)) is not None:
            return refused, None
        half = crossed.reach(LEVEL)
        return Estimate(value, value - half, value + half, subjects), crossed.p_value(value)

    def score(self, sampled: Sampled, subjects: int, metric: Metric, reason: str = "") -> Estimate:
        """Mean over seeds of a score, with an interval over subjects and seeds that keeps to the metric's range.

        Over subjects it is the BCa interval, which a skewed score needs; each side is then weighed with Student's for
        the seeds as in ``Crossed``.
        """
        mean = Sampled(*(part.mean(-1) for part in (sampled.values, sampled.replicates, sampled.jackknife)))
        found, crossed = _estimate(mean, subjects, reason), Crossed.of(sampled, subjects)
        if found.value is None or found.low is None or found.high is None or not crossed.of_subjects > 0:
            return found
        low, high = (crossed.weighed(abs(end - found.value) / np.sqrt(crossed.of_subjects), LEVEL)
                     for end in (found.low, found.high))
        lowest, highest = metric.limits
        return Estimate(found.value, max(found.value - low, lowest), min(found.value + high, highest), subjects)

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
        """Weights of the seeds (B, K), each row summing to 1; some are negative.

        Draws of so few values scatter too little: they are spread to what Student's t asks of them.
        """
        even = 1 / seeds
        if seeds == 1:
            return np.ones((self.replicates, 1))
        drawn = self._generator(seeds, 1).multinomial(seeds, np.full(seeds, even), self.replicates) / seeds
        normal = norm.ppf((1 + LEVEL) / 2)
        spread = student.ppf((1 + LEVEL) / 2, seeds - 1) / normal * np.sqrt(seeds / (seeds - 1))
        return even + (drawn - even) * spread

    def _generator(self, size: int, purpose: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence([self.seed, purpose, size]))


@dataclass(frozen=True)
class Crossed:
    """Variance of a mean over crossed subjects and seeds, in its two parts.

    That over subjects (bootstrap, with the seeds as they are), and that over seeds (from their values). Their
    interaction is in both, so that tests are conservative where seeds only add noise; resampling both at once would
    count it three times (Owen 2007). Each part is met with Student's t of its own degrees of freedom, weighed by its
    share (Cochran and Cox 1950): one t with Satterthwaite's degrees of freedom, which few seeds estimate badly, errs in
    up to 8 % of simulated nulls with three seeds, and this in no more than 5.3 % (``tests/evaluation``).
    """

    of_subjects: float
    of_seeds: float
    subjects: int
    seeds: int

    @classmethod
    def of(cls, apart: Sampled, subjects: int) -> Crossed:
        """Of anything sampled by seed."""
        seeds, few = len(apart.values), max(subjects - 1, 1)
        replicates = apart.replicates[~np.isnan(apart.replicates).any(1)]
        of_subjects = float(replicates.mean(1).var()) * subjects / few if len(replicates) > 1 else float("nan")
        return cls(of_subjects, float(np.var(apart.values, ddof=1)) / seeds if seeds > 1 else 0.0, subjects, seeds)

    @property
    def variance(self) -> float:
        return self.of_subjects + self.of_seeds

    def weighed(self, of_subjects: float, level: float) -> float:
        """How far an interval reaches: ``of_subjects`` standard errors for the subjects, Student's for the seeds."""
        if not self.variance > 0:
            return 0.0
        of_seeds = float(student.ppf((1 + level) / 2, self.seeds - 1)) if self.seeds > 1 else 0.0
        both = of_subjects * self.of_subjects + of_seeds * self.of_seeds
        return both / float(np.sqrt(self.variance))

    def reach(self, level: float) -> float:
        """Half the width of the symmetric interval of this level."""
        return self.weighed(float(student.ppf((1 + level) / 2, max(self.subjects - 1, 1))), level)

    def p_value(self, value: float) -> float:
        """Two-sided p of a mean of zero: the level of the interval that just reaches it."""
        if self.variance < 1e-24:
            return 1.0 if abs(value) < 1e-12 else 0.0
        if self.reach(1 - SMALLEST_P) <= abs(value):
            return SMALLEST_P
        return float(brentq(lambda p: self.reach(1 - p) - abs(value), SMALLEST_P, 1.0, xtol=1e-12))


def _refused(value: float, replicates: np.ndarray, subjects: int, reason: str) -> Estimate | None:
    """The estimate without an interval, where there can be none; else None."""
    if np.isnan(value):
        return Estimate(None, None, None, subjects, reason)
    defined = np.count_nonzero(~np.isnan(replicates))
    if subjects < FEWEST_SUBJECTS or defined < MOST_UNDEFINED * len(replicates):
        return Estimate(value, None, None, subjects, "too few subjects for an interval")
    return None


def _estimate(mean: Sampled, subjects: int, reason: str) -> Estimate:
    value = float(mean.values)
    if (refused := _refused(value, mean.replicates, subjects, reason)) is not None:
        return refused
    low, high = bca_interval(value, mean.replicates[~np.isnan(mean.replicates)], mean.jackknife, subjects)
    return Estimate(value, low, high, subjects)


def bca_interval(value: float, replicates: np.ndarray, jackknife: np.ndarray, n: int) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval (Efron 1987), widened for small n (Hesterberg 2015, §4.1.4).

    Args:
        value: the statistic on the data.
        replicates: (B,) on resamples.
        jackknife: (n,) without each subject; NaN is left out.
        n: subjects.
    """
    shift, acceleration = _bca_terms(value, replicates, jackknife)
    wide = np.sqrt(n / (n - 1)) * student.ppf((1 + LEVEL) / 2, n - 1)
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
