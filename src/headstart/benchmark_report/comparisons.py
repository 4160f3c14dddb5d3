"""Every start against scratch: same backbone, same training people, same test people, same seeds."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

from headstart.benchmark_report.collect import Key, Study, is_head_start
from headstart.evaluation.gains import Gain, Pair, gain, mean_gain, same_seeds
from headstart.evaluation.metrics import Metric
from headstart.evaluation.results import FEWEST_SEEDS
from headstart.evaluation.statistics import LEVEL, Estimate, holm

ALPHA = round(1 - LEVEL, 3)


@dataclass(frozen=True)
class Comparison:
    """A start minus scratch, better is positive.

    Attributes:
        start, scratch: their scores.
        floor: title and score of the best floor on the same people.
        p_holm: of the gain, adjusted over all comparisons at the same training size.
        overlaps: words on tested scans that the start may have seen.
    """

    key: Key
    partition: str
    metric: Metric
    unit: str
    simulated: bool
    n_train: int
    start: Estimate
    scratch: Estimate
    floor: tuple[str, Estimate] | None
    gain: Gain
    p_holm: float | None
    overlaps: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` or ``cannot be told``."""
        return verdict(self.gain, self.p_holm)


def verdict(found: Gain, p_holm: float | None) -> str:
    """Adjusted for many comparisons, and never from fewer than three seeds."""
    if p_holm is None or p_holm >= ALPHA or found.seeds < FEWEST_SEEDS or not found.absolute.value:
        return "cannot be told"
    return "better" if found.absolute.value > 0 else "worse"


def gain_unit(metric: Metric, unit: str) -> str:
    """What an absolute gain is counted in: ``points`` (hundredths) or the target's unit."""
    return unit if metric.in_units else "points"


def compare_all(study: Study) -> list[Comparison]:
    """All comparisons, in the order of the plan; p adjusted after Holm within each training size."""
    found = [one for key in study.starts for partition in study.tables[key]
             if (one := _compare(study, key, partition)) is not None]
    families: dict[object, list[int]] = defaultdict(list)
    for place, one in enumerate(found):
        families["largest" if one.key.size == study.largest(one.key.task) else one.key.size].append(place)
    for places in families.values():
        for place, adjusted in zip(places, holm([found[place].gain.p for place in places]), strict=True):
            found[place] = replace(found[place], p_holm=adjusted)
    return found


def pair_of(study: Study, key: Key, partition: str) -> Pair | None:
    """A row and its scratch on the same people; None where one has no seed or nobody there."""
    start, scratch = study.tables[key], study.tables.get(key.scratch, {})
    return Pair.of(start[partition], scratch[partition]) if partition in start and partition in scratch else None


def _compare(study: Study, key: Key, partition: str) -> Comparison | None:
    pair = pair_of(study, key, partition)
    if pair is None:
        return None
    task, metric = study.task(key), study.metric(key.task)
    start, scratch = (study.score(table, partition, metric) for table in (pair.start, pair.other))
    return Comparison(key, partition, metric, task.unit, task.simulated, study.n_train(key), start, scratch,
                      study.best_floor(key, partition), gain(study.bootstraps[partition], pair, metric), None,
                      study.overlaps(key))


@dataclass(frozen=True)
class TaskGain:
    """The mean gain over all head starts of a task at its largest training size: nothing is picked out."""

    task: str
    partition: str
    unit: str
    gain: Gain
    starts: int


def task_gains(study: Study) -> list[TaskGain]:
    """One for every task and partition."""
    return [found for task in study.tasks for partition in study.bootstraps
            if (found := _task_gain(study, task.name, partition)) is not None]


def _task_gain(study: Study, task: str, partition: str) -> TaskGain | None:
    keys = [key for key in study.main_keys(study.starts) if key.task == task and is_head_start(key.upstream)]
    pairs = same_seeds([pair for key in keys if (pair := pair_of(study, key, partition)) is not None])
    if not pairs:
        return None
    metric = study.metric(task)
    found = mean_gain(study.bootstraps[partition], pairs, metric)
    return TaskGain(task, partition, gain_unit(metric, study.benchmark.plan.task(task).unit), found, len(pairs))
