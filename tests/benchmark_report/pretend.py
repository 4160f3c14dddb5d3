"""A benchmark's folder as a real one would look, with predictions drawn from a known truth: for tests of its report."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headstart.benchmark.plan import Cell, Plan, PlannedTask, Row, Training
from headstart.benchmark.results import FLOORS, PREDICTIONS, TASKS, CellRecord, cell_folder, write_floors, write_record
from headstart.benchmark.saliency import FILE as SALIENCY
from headstart.benchmark.saliency import wanted
from headstart.brains.cohort import Scan
from headstart.evaluation.predictions import Predictions

INSIDE, OUTSIDE = 60, 90
HOSTILE = "<script>alert(1)</script>"
# How much of the truth each start knows, beside what the number of labelled scans teaches.
KNOWS = {"scratch": 0.0, "control": 0.0, "procedural-images": 0.15, "procedural-video": 0.3, "synthetic-mri": 0.9}
DEFAULT = tuple(KNOWS)


def task(name: str, kind: str, *, simulated: bool = True) -> PlannedTask:
    classes = {"ad": ("CN", "AD"), "pd": ("CN", "PD")}.get(name, ())
    return PlannedTask(
        name=name, task=name, kind=kind, column="diagnosis" if classes else "age", classes=classes,
        positive=classes[-1] if classes else None, unit="" if classes else "years", simulated=simulated,
        simulate={"cohort": name, "n": 300, "seed": 1} if simulated else None, bids=() if simulated else ("somewhere",),
        inside_sites=("sim-a", "sim-b"), outside_sites=("sim-c",), people_inside=200, people_outside=OUTSIDE)


AD, PD, AGE = task("ad", "classification"), task("pd", "classification"), task("brain-age", "regression")


def plan(tasks: tuple[PlannedTask, ...] = (AD, PD, AGE), upstreams: tuple[str, ...] = DEFAULT,
         sizes: tuple[int | str, ...] = (25, 75, "full"), seeds: int = 3,
         backbones: tuple[str, ...] = ("vit-mini", "cnn-small")) -> Plan:
    rows = tuple(Row(backbone=backbone, upstream=upstream, mode="probe", weights=f"sha256 of {upstream}")
                 for backbone in backbones for upstream in upstreams)
    return Plan(name="pretend", volume="4mm", tasks=tasks, rows=rows, train_sizes=sizes, seeds=tuple(range(seeds)),
                training=Training(mode="probe"), notes=(f"a note with {HOSTILE}",))


def write_pretend(folder: Path, made: Plan | None = None, *, failed: int = 0, knows: dict[str, float] | None = None,
                  draw: int = 0, overlap: str = "") -> Path:
    """Every cell, the last ``failed`` of which have failed.

    Args:
        knows: by upstream; all that is not there knows nothing.
        draw: another benchmark of the same truth.
        overlap: the upstream that has seen the test's people.
    """
    made, knows = made or plan(), KNOWS if knows is None else knows
    made.claim(folder)
    for number, cell in enumerate(made.cells):
        _write_cell(folder, made, cell, knows.get(cell.upstream, 0.0), number >= len(made.cells) - failed, draw,
                    ("ds1: the upstream was trained on it (IXI)",) if cell.upstream == overlap else ())
    for one in made.tasks:
        write_floors(folder / TASKS / one.name / FLOORS, {
            (floor, size): Predictions.concatenate([predicted(one, seed, signal, [draw, seed, 77, number])
                                                    for seed in made.seeds])
            for number, (floor, signal) in enumerate({"constant": 0.0, "age_sex": 0.3, "voxels": 1.1}.items())
            for size in made.sizes(one)})
    return folder


def n_train(cell: Cell) -> int:
    return 133 if cell.train_size == "full" else int(cell.train_size)


def _write_cell(folder: Path, made: Plan, cell: Cell, knows: float, failed: bool, draw: int,
                overlaps: tuple[str, ...]) -> None:
    place, one = cell_folder(folder, cell.digest), made.task(cell.task)
    signal = 0.35 * np.log10(n_train(cell)) + knows
    if not failed:
        code = [draw, cell.seed, *cell.task.encode(), *cell.upstream.encode(), n_train(cell), len(cell.backbone)]
        predicted(one, cell.seed, signal, code, place=draw).write_tsv(place / PREDICTIONS)
    write_record(place, CellRecord(
        **cell.model_dump(exclude={"digest"}), state="failed" if failed else "done",
        error=f"training diverged {HOSTILE}" if failed else None, seconds=4.2, n_train=0 if failed else n_train(cell),
        learning_rate=None, overlaps=() if failed else overlaps,
        receipt=None if failed or cell.upstream == "scratch" else {
            "source": cell.upstream, "copied": {"blocks.0.attn.qkv.weight": "blocks.0.attn.qkv.weight"},
            "adapted": {"pos_embed": ["interpolate_positions"]}, "initialised": ["head.weight"], "dropped": {}}))


def predicted(one: PlannedTask, seed: int, signal: float, noise: list[int], place: int = 0) -> Predictions:
    """The same people for every seed and start of a task; a person's own noise is shared by all starts."""
    people = INSIDE + OUTSIDE
    scans = [Scan("simulated", f"sub-{i:03}", "", Path("none"), "sim-c" if i >= INSIDE else f"sim-{'ab'[i % 2]}",
                  simulated=True) for i in range(people)]
    fixed = np.random.default_rng([place, *one.name.encode()])
    truth = np.arange(people) // 2 % 2 if one.classes else fixed.uniform(20, 80, people)
    person = fixed.standard_normal(people)
    random = np.random.default_rng(noise)
    outside = np.arange(people) >= INSIDE
    size = signal * np.where(outside, 0.85, 1.0)
    score = 0.8 * size * (truth - truth.mean()) / truth.std() + 0.7 * person + 0.7 * random.standard_normal(people)
    positive = 1 / (1 + np.exp(-score))
    output = np.stack([1 - positive, positive], 1) if one.classes else 50 + 17.3 * size * score / (size**2 + 1)
    return Predictions.of(scans, seed=seed, partition=np.where(outside, "outside", "inside"), truth=truth,
                          output=output, classes=one.classes)


def write_saliency(folder: Path, made: Plan) -> None:
    """Two round brains, and a map that differs by row, in every cell that keeps one."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in (12, 14, 10)), indexing="ij"))
    brain = np.where((grid**2).sum(0) < 0.9, 0.5 + 0.3 * grid[0], 0)
    for cell in (cell for cell in made.cells if wanted(made, cell)):
        looks = np.where(brain, np.exp(-((grid - 0.1 * len(cell.upstream)) ** 2).sum(0)), 0)
        np.savez(cell_folder(folder, cell.digest) / SALIENCY, brains=np.stack([brain, brain[::-1]]).astype(np.float16),
                 maps=np.stack([looks, looks[::-1]]).astype(np.float16),
                 keys=np.array([("simulated", f"sub-{number:03}", "") for number in (INSIDE, INSIDE + 3)]))
