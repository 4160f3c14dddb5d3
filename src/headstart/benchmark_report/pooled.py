"""Everyone tested outside, pooled over tasks that leave out different sites of the same cohort.

Each person is predicted by the model of the task that never saw the person's site, so nobody counts twice and every
gain is one of transfer. Outputs of two models share no scale: orders are compared within a site, and a site is only
ever read by one model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from headstart.benchmark.plan import SCRATCH, PlannedTask, TrainSize
from headstart.benchmark_report.collect import Key, Study, floor_title
from headstart.benchmark_report.comparisons import gain_unit, verdict
from headstart.evaluation.gains import Gain, Pair, gain, only
from headstart.evaluation.metrics import METRICS, WITHIN_SITE, Metric
from headstart.evaluation.predictions import Predictions
from headstart.evaluation.statistics import Estimate, holm

PART = "outside"


@dataclass(frozen=True)
class Pool:
    """Tasks of one kind on the same sites, each of which leaves out others."""

    name: str
    tasks: tuple[PlannedTask, ...]
    size: TrainSize

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """In the target's unit where there is one, and within sites."""
        within = WITHIN_SITE[self.tasks[0].kind]
        return (METRICS["mae"], within) if within.kind == "regression" else (within,)


@dataclass(frozen=True)
class PooledGain:
    """A row against scratch, or against a floor; better is positive.

    Attributes:
        other: ``scratch``, or the floor's title.
        by_site: the gain at each site by itself, where it is defined there.
        overlaps: words on tested scans that the start may have seen.
        p_holm: adjusted over all pooled comparisons with scratch, or over all with floors.
    """

    pool: Pool
    backbone: str
    upstream: str
    other: str
    metric: Metric
    score: Estimate
    other_score: Estimate
    gain: Gain
    by_site: dict[str, Estimate]
    overlaps: tuple[str, ...]
    p_holm: float | None = None

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``cannot be told``."""
        return verdict(self.gain, self.p_holm)

    @property
    def unit(self) -> str:
        return gain_unit(self.metric, self.pool.tasks[0].unit)

    @property
    def same_sign(self) -> bool:
        """Whether the gain has one sign at every site."""
        return len({np.sign(one.value) for one in self.by_site.values() if one.value is not None}) == 1


def pools(study: Study) -> list[Pool]:
    """Every set of at least two tasks that leave out different sites of one cohort, at each size all of them have."""
    alike: dict[object, list[PlannedTask]] = defaultdict(list)
    for task in study.tasks:
        alike[task.task, frozenset(task.sites), str(task.simulate)].append(task)
    return [Pool(tasks[0].task, tuple(tasks), size) for tasks in alike.values() if _disjoint(tasks)
            for size in study.sizes(tasks[0].name) if all(size in study.sizes(task.name) for task in tasks)]


def _disjoint(tasks: Sequence[PlannedTask]) -> bool:
    """Whether each task leaves out sites, and none leaves out another's."""
    left_out = [site for task in tasks for site in task.outside_sites]
    return len(tasks) > 1 and all(task.outside_sites for task in tasks) and len(set(left_out)) == len(left_out)


def pooled_gains(study: Study) -> list[PooledGain]:
    """Every row against scratch and against every floor, in the order of the plan."""
    found = [one for pool in pools(study) for one in _of_pool(study, pool)]
    for against_scratch in (True, False):
        places = [place for place, one in enumerate(found) if (one.other == SCRATCH) == against_scratch]
        for place, p in zip(places, holm([found[place].gain.p for place in places]), strict=True):
            found[place] = replace(found[place], p_holm=p)
    return found


def _of_pool(study: Study, pool: Pool) -> Iterator[PooledGain]:
    floors = {floor_title(name): table for name in dict.fromkeys(name for name, _ in study.floors[pool.tasks[0].name])
              if (table := _pooled([study.floors[task.name].get((name, pool.size), {}) for task in pool.tasks]))}
    rows = {(row.backbone, row.upstream): table for row in study.benchmark.plan.rows
            if (table := _pooled([study.tables.get(Key(task.name, row.backbone, row.upstream, pool.size), {})
                                  for task in pool.tasks]))}
    for (backbone, upstream), table in rows.items():
        scratch = {SCRATCH: rows.get((backbone, SCRATCH))} if upstream != SCRATCH else {}
        for other, compared in {**scratch, **floors}.items():
            if compared is not None and (pair := Pair.of(table, compared)) is not None:
                yield from (_compare(study, pool, backbone, upstream, other, metric, pair) for metric in pool.metrics)


def _pooled(parts: Sequence[dict[str, Predictions]]) -> Predictions | None:
    """The outside tables of all tasks as one, with the seeds that all have; None where a task has none yet."""
    if not all(PART in part for part in parts):
        return None
    seeds = sorted(set.intersection(*(set(part[PART].seeds) for part in parts)))
    return Predictions.concatenate([only(part[PART], seeds) for part in parts]).sorted() if seeds else None


def _compare(study: Study, pool: Pool, backbone: str, upstream: str, other: str, metric: Metric,
             pair: Pair) -> PooledGain:
    keys = [Key(task.name, backbone, upstream, pool.size) for task in pool.tasks]
    score, other_score = (study.score(table, PART, metric) for table in (pair.start, pair.other))
    return PooledGain(pool, backbone, upstream, other, metric, score, other_score,
                      gain(study.bootstraps[PART], pair, metric), _by_site(study, pair, metric),
                      tuple(dict.fromkeys(word for key in keys for word in study.overlaps(key))))


def _by_site(study: Study, pair: Pair, metric: Metric) -> dict[str, Estimate]:
    """Sites without a defined score are left out."""
    sites = sorted(set(pair.start.site))
    found = {site: gain(study.bootstraps[PART], Pair(*(table.select(table.site == site) for table in
                                                       (pair.start, pair.other))), metric).absolute for site in sites}
    return {site: one for site, one in found.items() if one.value is not None}
