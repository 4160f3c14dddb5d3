"""What a saved model will know of its own errors, from the cells that held somebody out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from headstart.backbones.model import BrainModel
from headstart.brains.splits import REFIT, Cell, Split
from headstart.calibration.familiarity import Familiarity
from headstart.calibration.uncertainty import Calibration, classification_calibration, regression_calibration
from headstart.experiment.cells import Outcome
from headstart.experiment.data import Data
from headstart.training import encode

Outcomes = Mapping[tuple[int, str], Outcome]


def calibration(data: Data, split: Split, outcomes: Outcomes) -> Calibration:
    """Intervals or a temperature for the first seed's refit, which is the model that is saved."""
    folds, refit = _folds(split, outcomes), split.cell(split.seeds[0], REFIT)
    truth, predicted, names = _held_out(data, folds, outcomes)
    if data.task.kind == "classification":
        validation = _joined([(data.targets[cell.validation], np.array(_outcome(cell, outcomes)["validation"]))
                              for cell in folds if len(cell.validation)])
        return classification_calibration(validation, (truth, predicted))
    outside = None
    if len(refit.test) and (refit.seed, REFIT) in outcomes:
        kept = _one_scan_each(data, refit.test)
        outside = np.abs(data.targets[refit.test] - np.array(_outcome(refit, outcomes)["test"])[:, 0])[kept]
    return regression_calibration(truth, predicted[:, 0], names, outside)


def familiarity(model: BrainModel, data: Data, split: Split, outcomes: Outcomes) -> Familiarity:
    """The features of the training scans, and distances of held-out people from those of their fold's training."""
    distances = [np.array(_outcome(cell, outcomes).get("distances", ()))[_one_scan_each(data, cell.test)]
                 for cell in _folds(split, outcomes) if _outcome(cell, outcomes).get("distances")]
    features = encode(model, data, split.cell(split.seeds[0], REFIT).train)
    return Familiarity.of(features, np.concatenate(distances) if distances else None)


def _folds(split: Split, outcomes: Outcomes) -> list[Cell]:
    """The first seed's cross-validation."""
    return [cell for cell in split.cells if cell.seed == split.seeds[0] and cell.fold.isdigit()
            and (cell.seed, cell.fold) in outcomes]


def _outcome(cell: Cell, outcomes: Outcomes) -> Outcome:
    return outcomes[cell.seed, cell.fold]


def _held_out(data: Data, folds: list[Cell], outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Truth (n,), output (n, k) and fold of one scan of every held-out person."""
    kept = {cell.fold: _one_scan_each(data, cell.test) for cell in folds}
    truth, output = _joined([(data.targets[cell.test][kept[cell.fold]],
                              np.array(_outcome(cell, outcomes)["test"])[kept[cell.fold]]) for cell in folds])
    return truth, output, [fold for fold, indices in kept.items() for _ in indices]


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    if not parts:
        return np.empty(0), np.empty((0, 1))
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _one_scan_each(data: Data, indices: np.ndarray) -> np.ndarray:
    """Positions in ``indices`` of every person's first scan: people are exchangeable, the scans of one are not."""
    subjects = [data.scans[i].subject for i in indices]
    return np.array(sorted({subject: position for position, subject in reversed(list(enumerate(subjects)))}.values()),
                    np.int64)
