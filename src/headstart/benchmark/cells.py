"""One cell: train on some people from one start, predict the inside test and the outside sites, leave a record."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.backbones.model import BrainModel
from headstart.benchmark.plan import Cell, Plan
from headstart.benchmark.results import PREDICTIONS, CellRecord, cell_folder, read_record, write_record
from headstart.benchmark.saliency import FILE as SALIENCY
from headstart.benchmark.saliency import keep_saliency, wanted
from headstart.benchmark.shared import TaskData, features_once, open_task, waiting_writer
from headstart.brains.splits import Cell as Fold
from headstart.errors import BusyError, HeadstartError, Stopped
from headstart.evaluation.predictions import Predictions
from headstart.experiment.cells import Outcome, Trainer, seed_of
from headstart.experiment.value import Experiment
from headstart.files import digest_json, write_json
from headstart.training import TrainingPlan, encode
from headstart.training.heads import HeadOnly, fit_head
from headstart.upstreams import overlaps, seen_by

STARTED, TRAINING = "started.json", "training"
BUSY_SECONDS = 2.0  # a look at who is running holds a cell for an instant


def run_cell(folder: Path, plan: Plan, cell: Cell) -> CellRecord | None:
    """Do ``cell`` unless it has ended, or another process is at it; a failure is a record like any other.

    Returns:
        How it ended; None where another process is at it.

    Raises:
        Stopped: a stop signal came; the state of training is saved, and the same call goes on.
        HeadstartError: nothing can be written to its folder.
    """
    place = cell_folder(folder, cell.digest)
    try:
        with waiting_writer(place, BUSY_SECONDS):
            return read_record(place) or _do(folder, plan, cell)
    except BusyError:
        return None


def _do(folder: Path, plan: Plan, cell: Cell) -> CellRecord:
    place, began = cell_folder(folder, cell.digest), time.monotonic()
    spent = _note_start(place)
    try:
        ended = _Attempt(folder, plan, cell).carry_out()
    except Stopped:
        _note_time(place, spent + time.monotonic() - began)
        raise
    except Exception as error:  # whatever it is, the other cells go on
        ended = {"state": "failed", "error": _plain(error), "n_train": 0, "learning_rate": None, "receipt": None}
    record = CellRecord(**cell.model_dump(exclude={"digest"}), seconds=round(spent + time.monotonic() - began, 3),
                        log=os.environ.get("HEADSTART_LOG"), **ended)
    write_record(place, record)
    shutil.rmtree(place / TRAINING, ignore_errors=True)
    return record


def _plain(error: Exception) -> str:
    return str(error) if isinstance(error, HeadstartError) else f"{type(error).__name__}: {error}"


def _note_start(place: Path) -> float:
    """Who is at it, for ``status``; returns the seconds that stopped attempts have spent."""
    spent = 0.0
    with suppress(OSError, ValueError, KeyError):
        spent = float(json.loads((place / STARTED).read_text())["seconds"])
    write_json(place / STARTED, {"host": socket.gethostname(), "process": os.getpid(), "seconds": spent,
                                 "job": os.environ.get("SLURM_JOB_ID"), "log": os.environ.get("HEADSTART_LOG")})
    return spent


def _note_time(place: Path, seconds: float) -> None:
    with suppress(OSError, ValueError):
        write_json(place / STARTED, json.loads((place / STARTED).read_text()) | {"seconds": seconds})


@dataclass(frozen=True)
class _Attempt:
    """A cell with its data."""

    folder: Path
    plan: Plan
    cell: Cell

    def carry_out(self) -> dict[str, Any]:
        """Train, predict and write the predictions; the fields of the record."""
        fold = self._fold
        outcome = (self._on_frozen_features(fold) if self.cell.mode in ("probe", "knn")
                   else self._trainer.cross_validate(fold, look=self._look))
        self._predictions(fold, outcome["test"]).write_tsv(cell_folder(self.folder, self.cell.digest) / PREDICTIONS)
        return {"state": "done", "n_train": self._task.training(self.cell.train_size, self.cell.seed)[2],
                "learning_rate": outcome["learning_rate"], "receipt": outcome["receipt"], "overlaps": self._overlaps()}

    def _look(self, model: BrainModel) -> None:
        """Keep what the trained model looks at, where the report will show it."""
        if wanted(self.plan, self.cell):
            keep_saliency(cell_folder(self.folder, self.cell.digest) / SALIENCY, model, self._task)

    @cached_property
    def _task(self) -> TaskData:
        return open_task(self.folder, self.plan, self.plan.task(self.cell.task))

    @cached_property
    def _fold(self) -> Fold:
        """Training and validation of the cell's size and seed; tested on the people inside, then on those outside.

        Initial weights follow from seed and fold: the same for every size.
        """
        inside, outside = self._task.cells(self.cell.train_size, self.cell.seed)
        return replace(inside, test=np.concatenate([inside.test, outside.test]))

    @cached_property
    def _trainer(self) -> Trainer:
        row, settings, data = self.plan.row(self.cell), self.plan.training, self._task.data
        experiment = Experiment(
            task=data.task, contract=data.store.contract.digest, scans=data.digest, split=self.cell.digest,
            backbone=row.backbone, upstream=row.source, weights=row.weights, accept_licence=self.plan.accept_licence,
            learning_rates=settings.learning_rates,
            plan=TrainingPlan(mode=row.mode, max_epochs=settings.epochs, patience=settings.patience,
                              batch_size=settings.batch_size, layer_decay=settings.layer_decay,
                              precision=settings.precision))
        return Trainer(experiment, data, cell_folder(self.folder, self.cell.digest) / TRAINING)

    def _on_frozen_features(self, fold: Fold) -> Outcome:
        """What ``Trainer.cross_validate`` finds, with features that cells of other seeds and sizes share."""
        trainer, data, seed = self._trainer, self._task.data, seed_of(fold)
        model, receipt = trainer.start(seed)
        drawn = seed if receipt["initialised"] else None  # whole starts are the same for every seed
        key = digest_json([self.plan.row(self.cell).weights, self.cell.backbone, drawn, data.digest])
        found = features_once(self.folder, key, lambda: encode(model, data, np.arange(len(data.rows))))
        features = torch.from_numpy(found)
        targets = data.targets.astype(np.float32)[:, None]
        parts = [(features[part], targets[part]) for part in (fold.train, fold.validation)]
        history = fit_head(model, trainer.objective(), parts, trainer.experiment.plan)
        with torch.no_grad():
            outputs = HeadOnly(model, model.head)(features[fold.test])
        self._look(model)
        return {"learning_rate": None, "receipt": receipt, "history": history.to_json(),
                "test": (outputs.softmax(1) if data.task.kind == "classification" else outputs).tolist()}

    def _predictions(self, fold: Fold, output: list[list[float]]) -> Predictions:
        data, held_out = self._task.data, set(self._task.outside.tolist())
        return Predictions.of(
            [data.scans[i] for i in fold.test], seed=fold.seed, truth=data.targets[fold.test],
            partition=np.array(["outside" if i in held_out else "inside" for i in fold.test.tolist()], dtype=object),
            output=np.array(output) if data.task.classes else np.array(output)[:, 0], classes=data.task.classes)

    def _overlaps(self) -> tuple[str, ...]:
        """Words on tested data sets and sites that the upstream has seen, or may have."""
        row, data = self.plan.row(self.cell), self._task.data
        seen = seen_by(row.source, row.backbone, data.store.spec)
        names = {scan.dataset for scan in data.scans} | (set() if seen is None else {scan.site for scan in data.scans})
        return tuple(str(overlap) for overlap in overlaps(seen, names))
