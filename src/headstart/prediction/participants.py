"""The participant level of the BIDS App: every scan of a data set, in several processes, each on its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from headstart.brains.bids import read_bids
from headstart.brains.cohort import Cohort, Scan
from headstart.brains.progress import progress_bar
from headstart.brains.workers import WorkerDied, run_each
from headstart.errors import HeadstartError
from headstart.prediction.derivatives import Record, claim, collect, place_of
from headstart.prediction.finished import FinishedModel, open_model
from headstart.prediction.outputs import predict_into, write_record
from headstart.prediction.words import VERDICTS
from headstart.processes import stop_signals
from headstart.tasks import Task


@dataclass(frozen=True)
class Order:
    """What is to be done with every scan.

    Attributes:
        model: folder of a finished model.
        out: where the derivatives go.
        explain: kind of map to write as well.
    """

    model: Path
    out: Path
    explain: str | None = None


@dataclass(frozen=True)
class Summary:
    """What became of the scans of this call; ``failed`` gives the reason by key, ``notes`` what was odd."""

    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()
    failed: dict[str, str] = field(default_factory=dict)

    def count(self, verdict: str) -> int:
        return sum(record["verdict"] == verdict for record in self.records)

    def __str__(self) -> str:
        counts = ", ".join(f"{self.count(name)} {word}" for name, word in VERDICTS.items())
        return f"{len(self.records)} scans: {counts}"


def predict_participants(bids: Path, out: Path, model: FinishedModel, *, labels: Sequence[str] = (),
                         sessions: Sequence[str] = (), explain: str | None = None, jobs: int = 1,
                         progress: bool = True) -> Summary:
    """Predict every T1w scan of a BIDS data set; one that fails is recorded with its reason, the others go on.

    Args:
        bids: the data set; nothing in it is written.
        out: folder for the derivatives; several calls, also at once, may share it for one model.
        labels: only these participants, with or without ``sub-``; all by default.
        sessions: only these, with or without ``ses-``; all by default.
        explain: ``gradient``, ``occlusion`` or ``attention``: write such maps too.
        jobs: processes, each with one thread.

    Raises:
        HeadstartError: the data set or ``out`` cannot be used.
        Stopped: a stop signal came; the same call goes on.
    """
    cohort = select(read_bids([bids]), labels, sessions)
    claim(out, bids, model)
    work = partial(_predict_one, order=Order(model.folder.resolve(), out, explain))
    records: list[Record] = []
    with stop_signals(), progress_bar("Predicting", len(cohort), progress) as advance, \
            contextlib.closing(_answers(work, cohort.scans, jobs)) as answers:
        for scan, answer in answers:
            records.append(answer if isinstance(answer, dict) else _unanswered(scan, answer, model, out))
            advance()
    collect(out, model.task)
    failed = {"/".join(filter(None, (record["participant_id"], record["session"]))): record["error"]
              for record in records if record["verdict"] in ("failed", "refused")}
    return Summary(tuple(records), cohort.notes, dict(sorted(failed.items())))


def _answers(work: Callable[[Scan], Record], scans: Sequence[Scan],
             jobs: int) -> Generator[tuple[Scan, Any], None, None]:
    """(scan, record or error) as they come; a single scan needs no process of its own."""
    if len(scans) != 1:
        yield from run_each(work, scans, jobs)
        return
    try:
        answer: Any = work(scans[0])
    except Exception as error:  # as run_each gives it back
        answer = error
    yield scans[0], answer


def select(cohort: Cohort, labels: Sequence[str], sessions: Sequence[str]) -> Cohort:
    """The scans of the participants and sessions asked for.

    Raises:
        HeadstartError: one asked for is not there; the message lists those that are.
    """
    wanted = {"participant_id": _prefixed(labels, "sub-"), "session": _prefixed(sessions, "ses-")}
    for attribute, names in wanted.items():
        known = {getattr(scan, attribute) for scan in cohort}
        if missing := sorted(names - known):
            some = ", ".join(sorted(filter(None, known))[:20]) or "none"
            raise HeadstartError(f"there is no scan of '{missing[0]}'", fix=f"There are: {some}.")
    return replace(cohort, scans=tuple(scan for scan in cohort if all(
        not names or getattr(scan, attribute) in names for attribute, names in wanted.items())))


def _prefixed(names: Sequence[str], prefix: str) -> set[str]:
    return {name if name.startswith(prefix) else prefix + name for name in names}


@lru_cache(maxsize=1)
def _model(folder: Path) -> FinishedModel:
    """In a worker: loaded once."""
    return open_model(folder)


def _predict_one(scan: Scan, order: Order) -> Record:
    """In a worker: everything that belongs to one scan is written here; little travels back."""
    model = _model(order.model)
    return predict_into(place_of(order.out, scan, model.task), model, scan.path, _about(scan, model), order.explain)


def _unanswered(scan: Scan, error: Any, model: FinishedModel, out: Path) -> Record:
    """The record of a scan whose worker died, or met an error that nobody foresaw."""
    text = str(error) if isinstance(error, HeadstartError) else f"unexpected {type(error).__name__}: {error}"
    if not isinstance(error, WorkerDied) and isinstance(error, HeadstartError):
        raise error  # the output folder or the model, not the scan
    return write_record(place_of(out, scan, model.task), _about(scan, model),
                        {"verdict": "failed", "error": f"{scan.path}: {text}"})


def _about(scan: Scan, model: FinishedModel) -> dict[str, Any]:
    """Which scan a record is of, and by what model."""
    return {
        "participant_id": scan.participant_id, "session": scan.session, "Sources": [_source(scan)],
        "task": model.task.name, "model": {"name": model.name, "weights": model.sha256},
        "contract": model.config.contract.model_dump(), "observed": _observed(scan, model.task)}


def _observed(scan: Scan, task: Task) -> float | str | None:
    """What the data set's own table says; None where it is absent or only known to lie above a limit."""
    (label,) = task.labels([scan])
    if np.isnan(label):
        return None
    return task.classes[int(label)] if task.kind == "classification" else float(label)


def _source(scan: Scan) -> str:
    """The scan as a BIDS URI."""
    return f"bids:raw:{'/'.join(filter(None, (scan.participant_id, scan.session)))}/anat/{scan.path.name}"
