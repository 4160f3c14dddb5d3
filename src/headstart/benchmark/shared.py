"""What many cells share is made once: stores of scans, splits, features of frozen backbones. Locked, then reused."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from headstart.benchmark.plan import Plan, PlannedTask, TrainSize
from headstart.brains.cache import prepared
from headstart.brains.splits import REFIT, Cell, Split, make_split
from headstart.brains.store import Store
from headstart.brains.strata import Subject, order_by_strata, subjects_of, take_validation
from headstart.errors import BusyError, HeadstartError
from headstart.experiment.data import Data, select
from headstart.experiment.value import Request
from headstart.files import atomic_write, digest_json, one_writer, read_json, write_json
from headstart.simulation.cohort import write_store

STORES, FEATURES = "stores", "features"
INSIDE = "0"
VALIDATION_PARTS = 5
LOOK_SECONDS = 0.2


@contextmanager
def waiting_writer(folder: Path, patience_seconds: float = float("inf")) -> Iterator[None]:
    """``one_writer`` that waits for another process to finish.

    Raises:
        BusyError: it holds the folder for longer than ``patience_seconds``.
    """
    ends = time.monotonic() + patience_seconds
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(one_writer(folder))
                break
            except BusyError:
                if time.monotonic() > ends:
                    raise
                time.sleep(LOOK_SECONDS)
        yield


# --- stores


def ensure_store(folder: Path, plan: Plan, task: PlannedTask, jobs: int) -> Path:
    """The store of a task's scans on the plan's volume: simulated or prepared by the first who needs it."""
    if task.store is not None:
        return Path(task.store)
    place = _place(folder, plan, task)
    if not store_ready(folder, plan, task):
        with waiting_writer(place.with_suffix(".lock")):
            if not store_ready(folder, plan, task):
                write_json(_note(place), {"store": str(_made(_make_store(place, plan, task, jobs), place))})
    return _noted(place)


def store_ready(folder: Path, plan: Plan, task: PlannedTask) -> bool:
    """Whether the store of a task's scans is finished."""
    place = _place(folder, plan, task)
    return task.store is not None or (_note(place).exists() and _noted(place).is_dir())


def _note(place: Path) -> Path:
    """Where it is said which store is meant."""
    return place.with_suffix(".json")


def _noted(place: Path) -> Path:
    return place.parent / read_json(_note(place))["store"]


def _made(store: Path, place: Path) -> Path:
    """As it is noted: by name alone where it is in the benchmark's own folder, which may be moved."""
    return Path(store.name) if store.resolve().parent == place.parent.resolve() else store


def _place(folder: Path, plan: Plan, task: PlannedTask) -> Path:
    return folder / STORES / digest_json([task.simulate, task.bids, task.scans, plan.volume])


def _make_store(place: Path, plan: Plan, task: PlannedTask, jobs: int) -> Path:
    if task.simulate is None:
        return prepared([Path(text) for text in task.bids], plan.volume, jobs=jobs, say=lambda notes: None)
    labelmaps = task.simulate.get("labelmaps")
    design = task.simulate | {"labelmaps": Path(labelmaps) if labelmaps else None}
    return write_store(place.resolve(), volume=plan.volume, jobs=jobs, **design)


# --- who is trained and tested on


@dataclass(frozen=True, eq=False)
class TaskData:
    """A task's scans, and who of them is where; the same for every row of the plan.

    Attributes:
        test: scans of the inside test, the same people for every seed and size.
        outside: scans of the sites that are held out.
        pool: people who may be trained on.
    """

    data: Data
    test: np.ndarray
    outside: np.ndarray
    pool: tuple[Subject, ...]
    sites: frozenset[str]

    def training(self, size: TrainSize, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
        """Scans to train and to validate on, and how many people they are of.

        ``size`` people, spread evenly over classes (or quantiles of the target) and sites; of two sizes of one seed
        the smaller is part of the larger.
        """
        kind = self.data.task.kind
        random = np.random.default_rng(np.random.SeedSequence([seed, *b"training subset"]))
        ordered = order_by_strata(self.pool, kind, VALIDATION_PARTS, random)
        count = len(ordered) if size == "full" else size
        chosen = [ordered[place] for place in sorted(evenly_spread(len(ordered))[:count])]
        validation, train = take_validation(chosen, kind, VALIDATION_PARTS)
        return self._scans(train), self._scans(validation), len(chosen)

    def cells(self, size: TrainSize, seed: int) -> tuple[Cell, Cell]:
        """One training set, tested inside and outside; nobody stands on two sides.

        Raises:
            LeakError: someone does.
        """
        train, validation, _ = self.training(size, seed)
        cells = Cell(seed, INSIDE, train, validation, self.test), Cell(seed, REFIT, train, validation, self.outside)
        return Split(tuple(self.data.scans), cells).cells  # type: ignore[return-value]

    def _scans(self, subjects: list[Subject]) -> np.ndarray:
        scans = self.data.scans
        return np.array(sorted(i for subject in subjects for i in subject.scans if scans[i].site in self.sites), int)


def evenly_spread(count: int) -> list[int]:
    """0 … count - 1 in an order whose every beginning is spread evenly over the range (van der Corput's bits)."""
    bits = max(1, (count - 1).bit_length())
    return sorted(range(count), key=lambda i: int(f"{i:0{bits}b}"[::-1], 2))


def open_task(folder: Path, plan: Plan, task: PlannedTask, jobs: int = 1) -> TaskData:
    """The scans of a task; kept in memory, as an index, for the next cell."""
    return _opened(ensure_store(folder, plan, task, jobs), task.model_dump_json(), plan.test_parts)


@lru_cache(maxsize=8)
def _opened(store: Path, task_json: str, test_parts: int) -> TaskData:
    task = PlannedTask.model_validate_json(task_json)
    data = select(Store.open(store), Request(task=task.task, train_sites=task.inside_sites,
                                             test_sites=task.outside_sites))
    split = make_split(data.scans, data.targets, seeds=[0], folds=test_parts, train_sites=task.inside_sites,
                       test_sites=task.outside_sites, stratify=task.kind)
    first = split.cell(0, INSIDE)
    taken = {*first.train.tolist(), *first.validation.tolist()}
    pool = tuple(subject for subject in subjects_of(data.scans, data.targets) if taken.intersection(subject.scans))
    return TaskData(data, first.test, split.cell(0, REFIT).test, pool, frozenset(task.inside_sites))


# --- features


def features_once(folder: Path, key: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """``make()``, or what it gave an earlier cell under the same key: float32 (scans, width)."""
    path = folder / FEATURES / key / "features.npy"  # a folder each: its writer clears what a killed one left
    if not path.exists():
        with waiting_writer(path.parent):
            if not path.exists():
                with atomic_write(path, "wb") as file:
                    np.save(file, make())
    try:
        return np.load(path)
    except ValueError as error:
        raise HeadstartError(f"is damaged ({error})", path=path, fix="Remove it: it will be made again.") from error
