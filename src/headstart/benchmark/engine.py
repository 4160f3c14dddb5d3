"""A benchmark on this machine: persistent workers that run many cells each, and may be killed at any time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from headstart.benchmark.cells import run_cell
from headstart.benchmark.floors import ensure_floors
from headstart.benchmark.plan import Cell, Plan, read_plan
from headstart.benchmark.results import FLOORS, TASKS, CellRecord, cell_folder, read, write_record
from headstart.benchmark.shared import ensure_store
from headstart.benchmark.status import live
from headstart.brains.workers import WorkerDied, run_each
from headstart.errors import HeadstartError, Stopped
from headstart.files import one_writer
from headstart.processes import stop_signals

COORDINATOR = "coordinator"
ATTEMPTS = 3  # a cell whose process is killed so often is a failure: it may want more memory than there is


class Work(NamedTuple):
    """The floors of a task, or a cell by its digest; small, because it travels to other processes."""

    folder: Path
    kind: str
    name: str


@contextmanager
def coordinating(plan: Plan, folder: Path) -> Iterator[None]:
    """Hold the benchmark in ``folder``: one process gives out its cells.

    Raises:
        BusyError: another one does.
        HeadstartError: the folder holds another benchmark.
    """
    # Not the folder itself: taking hold of one clears away half-written files, and cells are being written elsewhere.
    with one_writer(folder / COORDINATOR), stop_signals():
        plan.claim(folder)
        yield


def run_here(plan: Plan, folder: Path, jobs: int) -> None:
    """Do every cell that has not ended, in ``jobs`` processes; the same call goes on where another stopped.

    Raises:
        Stopped: a stop signal came; running cells have saved what they had.
        HeadstartError: data are missing, or the disk is full.
    """
    with coordinating(plan, folder):
        for task in plan.tasks:
            ensure_store(folder, plan, task, jobs)
        with live(folder) as tell:
            _work_off(plan, folder, jobs, tell)


def _work_off(plan: Plan, folder: Path, jobs: int, tell: Callable[[], None]) -> None:
    """Until nothing remains: what was cut off in one round is done in the next."""
    attempts: Counter[Work] = Counter()
    while todo := remaining(plan, folder):
        with closing(run_each(do, todo, jobs)) as answers:  # whatever happens here, the processes may save and end
            for work, answer in answers:
                attempts[work] += 1
                _settle(plan, work, answer, attempts[work])
                tell()


def remaining(plan: Plan, folder: Path) -> list[Work]:
    """Floors and cells that are not there, in the order in which they are done."""
    found = read(folder)
    hopeful = {cell.task for cell in (*found.missing, *(result.cell for result in found.done))}
    floors = [Work(folder, "floors", task.name) for task in plan.tasks
              if task.name in hopeful and not (folder / TASKS / task.name / FLOORS).exists()]
    return floors + [Work(folder, "cell", cell.digest) for cell in found.missing]


def do(work: Work) -> None:
    """In a worker: one piece of work, unless it is done."""
    plan = _plan(work.folder)
    if work.kind == "floors":
        _floors(work, plan)
    else:
        run_cell(work.folder, plan, plan.cell(work.name))


def _floors(work: Work, plan: Plan) -> None:
    """The first to open a task's scans: where they cannot be used, its cells fail of it, and other tasks go on."""
    try:
        ensure_floors(work.folder, plan, plan.task(work.name))
    except Stopped:
        raise
    except HeadstartError as error:
        cells = [cell for cell in read(work.folder).missing if cell.task == work.name]
        if not cells:
            raise HeadstartError(f"task '{work.name}': {error.problem}", path=error.path, fix=error.fix) from error
        for cell in cells:
            give_up(work.folder, cell, f"its floors cannot be made: {error}")


@lru_cache(maxsize=1)
def _plan(folder: Path) -> Plan:
    return read_plan(folder)


def _settle(plan: Plan, work: Work, answer: object, attempts: int) -> None:
    """Work that was cut off is done again, but not for ever; what cannot even be recorded ends the benchmark."""
    cut_off = isinstance(answer, WorkerDied | Stopped)
    if isinstance(answer, BaseException) and (not cut_off or (attempts >= ATTEMPTS and work.kind == "floors")):
        raise answer
    if cut_off and attempts >= ATTEMPTS:
        give_up(work.folder, plan.cell(work.name), f"its process was killed {attempts} times ({answer})")


def give_up(folder: Path, cell: Cell, error: str, log: str | None = None) -> None:
    """Record that ``cell`` failed, for a reason that it could not record itself."""
    write_record(cell_folder(folder, cell.digest), CellRecord(
        **cell.model_dump(exclude={"digest"}), state="failed", error=error, seconds=0.0, n_train=0,
        learning_rate=None, receipt=None, log=log))
