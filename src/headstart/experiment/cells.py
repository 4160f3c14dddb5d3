"""The units of work: one fold (or the final refit) of one seed. Each is idempotent and resumes where it was killed."""

from __future__ import annotations

import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.backbones import build_model
from headstart.backbones.model import BrainModel
from headstart.brains.splits import Cell
from headstart.calibration.familiarity import Familiarity
from headstart.experiment.data import Data
from headstart.experiment.readout import fit_aimed
from headstart.experiment.value import Experiment
from headstart.files import read_json, write_json
from headstart.training import Classification, History, Objective, Regression, TrainingPlan, encode, predict
from headstart.training.checkpoint import save_tensors
from headstart.upstreams import load_into, readout_of
from headstart.upstreams.base import Readout

Outcome = dict[str, Any]  # a cell's JSON: choices, curve, outputs for validation and test scans


@dataclass(frozen=True)
class Trainer:
    """Trains cells of one experiment into ``folder``."""

    experiment: Experiment
    data: Data
    folder: Path

    def cross_validate(self, cell: Cell, *, distances: bool = False,
                       look: Callable[[BrainModel], None] = lambda model: None) -> Outcome:
        """Search the learning rate on the fold's validation part; the best model predicts the fold's test scans.

        Args:
            distances: also say how far the test scans' features are from those of the training scans.
            look: is shown the best model at the end, before the fold counts as done; it may do with it what it likes.
        """
        def work(scratch: Path) -> Outcome:
            tried = [(rate, *self._fit(cell, self._plan(rate), scratch / f"{rate:g}"))
                     for rate in self.experiment.learning_rates]
            rate, model, history, receipt = min(tried, key=lambda one: _best_loss(one[2]))
            search = [{"learning_rate": one[0], "validation_loss": _best_loss(one[2]),
                       "best_epoch": one[2].best_epoch} for one in tried]
            outcome = self._outcome(cell, model, history, rate=rate, search=search, receipt=receipt)
            outcome |= {"distances": self._distances(model, cell)} if distances else {}
            look(model)
            return outcome

        return self._once(cell, work)

    def refit(self, cell: Cell, folds: Sequence[Outcome], keep: Path | None = None) -> Outcome:
        """Train on every scan of the training sites, as long and as fast as the seed's folds found best.

        Args:
            folds: the outcomes of the same seed's cross-validation.
            keep: where to leave the weights, for the model that is saved.
        """
        rate, epochs = chosen(folds)

        def work(scratch: Path) -> Outcome:
            plan = self._plan(rate).model_copy(update={"stop_after": epochs})
            model, history, receipt = self._fit(cell, plan, scratch / "refit")
            if keep is not None:
                save_tensors(keep, model.state_dict())
            return self._outcome(cell, model, history, rate=rate, search=[], receipt=receipt)

        return self._once(cell, work)

    def _once(self, cell: Cell, work) -> Outcome:
        """Do ``work`` unless its outcome is on disk; its scratch folder goes when it is done."""
        path = self.folder / f"seed{cell.seed}-{_safe(cell.fold)}.json"
        scratch = path.with_suffix("")
        if not path.exists():
            write_json(path, work(scratch))
        shutil.rmtree(scratch, ignore_errors=True)
        return read_json(path)

    def _plan(self, rate: float) -> TrainingPlan:
        return self.experiment.plan.model_copy(update={"learning_rate": rate})

    def _fit(self, cell: Cell, plan: TrainingPlan, scratch: Path) -> tuple[BrainModel, History, dict[str, Any]]:
        seed = seed_of(cell)
        model, receipt = self.start(seed)
        history = fit_aimed(model, self._readout(), self.objective(), self.data, cell.train, cell.validation, plan,
                            seed=seed, folder=scratch, flip=True)
        return model, history, receipt

    def start(self, seed: int) -> tuple[BrainModel, dict[str, Any]]:
        """Initial weights: drawn from ``seed``, then whatever the upstream brings, with its receipt."""
        spec = self.data.store.spec
        model = build_model(self.experiment.backbone, spec, self.experiment.task.num_outputs, seed=seed)
        report = load_into(self.experiment.upstream, model.backbone, self.experiment.backbone, spec,
                           accept_licence=self.experiment.accept_licence)
        return model, report.to_json()

    def _readout(self) -> Readout | None:
        """How the upstream says what is asked, where it has learnt to."""
        experiment = self.experiment
        return readout_of(experiment.upstream, experiment.backbone, self.data.store.spec, experiment.task.column)

    def objective(self) -> Objective:
        """What the experiment's task minimises."""
        task = self.experiment.task
        return Regression() if task.kind == "regression" else Classification(len(task.classes))

    def _outcome(self, cell: Cell, model: BrainModel, history: History, *, rate: float, search: list[dict],
                 receipt: dict[str, Any]) -> Outcome:
        return {"seed": cell.seed, "fold": cell.fold, "learning_rate": rate, "search": search,
                "history": history.to_json(), "receipt": receipt,
                "validation": self._outputs(model, cell.validation), "test": self._outputs(model, cell.test)}

    def _distances(self, model: BrainModel, cell: Cell) -> list[float]:
        """How far the test scans' features are from the training scans', (n,): what a new person's are held against.

        Empty where one scan was trained on, which has no spread.
        """
        if not len(cell.test) or len(cell.train) < 2:
            return []
        trained, held_out = (encode(model, self.data, indices) for indices in (cell.train, cell.test))
        return Familiarity.of(trained).distance(held_out).tolist()

    def _outputs(self, model: BrainModel, indices: np.ndarray) -> list[list[float]]:
        """Predicted numbers (n, 1), or class probabilities (n, C)."""
        if not len(indices):
            return []
        outputs = torch.from_numpy(predict(model, self.data, indices))
        return (outputs.softmax(1) if self.experiment.task.kind == "classification" else outputs).tolist()


def seed_of(cell: Cell) -> int:
    """What a cell's weights and batches are drawn from: its seed and fold."""
    return int(np.random.SeedSequence([cell.seed, zlib.crc32(cell.fold.encode())]).generate_state(1)[0])


def chosen(folds: Sequence[Outcome]) -> tuple[float, int]:
    """The learning rate that most folds chose, and the median number of epochs that was best with it."""
    counts = Counter(fold["learning_rate"] for fold in folds)
    rate = max(counts, key=lambda rate: (counts[rate], -rate))
    epochs = [fold["history"]["best_epoch"] + 1 for fold in folds if fold["learning_rate"] == rate]
    return rate, int(np.median(epochs))


def _best_loss(history: History) -> float:
    return float(history.epochs[history.best_epoch].validation_loss or 0.0)


def _safe(fold: str) -> str:
    """A fold's name as a file name; sites are named by users."""
    return fold if fold.isalnum() else f"site-{zlib.crc32(fold.encode()):08x}"
