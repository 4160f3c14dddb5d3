"""What a head start is worth: gains over scratch in points and in per cent, the gap to other sites, means over models.

A gain is positive where the start is better, whichever way its metric points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t as student

from headstart.errors import HeadstartError
from headstart.evaluation.delong import delong_tables
from headstart.evaluation.metrics import Metric
from headstart.evaluation.predictions import Predictions
from headstart.evaluation.results import FEWEST_SEEDS
from headstart.evaluation.statistics import LEVEL, Bootstrap, Estimate, Sampled

PERCENT = 100.0


@dataclass(frozen=True)
class Gain:
    """A start against another one on the same people and seeds.

    Attributes:
        absolute: in hundredths of the metric (points), or in the target's unit where the metric has one.
        relative: in per cent of the other's score.
        p: of no difference, for ``absolute``; ``p_delong``: of the AUROC of scores averaged over seeds.
        seeds: how many both sides have.
    """

    absolute: Estimate
    relative: Estimate
    p: float | None
    p_delong: float | None
    seeds: int


@dataclass(frozen=True)
class Pair:
    """Predictions of a start and of what it is compared with: the same scans and seeds, in the same order."""

    start: Predictions
    other: Predictions

    @classmethod
    def of(cls, start: Predictions, other: Predictions) -> Pair | None:
        """Their common seeds; None where they have none, or no scan.

        Raises:
            HeadstartError: they were tested on other scans.
        """
        seeds = sorted(set(start.seeds) & set(other.seeds))
        tables = [only(table, seeds) for table in (start, other)]
        if not seeds or not len(tables[0]):
            return None
        if not tables[0].same_rows(tables[1]):
            tables = [table.sorted() for table in tables]
        if not tables[0].same_rows(tables[1]):
            raise HeadstartError("a comparison needs the same scans and seeds on both sides",
                                 fix="Compare models that were run with the same split.")
        return cls(*tables)

    def with_seeds(self, seeds: Sequence[int]) -> Pair:
        """The same pair by fewer seeds."""
        return Pair(only(self.start, seeds), only(self.other, seeds))

    def sampled(self, bootstrap: Bootstrap, metric: Metric) -> tuple[Sampled, Sampled]:
        """The gain in points or units, and in per cent, by seed."""
        start, other = (bootstrap.sample(table, metric) for table in (self.start, self.other))
        better = start - other if metric.better == "higher" else other - start
        return better * scale_of(metric), better.relative_to(other) * PERCENT


def only(table: Predictions, seeds: Sequence[int]) -> Predictions:
    """The rows of these seeds; the table itself where it has no others, so that it need not be sampled again."""
    return table if set(table.seeds) == set(seeds) else table.select(np.isin(table.seed, seeds))


def scale_of(metric: Metric) -> float:
    """What a metric's value is multiplied by to be shown as a gain: points are hundredths."""
    return 1.0 if metric.in_units else PERCENT


def possible(found: Estimate, metric: Metric) -> Estimate:
    """The interval of a difference, cut where no two scores can differ by more."""
    if found.low is None or found.high is None:
        return found
    span = (metric.limits[1] - metric.limits[0]) * scale_of(metric)
    return replace(found, low=max(found.low, -span), high=min(found.high, span))


def gain(bootstrap: Bootstrap, pair: Pair, metric: Metric) -> Gain:
    """The gain of one start over what it is paired with, with its 95 % interval over people and seeds.

    Positive where the start is better, whichever way the metric points.
    """
    absolute, relative = pair.sampled(bootstrap, metric)
    people = pair.start.num_subjects
    value, p = bootstrap.crossed(absolute, people, "the score is undefined")
    binary = metric.name == "auroc" and len(pair.start.classes) == 2 and p is not None
    return Gain(possible(value, metric), bootstrap.crossed(relative, people, "the score is undefined")[0], p,
                delong_tables(pair.start, pair.other).p if binary else None, len(pair.start.seeds))


def mean_gain(bootstrap: Bootstrap, pairs: Sequence[Pair], metric: Metric) -> Gain:
    """The mean gain of several starts (or backbones) on the same people and seeds: nothing is picked out."""
    sampled = [pair.sampled(bootstrap, metric) for pair in pairs]
    people = pairs[0].start.num_subjects
    value, p = bootstrap.crossed(Sampled.mean([one[0] for one in sampled]), people, "a score is undefined")
    relative, _ = bootstrap.crossed(Sampled.mean([one[1] for one in sampled]), people, "a score is undefined")
    return Gain(possible(value, metric), relative, p, None, len(pairs[0].start.seeds))


def same_seeds(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with the seeds that all of them have; none where they have none in common.

    Pairs of fewer than three seeds are left out where others have three: a failed run must not cost the rest theirs.
    """
    pairs = [pair for pair in pairs if len(pair.start.seeds) >= FEWEST_SEEDS] or pairs
    seeds = set.intersection(*(set(pair.start.seeds) for pair in pairs)) if pairs else set()
    return [pair.with_seeds(sorted(seeds)) for pair in pairs] if seeds else []


def apart(inside: Sampled, outside: Sampled) -> Sampled:
    """Inside minus outside, on other people but by the same seeds; both must come from bootstraps of other seeds."""
    people = [inside.jackknife - outside.values, inside.values - outside.jackknife]
    return Sampled(inside.values - outside.values, inside.replicates - outside.replicates, np.concatenate(people))


def mean_over_tasks(estimates: Sequence[Estimate], *, same_people: bool) -> tuple[Estimate, float | None]:
    """The mean of estimates from several tasks, with its 95 % interval and p value of zero.

    Tasks of other people are independent; where people are shared the standard errors are added instead, which bounds
    the error whatever the correlation. Standard errors are those of the intervals; t has the fewest people less one.

    Returns:
        ``n`` is the number of people over all tasks, or of the largest task where they are shared.
    """
    known = [estimate for estimate in estimates if estimate.value is not None and estimate.low is not None]
    if len(known) < len(estimates) or not known:
        return Estimate(None, None, None, 0, "a task has no interval"), None
    counts = [estimate.n for estimate in known]
    wide = float(student.ppf((1 + LEVEL) / 2, max(min(counts) - 1, 1)))
    errors = np.array([(estimate.high - estimate.low) / 2 / wide for estimate in known])  # type: ignore[operator]
    error = float(errors.sum() if same_people else np.sqrt((errors**2).sum())) / len(known)
    value = float(np.mean([estimate.value for estimate in known]))
    p = float(2 * student.sf(abs(value) / error, max(min(counts) - 1, 1))) if error > 0 else float(value == 0)
    people = max(counts) if same_people else sum(counts)
    return Estimate(value, value - wide * error, value + wide * error, people), p
