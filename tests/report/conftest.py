"""Results of simulated cohorts for the report's tests: everything is scored, nothing is written in by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from headstart.brains.cohort import Scan
from headstart.evaluation.floors import FloorInputs, all_floors
from headstart.evaluation.predictions import Predictions
from headstart.evaluation.results import Result, TaskRecord, build_result
from headstart.evaluation.statistics import Bootstrap

SITES = (("Aachen", 60), ("Basel", 48), ("Cork", 36))  # the last is held out
SEEDS, FOLDS, VOXELS = (0, 1, 2), 5, 400
HOSTILE = "<script>alert(1)</script>"


@dataclass(frozen=True)
class Fold:
    seed: int
    fold: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    outside: bool


@dataclass(frozen=True)
class Simulated:
    result: Result
    predictions: Predictions


def simulated_scans(random: np.random.Generator) -> list[Scan]:
    """People of 20 to 80 at three sites; one site's name tries to break out of the page."""
    sites = [name for name, count in SITES for _ in range(count)]
    return [Scan("sim", f"sub-{i:03d}", "", Path("none"), site if site != "Basel" else f"Basel {HOSTILE}",
                 age_years=round(float(random.uniform(20, 80)), 1), sex="FM"[int(random.integers(2))],
                 subject=f"sim/sub-{i:03d}", simulated=True) for i, site in enumerate(sites)]


def folds(scans: list[Scan]) -> list[Fold]:
    outside = np.array([i for i, scan in enumerate(scans) if scan.site == "Cork"])
    inside = np.setdiff1d(np.arange(len(scans)), outside)
    cells = []
    for seed in SEEDS:
        order = np.random.default_rng(seed).permutation(inside)
        for k in range(FOLDS):
            rest = np.setdiff1d(order, order[k::FOLDS])
            cells.append(Fold(seed, str(k), rest[::5], np.setdiff1d(rest, rest[::5]), order[k::FOLDS], False))
        cells.append(Fold(seed, "refit", order, order[:0], outside, True))
    return cells


def history(random: np.random.Generator) -> dict:
    decay = np.exp(-np.arange(30) / 8)
    epochs = [{"train_loss": float(0.15 + d + random.normal(0, 0.02)), "validation_loss": float(
        0.4 + 0.8 * d + 0.004 * i + random.normal(0, 0.03)), "learning_rate": 1e-3, "seconds": 0.8}
        for i, d in enumerate(decay)]
    best = int(np.argmin([epoch["validation_loss"] for epoch in epochs]))
    return {"epochs": epochs, "best_epoch": best, "scans_per_second": 65.0}


def simulate(task: TaskRecord) -> Simulated:
    """A model that has learned something, and all floors, on a simulated cohort."""
    random = np.random.default_rng(7)
    scans = simulated_scans(random)
    age = np.array([scan.age_years for scan in scans])
    logit = random.normal(0, 1.6, len(scans)) + (age - 50) / 20
    target = age if task.kind == "regression" else np.digitize(logit, np.linspace(-1, 1, len(task.classes) + 1)[1:-1])
    signal = (target - target.mean()) / target.std()
    rows = (0.5 + 0.05 * signal[:, None] * random.normal(size=VOXELS) + random.normal(0, 0.4, (len(scans), VOXELS)))
    rows[:, :40] *= random.random((len(scans), 40)) < 0.7
    cells = folds(scans)
    model = Predictions.concatenate([_predict(task, scans, target, cell, random) for cell in cells])
    voxels = rows.astype(np.float16) if len(task.classes) < 3 else None
    inputs = FloorInputs(scans, target.astype(float), task.column, task.classes, voxels)
    result = build_result(
        task=task, scans=scans, predictions=model, floors=all_floors(inputs, cells), simulated=True,
        bootstrap=Bootstrap(replicates=500), experiment={"backbone": "vit-mini", "upstream": "synthetic-mri"},
        contract={"volume": "4mm", "space": "MNI152NLin2009aSym", "registration": "affine"},
        environment={"headstart": "0.1.0", "packages": {"numpy": np.__version__}},
        receipt={"source": "synthetic-mri", "copied": {"blocks.0.attn.qkv.weight": "blocks.0.attn.qkv.weight"},
                 "adapted": {"pos_embed": ["interpolate_positions"]}, "initialised": ["head.weight", "head.bias"],
                 "dropped": {"decoder.weight": "the decoder is not used"}, "parameters": [10, 12]},
        training=[{"seed": cell.seed, "fold": cell.fold, "history": history(random)} for cell in cells[:6]],
        notes=["2 scans left out: no value in column 'age'", f"a note with {HOSTILE}"])
    return Simulated(result, model)


def _predict(task: TaskRecord, scans: list[Scan], target: np.ndarray, cell: Fold,
             random: np.random.Generator) -> Predictions:
    truth = target[cell.test].astype(float)
    if task.kind == "regression":
        output = truth.mean() + 0.75 * (truth - truth.mean()) + random.normal(3 * cell.outside, 5, len(truth))
    else:
        right = np.eye(len(task.classes))[truth.astype(int)]
        score = 1.3 * right + random.normal(0, 0.9, right.shape)
        output = np.exp(score) / np.exp(score).sum(1, keepdims=True)
    return Predictions.of([scans[i] for i in cell.test], seed=cell.seed, truth=truth, output=output,
                          partition="outside" if cell.outside else "inside", classes=task.classes)


TASKS = {
    "regression": TaskRecord(name="brain-age", kind="regression", column="age", unit="years"),
    "binary": TaskRecord(name="ad", kind="classification", column="diagnosis", classes=("CN", "AD")),
    "several": TaskRecord(name="stage", kind="classification", column="stage", classes=("none", "mild", "severe")),
}


@pytest.fixture(scope="session")
def simulated() -> Callable[[str], Simulated]:
    """``simulated("regression" | "binary" | "several")``: a scored result and its predictions, made once."""
    made: dict[str, Simulated] = {}

    def make(kind: str) -> Simulated:
        if kind not in made:
            made[kind] = simulate(TASKS[kind])
        return made[kind]

    return make
