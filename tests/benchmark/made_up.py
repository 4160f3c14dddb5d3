"""A benchmark's folder with made-up predictions, written in milliseconds: for tests of what reads one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headstart.benchmark.plan import Cell, Plan, PlannedTask, Row, Training
from headstart.benchmark.results import (
    FLOORS,
    PREDICTIONS,
    TASKS,
    CellRecord,
    cell_folder,
    write_floors,
    write_record,
)
from headstart.brains.cohort import Scan
from headstart.evaluation.predictions import Predictions

AD = PlannedTask(name="ad", task="ad", kind="classification", column="diagnosis", classes=("CN", "AD"), positive="AD",
                 simulated=True, simulate={"cohort": "ad", "n": 90, "seed": 1}, inside_sites=("sim-a", "sim-b"),
                 outside_sites=("sim-c",), people_inside=60, people_outside=30)
AGE = PlannedTask(name="brain-age", task="brain-age", kind="regression", column="age", unit="years", simulated=True,
                  simulate={"cohort": "ageing", "n": 90, "seed": 2}, inside_sites=("sim-a", "sim-b"),
                  outside_sites=("sim-c",), people_inside=60, people_outside=30)
GAIN = {"scratch": 0.0, "control": 0.0, "synthetic-mri": 1.0}  # of the signal over the noise


def made_up_plan(sizes: tuple[int | str, ...] = (20, "full"), seeds: int = 3) -> Plan:
    """Two tasks, two backbones, scratch and two starts."""
    rows = tuple(Row(backbone=backbone, upstream=upstream, mode="full", weights=upstream)
                 for backbone in ("vit-mini", "cnn-small") for upstream in GAIN)
    return Plan(name="made-up", volume="4mm", tasks=(AD, AGE), rows=rows, train_sizes=sizes,
                seeds=tuple(range(seeds)), training=Training())


def write_made_up(folder: Path, plan: Plan | None = None, failed: int = 1) -> Path:
    """Every cell of ``plan`` with random predictions , better with the right start; the last ``failed`` have failed."""
    plan = plan or made_up_plan()
    plan.claim(folder)
    for number, cell in enumerate(plan.cells):
        _write_cell(folder, plan, cell, failed=number >= len(plan.cells) - failed)
    for task in plan.tasks:
        tables = {(floor, size): Predictions.concatenate([predicted(task, seed, 0.3, f"{floor}{size}{seed}")
                                                          for seed in plan.seeds])
                  for floor in ("constant", "voxels") for size in plan.sizes(task)}
        write_floors(folder / TASKS / task.name / FLOORS, tables)
    return folder


def _write_cell(folder: Path, plan: Plan, cell: Cell, *, failed: bool) -> None:
    path = cell_folder(folder, cell.digest)
    if not failed:
        table = predicted(plan.task(cell.task), cell.seed, 0.8 + GAIN[cell.upstream], cell.digest)
        table.write_tsv(path / PREDICTIONS)
    write_record(path, CellRecord(
        **cell.model_dump(exclude={"digest"}), state="failed" if failed else "done",
        error="training diverged: the loss is nan in epoch 3" if failed else None, seconds=4.2,
        n_train=45 if cell.train_size == "full" else int(cell.train_size), learning_rate=None if failed else 1e-3,
        receipt=None if failed else {"source": cell.upstream}))


def predicted(task: PlannedTask, seed: int, signal: float, noise: str) -> Predictions:
    """15 people inside, 30 outside; the same people for every seed."""
    scans = [Scan("simulated", f"sub-{i:03}", "", Path("none"), "sim-c" if i >= 15 else f"sim-{'ab'[i % 2]}",
                  simulated=True) for i in range(45)]
    random = np.random.default_rng([seed, *noise.encode()])
    truth = np.arange(45) % 2 if task.classes else np.random.default_rng(0).uniform(20, 80, 45)
    score = signal * (truth - truth.mean()) / truth.std() + random.standard_normal(45)
    positive = 1 / (1 + np.exp(-score))
    output = np.stack([1 - positive, positive], 1) if task.classes else 50 + 17.3 * signal * score / (signal**2 + 1)
    return Predictions.of(scans, seed=seed, partition=np.where(np.arange(45) < 15, "inside", "outside"),
                          truth=truth, output=output, classes=task.classes)
