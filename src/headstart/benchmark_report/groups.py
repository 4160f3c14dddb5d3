"""What lies behind a mean: the gap between inside and outside, sub-groups of people, calibration, brain-age bias."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.benchmark.plan import SCRATCH, PlannedTask
from headstart.benchmark.shared import ensure_store, store_ready
from headstart.benchmark_report.collect import Key, Study, floor_title
from headstart.benchmark_report.comparisons import pair_of
from headstart.brains.cohort import Scan, ScanKey
from headstart.brains.store import Store
from headstart.errors import HeadstartError
from headstart.evaluation.bias import BiasCorrected, correct_bias
from headstart.evaluation.cohort_table import SMALLEST_GROUP, age_band, in_order
from headstart.evaluation.gains import Gain, Pair, apart, gain, scale_of
from headstart.evaluation.metrics import METRICS
from headstart.evaluation.predictions import PARTITIONS, Predictions
from headstart.evaluation.statistics import Estimate

Scans = dict[ScanKey, Scan]


# --- inside minus outside


@dataclass(frozen=True)
class Gap:
    """How much a model loses at other sites, and how much less that is than what scratch loses.

    Attributes:
        loss: inside minus outside, in points or units; positive where outside is worse.
        narrowed: scratch's loss minus this one's, with the p value of zero; None for scratch itself and for floors.
    """

    key: Key
    loss: Estimate
    narrowed: Estimate | None
    p: float | None


def gaps(study: Study) -> list[Gap]:
    """At the largest training size of each task, where both partitions have people; floors after the rows."""
    rows = [_gap(study, key) for key in study.main_keys(study.keys) if _both(study.tables[key])]
    floors = [Gap(Key(task.name, "floor", floor_title(name), size), _loss(study, task.name, tables), None, None)
              for task in study.tasks for (name, size), tables in study.floors[task.name].items()
              if size == study.largest(task.name) and _both(tables)]
    return [*rows, *floors]


def _both(tables: dict[str, Predictions]) -> bool:
    return all(partition in tables for partition in PARTITIONS)


def _loss(study: Study, task: str, tables: dict[str, Predictions]) -> Estimate:
    metric = study.metric(task)
    sign = scale_of(metric) * (1 if metric.better == "higher" else -1)
    sampled = [study.bootstraps[part].sample(tables[part], metric) for part in PARTITIONS]
    inside = study.bootstraps[PARTITIONS[0]]
    return inside.crossed(apart(*sampled) * sign, _fewest(tables), "undefined")[0]


def _fewest(tables: dict[str, Predictions]) -> int:
    return min(table.num_subjects for table in tables.values())


def _gap(study: Study, key: Key) -> Gap:
    metric, loss = study.metric(key.task), _loss(study, key.task, study.tables[key])
    pairs = [pair_of(study, key, part) for part in PARTITIONS] if key.upstream != SCRATCH else [None]
    if any(pair is None for pair in pairs):
        return Gap(key, loss, None, None)
    gains = [pair.sampled(study.bootstraps[part], metric)[0]  # type: ignore[union-attr]
             for part, pair in zip(PARTITIONS, pairs, strict=True)]
    inside = study.bootstraps[PARTITIONS[0]]
    narrowed, p = inside.crossed(apart(gains[1], gains[0]), _fewest(study.tables[key]), "undefined")
    return Gap(key, loss, narrowed, p)


# --- sub-groups


@dataclass(frozen=True)
class GroupGain:
    """The gain among some people only; ``n`` is theirs, and so are both scores and the best floor."""

    key: Key
    partition: str
    grouping: str
    group: str
    scratch: Estimate
    score: Estimate
    floor: tuple[str, Estimate] | None
    gain: Gain


def scans_of(study: Study, task: PlannedTask) -> Scans:
    """Who was scanned, from the store of the task; empty where it is not there any more."""
    benchmark = study.benchmark
    try:
        if not store_ready(benchmark.folder, benchmark.plan, task):
            return {}
        store = Store.open(ensure_store(benchmark.folder, benchmark.plan, task, jobs=1))
    except HeadstartError:
        return {}
    return {stored.scan.key: stored.scan for stored in store.scans}


def group_gains(study: Study) -> list[GroupGain]:
    """By site, sex and age band, at the largest training size; groups of fewer than five people are left out."""
    known = {task.name: scans_of(study, task) for task in study.tasks}
    return [found for key in study.main_keys(study.starts) for partition in study.tables[key]
            for found in _group_gains(study, key, partition, known[key.task])]


def _group_gains(study: Study, key: Key, partition: str, scans: Scans) -> Iterator[GroupGain]:
    pair = pair_of(study, key, partition)
    if pair is None:
        return
    for grouping, column in _groupings(pair.start, study.task(key), scans):
        for group in sorted({name for name in column if name}, key=in_order):
            found = _one_group(study, key, partition, Pair(*(
                table.select(column == group) for table in (pair.start, pair.other))))
            if found is not None:
                yield GroupGain(key, partition, grouping, group, *found)


def _one_group(study: Study, key: Key, partition: str, pair: Pair
               ) -> tuple[Estimate, Estimate, tuple[str, Estimate] | None, Gain] | None:
    """None for few people, or people of one class only."""
    classification = study.task(key).kind == "classification"
    if pair.start.num_subjects < SMALLEST_GROUP or (classification and len(set(pair.start.truth)) < 2):
        return None
    metric, bootstrap = study.metric(key.task), study.bootstraps[partition]
    floor = study.best_floor(key, partition, frozenset(pair.start.keys))
    start, scratch = (study.score(table, partition, metric) for table in (pair.start, pair.other))
    return scratch, start, floor, gain(bootstrap, pair, metric)


def _groupings(table: Predictions, task: PlannedTask, scans: Scans) -> Iterator[tuple[str, np.ndarray]]:
    """(name, group of each row); a grouping that everyone shares, or the target itself, is none."""
    people = [scans.get(key) for key in table.keys]
    sexes = [scan.sex if scan and task.column != "sex" else None for scan in people]
    bands = [age_band(scan.age_years) if scan else None for scan in people]
    for name, column in (("site", table.site), ("sex", sexes), ("age", bands)):
        if len({group for group in column if group}) > 1:
            yield name, np.array(column, dtype=object)


# --- calibration, and brain age with its bias removed


@dataclass(frozen=True)
class Trust:
    """How far a row's outputs can be taken at their word: scores by (partition, metric), and bias-corrected ages."""

    key: Key
    scores: dict[tuple[str, str], Estimate]
    corrected: BiasCorrected | None


def trust(study: Study, metrics: Sequence[str] = ("brier", "ece", "mae", "r")) -> list[Trust]:
    """At the largest training size: calibration of probabilities; brain age uncorrected, then corrected."""
    return [_trust(study, key, metrics) for key in study.main_keys(study.keys)]


def _trust(study: Study, key: Key, names: Sequence[str]) -> Trust:
    tables, task = study.tables[key], study.task(key)
    scores = {(partition, name): study.score(table, partition, METRICS[name]) for partition, table in tables.items()
              for name in names if METRICS[name].kind == task.kind}
    corrected = (correct_bias(tables, tables["inside"], study.bootstraps["inside"])
                 if task.column == "age" and task.kind == "regression" and len(tables) == len(PARTITIONS) else None)
    return Trust(key, scores, corrected)


