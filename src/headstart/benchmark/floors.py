"""The floors of a benchmark: simple predictors on the very people that the networks learn from and are tested on."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from headstart.benchmark.plan import Plan, PlannedTask, TrainSize
from headstart.benchmark.results import FLOORS, TASKS, write_floors
from headstart.benchmark.shared import TaskData, open_task, waiting_writer
from headstart.evaluation.floors import FloorInputs, floor_predictions, possible_floors
from headstart.evaluation.predictions import Predictions


def ensure_floors(folder: Path, plan: Plan, task: PlannedTask) -> Path:
    """``floors.tsv`` of a task, all floors, sizes and seeds; not made again if it is there."""
    path = folder / TASKS / task.name / FLOORS
    if not path.exists():
        with waiting_writer(path.parent):
            if not path.exists():
                write_floors(path, _all_floors(folder, plan, task))
    return path


def _all_floors(folder: Path, plan: Plan, task: PlannedTask) -> dict[tuple[str, TrainSize], Predictions]:
    opened = open_task(folder, plan, task)
    inputs = _inputs(opened)
    return {(name, size): Predictions.concatenate([_floor(name, inputs, opened, size, seed) for seed in plan.seeds])
            for name in possible_floors(inputs) for size in plan.sizes(task)}


def _floor(name: str, inputs: FloorInputs, opened: TaskData, size: TrainSize, seed: int) -> Predictions:
    """One floor from one training set. Each goes by itself: constants are shared within a call."""
    return floor_predictions(name, inputs, opened.cells(size, seed))


@lru_cache(maxsize=1)
def _inputs(opened: TaskData) -> FloorInputs:
    data = opened.data
    return FloorInputs(data.scans, data.targets, data.task.column, data.task.classes, data.store.rows(data.rows))
