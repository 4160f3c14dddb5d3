"""Few-shot curves, and how many labelled scans a head start is worth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from headstart.benchmark.plan import SCRATCH
from headstart.benchmark_report.collect import Key, Study
from headstart.evaluation.few_shot import Worth, worth
from headstart.evaluation.gains import only
from headstart.evaluation.statistics import Estimate, Sampled


@dataclass(frozen=True)
class Point:
    """A score from so many labelled people."""

    n_train: int
    score: Estimate


@dataclass(frozen=True)
class Curve:
    """Scores of one start by training size."""

    task: str
    backbone: str
    upstream: str
    partition: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Saved:
    """What a start at one training size is worth in scans of scratch."""

    key: Key
    partition: str
    worth: Worth


def curves(study: Study) -> list[Curve]:
    """A curve for every start in every partition; scratch among them."""
    rows = dict.fromkeys((key.task, key.backbone, key.upstream) for key in study.keys)
    return [curve for task, backbone, upstream in rows for partition in study.bootstraps
            if (curve := _curve(study, task, backbone, upstream, partition)).points]


def _curve(study: Study, task: str, backbone: str, upstream: str, partition: str) -> Curve:
    keys = [key for size in study.sizes(task) if (key := Key(task, backbone, upstream, size)) in study.tables]
    points = [Point(study.n_train(key), study.score(study.tables[key][partition], partition, study.metric(task)))
              for key in keys if partition in study.tables[key]]
    return Curve(task, backbone, upstream, partition, tuple(point for point in points if point.score.value is not None))


def scans_saved(study: Study) -> list[Saved]:
    """For every start at the smallest training size: the scans that scratch needs to do as well."""
    return [Saved(key, partition, found) for key in study.starts if key.size == study.sizes(key.task)[0]
            for partition in study.tables[key] if (found := _worth(study, key, partition)) is not None]


def _worth(study: Study, key: Key, partition: str) -> Worth | None:
    """By the seeds that the start and every point of scratch's curve have."""
    scratch = [other for size in study.sizes(key.task)
               if partition in study.tables.get(other := key._replace(upstream=SCRATCH, size=size), {})]
    seeds = set.intersection(*(set(study.tables[one][partition].seeds) for one in (*scratch, key)))
    if not seeds or len(scratch) < 2:
        return None
    start, *curve = _sampled(study, [key, *scratch], partition, seeds)
    return worth(study.bootstraps[partition], curve, [study.n_train(one) for one in scratch], start,
                 study.n_train(key), study.metric(key.task))


def _sampled(study: Study, keys: list[Key], partition: str, seeds: set[int]) -> Iterator[Sampled]:
    for key in keys:
        table = only(study.tables[key][partition], sorted(seeds))
        yield study.bootstraps[partition].sample(table, study.metric(key.task))

