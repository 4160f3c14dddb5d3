"""A benchmark's predictions, put together by row: what every comparison, curve and claim is computed from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from headstart.benchmark import Benchmark, CellResult
from headstart.benchmark.plan import SCRATCH, PlannedTask, TrainSize
from headstart.brains.cohort import ScanKey
from headstart.evaluation.floors import FLOORS
from headstart.evaluation.metrics import METRICS, PRIMARY, Metric
from headstart.evaluation.predictions import PARTITIONS, Predictions
from headstart.evaluation.statistics import Bootstrap, Estimate
from headstart.upstreams.catalogue import CATALOGUE

CONTROL = "control"
PROCEDURAL = "procedural"  # rendered clips and pictures are no film and no photograph: they fill no such row
DOMAINS = {"natural-images": "natural images", "video": "video", PROCEDURAL: "procedural",
           "synthetic-mri": "synthetic MRI", "real-mri": "real MRI", CONTROL: "control", SCRATCH: "scratch",
           "other": "other"}
# What a start from a user's own folder is, by what its name says; the first that is found counts.
WORDS = (("control", CONTROL), ("shuffled", CONTROL), (PROCEDURAL, PROCEDURAL), ("video", "video"),
         ("kinetics", "video"), ("clips", "video"), ("ldm", "synthetic-mri"), ("synth", "synthetic-mri"),
         ("simulated", "synthetic-mri"), ("mri", "real-mri"), ("brain", "real-mri"), ("image", "natural-images"))


class Key(NamedTuple):
    """A row of the benchmark: a start in a backbone, on a task, from so many labelled people."""

    task: str
    backbone: str
    upstream: str
    size: TrainSize

    @property
    def scratch(self) -> Key:
        return self._replace(upstream=SCRATCH)


@dataclass(frozen=True)
class Study:
    """All that the report is computed from.

    Attributes:
        benchmark: plan and cells.
        bootstraps: by partition, of other seeds: other people are drawn independently.
        cells: finished cells by row.
        tables: predictions by row and partition, sorted; partitions without anybody are missing.
        floors: of every task, by floor, training size and partition.
    """

    benchmark: Benchmark
    bootstraps: dict[str, Bootstrap]
    cells: dict[Key, list[CellResult]]
    tables: dict[Key, dict[str, Predictions]]
    floors: dict[str, dict[tuple[str, TrainSize], dict[str, Predictions]]]
    _scores: dict[tuple, Estimate] = field(default_factory=dict, repr=False, compare=False)
    _floors: dict[tuple, tuple[str, Estimate] | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, benchmark: Benchmark, replicates: int) -> Study:
        """Read every finished cell's predictions."""
        cells: dict[Key, list[CellResult]] = defaultdict(list)
        for result in benchmark.done:
            cell = result.cell
            cells[Key(cell.task, cell.backbone, cell.upstream, cell.train_size)].append(result)
        tables = {key: by_partition(Predictions.concatenate([result.predictions for result in found]))
                  for key, found in cells.items()}
        floors = {task.name: {name: by_partition(table) for name, table in benchmark.floors(task.name).items()}
                  for task in benchmark.plan.tasks}
        bootstraps = {partition: Bootstrap(replicates, seed) for seed, partition in enumerate(PARTITIONS)}
        return cls(benchmark, bootstraps, dict(cells), tables, floors)

    @property
    def tasks(self) -> tuple[PlannedTask, ...]:
        return self.benchmark.plan.tasks

    def task(self, key: Key) -> PlannedTask:
        return self.benchmark.plan.task(key.task)

    def metric(self, task: str) -> Metric:
        """The primary score of a task."""
        return METRICS[PRIMARY[self.benchmark.plan.task(task).kind]]

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """Rows with results, in the order of the plan."""
        plan = self.benchmark.plan
        return tuple(key for task in plan.tasks for size in self.sizes(task.name) for row in plan.rows
                     if (key := Key(task.name, row.backbone, row.upstream, size)) in self.tables)

    @cached_property
    def starts(self) -> tuple[Key, ...]:
        """Rows that scratch of the same backbone and size can be compared with."""
        return tuple(key for key in self.keys if key.upstream != SCRATCH and key.scratch in self.tables)

    def sizes(self, task: str) -> tuple[TrainSize, ...]:
        """Training sizes, ascending, ``full`` last."""
        return tuple(sorted(self.benchmark.plan.sizes(self.benchmark.plan.task(task)),
                            key=lambda size: np.inf if size == "full" else size))

    def largest(self, task: str) -> TrainSize:
        return self.sizes(task)[-1]

    def main_keys(self, keys: Sequence[Key]) -> list[Key]:
        """Those of each task's largest training size."""
        return [key for key in keys if key.size == self.largest(key.task)]

    def n_train(self, key: Key) -> int:
        """Labelled people that a row learned from, the mean over its seeds."""
        return round(float(np.mean([result.record.n_train for result in self.cells[key]])))

    def score(self, table: Predictions, partition: str, metric: Metric) -> Estimate:
        """Mean over seeds with an interval over people and seeds."""
        name = (id(table), metric.name)
        if name not in self._scores:
            bootstrap = self.bootstraps[partition]
            sampled = bootstrap.sample(table, metric)
            self._scores[name] = bootstrap.score(sampled, table.num_subjects, metric, "undefined for these people")
        return self._scores[name]

    def best_floor(self, key: Key, partition: str, among: frozenset[ScanKey] | None = None
                   ) -> tuple[str, Estimate] | None:
        """Title and score of the floor that does best on the people that a row is tested on.

        Args:
            among: these scans only.
        """
        name = key.task, key.size, partition, among
        if name not in self._floors:
            metric = self.metric(key.task)
            found = [(floor_title(floor), self.score(_among(tables[partition], among), partition, metric))
                     for (floor, size), tables in self.floors[key.task].items()
                     if size == key.size and partition in tables]
            sign = 1 if metric.better == "higher" else -1
            self._floors[name] = max((one for one in found if one[1].value is not None), default=None,
                                     key=lambda one: sign * (one[1].value or 0.0))
        return self._floors[name]

    def overlaps(self, key: Key) -> tuple[str, ...]:
        """Words on tested scans that the start may have seen."""
        return tuple(dict.fromkeys(word for result in self.cells.get(key, ()) for word in result.record.overlaps))


def _among(table: Predictions, scans: frozenset[ScanKey] | None) -> Predictions:
    return table if scans is None else table.select(np.array([key in scans for key in table.keys], bool))


def by_partition(table: Predictions) -> dict[str, Predictions]:
    """Sorted rows, inside and outside; a partition without anybody is missing."""
    parts = {partition: table.part(partition).sorted() for partition in PARTITIONS}
    return {partition: part for partition, part in parts.items() if len(part)}


def domain_of(upstream: str) -> str:
    """What a start was trained on, by the catalogue or by its name; a key of ``DOMAINS``."""
    if upstream in (SCRATCH, CONTROL):
        return upstream
    known = None if upstream.startswith(PROCEDURAL) else CATALOGUE.get(upstream)
    if known is not None and known.domain is not None:
        return known.domain
    return next((domain for word, domain in WORDS if word in upstream.lower()), "other")


def family_of(backbone: str) -> str:
    """``ViT`` or ``CNN``."""
    return "ViT" if backbone.startswith(("vit", "swin")) else "CNN"


def is_head_start(upstream: str) -> bool:
    """Whether it was trained on something that could help: neither scratch nor the control."""
    return domain_of(upstream) not in (SCRATCH, CONTROL)


def floor_title(name: str) -> str:
    return FLOORS[name].title if name in FLOORS else name
