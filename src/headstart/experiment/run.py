"""From a store and a request to a result: split, train every cell, predict, score beside the floors, write it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from headstart.backbones import build_model
from headstart.brains.progress import progress_bar
from headstart.brains.splits import REFIT, Cell, Split
from headstart.brains.store import Store
from headstart.environment import environment
from headstart.errors import HeadstartError
from headstart.evaluation.floors import FloorInputs, floor_predictions, possible_floors
from headstart.evaluation.predictions import Predictions, read_tsv
from headstart.evaluation.results import Result, build_result, read_result, write_result
from headstart.execution import Workers
from headstart.experiment.calibrate import calibration, familiarity
from headstart.experiment.card import model_card
from headstart.experiment.cells import Outcome, Trainer
from headstart.experiment.data import Data, select, split_of
from headstart.experiment.value import Experiment, Request
from headstart.files import one_writer
from headstart.modelfolder import ModelConfig, save_model
from headstart.report import render
from headstart.training import TrainingPlan
from headstart.upstreams import default_start, domain_of, identity, licence_of, overlaps, seen_by

RESULT, PREDICTIONS, SPLIT, REPORT, CELLS, MODEL = (
    "result.json", "predictions.tsv", "split.tsv", "report.html", "cells", "model")
KEPT_WEIGHTS = "refit.pt"


@dataclass(frozen=True)
class Job:
    """What a worker needs to train cells of an experiment; small, because it travels to other processes."""

    request: Request
    store: Path
    out: Path


def run(request: Request, store: Path, out: Path, *, jobs: int) -> Result:
    """Carry out ``request`` on ``store`` into ``out``; finished parts are not done again.

    Args:
        request: what to predict, how.
        store: a prepared store.
        out: gets ``result.json``, ``split.tsv``, ``predictions.tsv``, ``model/`` and ``report.html``.
        jobs: processes, each with one thread.

    Raises:
        HeadstartError: the data do not allow it; the message says what is missing.
        Stopped: a stop signal came; the same call goes on.
    """
    job = Job(request, store.resolve(), out)
    with one_writer(out):
        data, split, experiment = opened(job)
        experiment.claim(out)
        if (out / REPORT).exists():  # written last: all of it is there
            return read_result(out / RESULT)
        split.write_tsv(out / SPLIT)
        with Workers(jobs) as workers:
            outcomes = _train(job, split, workers)
            floors = _floors(job, data, workers)
        return _conclude(data, split, experiment, outcomes, floors, out)


@lru_cache(maxsize=2)
def opened(job: Job) -> tuple[Data, Split, Experiment]:
    """The scans, the split and the value of an experiment: the same in every process."""
    request = job.request
    data = select(Store.open(job.store), request)
    split = split_of(request, data.scans, data.targets, data.task)
    upstream = request.upstream or default_start(request.backbone, data.store.spec.name)
    plan = TrainingPlan(max_epochs=request.epochs, mode=request.mode, layer_decay=request.layer_decay)
    return data, split, Experiment(
        task=data.task, contract=data.store.contract.digest, scans=data.digest, split=split.digest,
        backbone=request.backbone, upstream=upstream, accept_licence=request.accept_licence,
        weights=identity(upstream, request.backbone, data.store.spec),
        learning_rates=request.learning_rates if plan.descends else request.learning_rates[:1], plan=plan)


def _train(job: Job, split: Split, workers: Workers) -> dict[tuple[int, str], Outcome]:
    """All outcomes by (seed, fold): the folds first, then the refits, which follow from them."""
    folds = [cell for cell in split.cells if cell.fold != REFIT]
    refits = [cell for cell in split.cells if cell.fold == REFIT and (len(cell.test) or cell.seed == split.seeds[0])]
    outcomes: dict[tuple[int, str], Outcome] = {}
    with progress_bar("Training", len(folds) + len(refits), True) as advance:
        for cells, work in ((folds, train_fold), (refits, train_refit)):
            for outcome in workers.run(work, [(job, cell.seed, cell.fold) for cell in cells]):
                outcomes[outcome["seed"], outcome["fold"]] = outcome
                advance()
    return outcomes


def _floors(job: Job, data: Data, workers: Workers) -> dict[str, Predictions]:
    """Every floor on the same cells, by name, in the order of their declaration."""
    names = possible_floors(_floor_inputs(data))
    found = dict(workers.run(predict_floor, [(job, name) for name in names]))
    return {name: found[name] for name in names}


def predict_floor(job: Job, name: str) -> tuple[str, Predictions]:
    """In a worker: one floor on every cell that has a test set."""
    data, split, _ = opened(job)
    return name, floor_predictions(name, _floor_inputs(data), split.cells)


@lru_cache(maxsize=1)
def _floor_inputs(data: Data) -> FloorInputs:
    return FloorInputs(data.scans, data.targets, data.task.column, data.task.classes, data.store.rows(data.rows))


def train_fold(job: Job, seed: int, fold: str) -> Outcome:
    """In a worker: one fold of one seed."""
    data, split, experiment = opened(job)
    saved = seed == split.seeds[0]  # the model that is kept is this seed's: its familiarity is measured on these folds
    return Trainer(experiment, data, job.out / CELLS).cross_validate(split.cell(seed, fold), distances=saved)


def train_refit(job: Job, seed: int, fold: str) -> Outcome:
    """In a worker: a seed's refit; the first seed's weights are kept for the model that is saved."""
    data, split, experiment = opened(job)
    trainer = Trainer(experiment, data, job.out / CELLS)
    done = [trainer.cross_validate(cell) for cell in split.cells if cell.seed == seed and cell.fold.isdigit()]
    keep = job.out / CELLS / KEPT_WEIGHTS if seed == split.seeds[0] else None
    return trainer.refit(split.cell(seed, fold), done, keep)


def _conclude(data: Data, split: Split, experiment: Experiment, outcomes: dict[tuple[int, str], Outcome],
              floors: dict[str, Predictions], out: Path) -> Result:
    """Predictions, floors, result, model and report."""
    cells = [cell for cell in split.cells if (cell.seed, cell.fold) in outcomes and len(cell.test)]
    predictions = _collect(data, [(cell, cell.test, outcomes[cell.seed, cell.fold]["test"]) for cell in cells])
    result = build_result(
        task=data.task, experiment=experiment.model_dump(mode="json") | {"digest": experiment.digest},
        scans=data.scans, predictions=predictions, floors=floors,
        validation=_validation(data, split, outcomes), contract=data.store.contract.model_dump(mode="json"),
        environment=environment(), receipt=next(iter(outcomes.values()))["receipt"],
        training=[outcomes[key] for key in sorted(outcomes)],
        notes=(*data.notes, *_notes(experiment), *calibration(data, split, outcomes).sentences(data.task.unit)),
        warnings=_overlaps(data, experiment), simulated=any(scan.simulated for scan in data.scans))
    predictions.write_tsv(out / PREDICTIONS)
    if experiment.plan.mode != "knn":
        _save(data, split, experiment, outcomes, result, out)
    write_result(out / RESULT, result)
    _render(out)
    return result


def _notes(experiment: Experiment) -> tuple[str, ...]:
    if experiment.plan.mode != "knn":
        return ()
    return ("No model was saved: one that looks up its nearest scans would hold features of every person it learned "
            "from. Use --mode probe for a model to keep.",)


def _overlaps(data: Data, experiment: Experiment) -> tuple[str, ...]:
    """Loud words on every data set or site that the upstream has seen, or may have."""
    seen, names = _seen(data, experiment), {scan.dataset for scan in data.scans}
    sites = set() if seen is None else {scan.site for scan in data.scans}
    return tuple(f"Overlap: {overlap}." for overlap in overlaps(seen, names | sites))


def _seen(data: Data, experiment: Experiment) -> tuple[str, ...] | None:
    """What the upstream was trained on; None: not known."""
    return seen_by(experiment.upstream, experiment.backbone, data.store.spec)


def _collect(data: Data, parts: Sequence[tuple[Cell, np.ndarray, list]]) -> Predictions:
    """One table from (cell, scans, outputs)."""
    scans, classes = data.scans, data.task.classes
    return Predictions.concatenate([
        Predictions.of([scans[i] for i in indices], seed=cell.seed, classes=classes, truth=data.targets[indices],
                       partition="outside" if cell.outside else "inside",
                       output=np.array(output) if classes else np.array(output)[:, 0])
        for cell, indices, output in parts])


def _validation(data: Data, split: Split, outcomes: dict[tuple[int, str], Outcome]) -> Predictions:
    """What the models said of their validation scans: all that a correction may be fitted on."""
    return _collect(data, [(cell, cell.validation, outcomes[cell.seed, cell.fold]["validation"])
                           for cell in split.cells if (cell.seed, cell.fold) in outcomes and len(cell.validation)])


def _save(data: Data, split: Split, experiment: Experiment, outcomes: dict[tuple[int, str], Outcome], result: Result,
          out: Path) -> None:
    """The first seed's refit as a model folder."""
    refit = split.cell(split.seeds[0], REFIT)
    trained_on, before = [data.scans[i] for i in refit.train], _seen(data, experiment)
    model = build_model(experiment.backbone, data.store.spec, data.task.num_outputs)
    model.load_state_dict(torch.load(out / CELLS / KEPT_WEIGHTS, weights_only=True))
    config = ModelConfig(
        backbone=experiment.backbone, num_outputs=data.task.num_outputs, task=data.task,
        contract=data.store.contract, upstream=experiment.upstream,
        seen=None if before is None else sorted({scan.dataset for scan in trained_on} | set(before)),
        domain=domain_of(experiment.upstream, experiment.backbone, data.store.spec),
        licence=licence_of(experiment.upstream, experiment.backbone, data.store.spec),
        simulated=any(scan.simulated for scan in trained_on), made_with=environment(),
        scores={part: scores for part, scores in result.model_dump(mode="json", include={"inside", "outside"}).items()
                if scores},
        calibration=calibration(data, split, outcomes))
    subjects = len({scan.subject for scan in trained_on})
    save_model(out / MODEL, model, config, model_card(config, result, len(trained_on), subjects),
               familiarity(model, data, split, outcomes))


def write_report(out: Path) -> Path:
    """``report.html`` from the files of a finished run.

    Raises:
        HeadstartError: ``out`` holds none.
    """
    if not (out / RESULT).is_file():
        raise HeadstartError("holds no finished run (no result.json)", path=out,
                             fix="Run finetune into it first; a run that was stopped goes on when started again. A "
                                 "pre-training has a report from its first steps on, when its samples are made.")
    with one_writer(out):
        return _render(out)


def _render(out: Path) -> Path:
    return render(read_result(out / RESULT), read_tsv(out / PREDICTIONS), out / REPORT)
