"""What a benchmark has found so far: its plan, the cells that ended, their predictions, the floors."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from headstart.benchmark.plan import Cell, Plan, TrainSize, Value, read_plan
from headstart.brains.cohort import ScanKey
from headstart.errors import HeadstartError
from headstart.evaluation.predictions import Predictions, from_cells, read_tsv
from headstart.files import atomic_write, read_json, write_json

CELLS, TASKS = "cells", "tasks"
CELL, PREDICTIONS, FLOORS = "cell.json", "predictions.tsv", "floors.tsv"
FLOOR_COLUMNS = ("floor", "train_size")
Tested = frozenset[tuple[ScanKey, str]]  # scans and whether they are inside


class CellRecord(Value):
    """``cell.json``: how a cell ended.

    Attributes:
        error: why it failed, in plain words; None if it did not.
        seconds: it took, over all attempts that ended it.
        n_train: labelled people that it learned from, its validation part among them.
        learning_rate: the one that its validation part chose; None where none was needed.
        receipt: of the weights' transfer; None for a failure.
        overlaps: words on data sets that the upstream has seen, or may have.
        log: the file with what it printed, where a scheduler keeps one.
    """

    task: str
    backbone: str
    upstream: str
    train_size: TrainSize
    seed: int
    mode: str
    state: Literal["done", "failed"]
    error: str | None = None
    seconds: float
    n_train: int
    learning_rate: float | None
    receipt: dict[str, Any] | None
    overlaps: tuple[str, ...] = ()
    log: str | None = None


@dataclass(frozen=True)
class CellResult:
    """A cell that ended, and where.

    Attributes:
        tested: by task, the scans of the first cell whose predictions were read, and its folder; of one benchmark.
    """

    cell: Cell
    record: CellRecord
    folder: Path
    tested: dict[str, tuple[Tested, Path]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def done(self) -> bool:
        return self.record.state == "done"

    @cached_property
    def predictions(self) -> Predictions:
        """For the same people in every cell of a task: inside test and outside sites."""
        try:
            table = read_tsv(self.folder / PREDICTIONS)
        except HeadstartError as error:
            raise HeadstartError(error.problem, path=error.path, fix=_again(self.folder)) from error
        self._check_tested(frozenset(zip(table.keys, table.partition, strict=True)))
        return table

    def _check_tested(self, scans: Tested) -> None:
        """Refuse other scans than a cell of the same task has: the fewer have lost some."""
        first, other = self.tested.setdefault(self.cell.task, (scans, self.folder))
        if scans != first:
            short = min((len(scans), self.folder), (len(first), other))[1]
            raise HeadstartError(f"has not the {max(len(first), len(scans))} scans that other cells of task "
                                 f"'{self.cell.task}' have", path=short / PREDICTIONS, fix=_again(short))


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's folder, read.

    Attributes:
        cells: those that ended, in the order of the plan; the others are missing.
    """

    folder: Path
    plan: Plan
    cells: tuple[CellResult, ...]

    @property
    def done(self) -> tuple[CellResult, ...]:
        return tuple(result for result in self.cells if result.done)

    @property
    def failed(self) -> tuple[CellResult, ...]:
        return tuple(result for result in self.cells if not result.done)

    @property
    def missing(self) -> tuple[Cell, ...]:
        """Cells that have not ended yet."""
        ended = {result.cell.digest for result in self.cells}
        return tuple(cell for cell in self.plan.cells if cell.digest not in ended)

    def floors(self, task: str) -> dict[tuple[str, TrainSize], Predictions]:
        """Predictions of every floor of a task, by (floor, training size), all seeds; empty before they are there."""
        path = self.folder / TASKS / task / FLOORS
        return read_floors(path) if path.exists() else {}


def read(folder: str | Path) -> Benchmark:
    """The benchmark in ``folder``, finished or not.

    Raises:
        HeadstartError: it holds none, or a file in it is damaged.
    """
    folder, plan, tested = Path(folder), read_plan(folder), dict[str, tuple[Tested, Path]]()
    found = [(cell, cell_folder(folder, cell.digest)) for cell in plan.cells]
    return Benchmark(folder, plan, tuple(
        CellResult(cell, record, path, tested) for cell, path in found if (record := read_record(path)) is not None))


def cell_folder(folder: Path, digest: str) -> Path:
    return folder / CELLS / digest


def read_record(folder: Path) -> CellRecord | None:
    """How the cell in ``folder`` ended; None if it has not."""
    path = folder / CELL
    try:
        return _record(path, path.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=10_000)
def _record(path: Path, _written: int) -> CellRecord:
    try:
        return CellRecord.model_validate(read_json(path))
    except ValidationError as error:
        raise HeadstartError("is not the record of a cell", path=path, fix=_again(path.parent)) from error
    except HeadstartError as error:
        raise HeadstartError(error.problem, path=path, fix=_again(path.parent)) from error


def _again(folder: Path) -> str:
    return f"Remove {folder}: the same benchmark does that cell again."


def write_record(folder: Path, record: CellRecord) -> None:
    """Last of a cell's files: a cell with a record has ended."""
    write_json(folder / CELL, record.model_dump(mode="json"))


def write_floors(path: Path, floors: dict[tuple[str, TrainSize], Predictions]) -> None:
    """``floors.tsv``: the columns of ``predictions.tsv`` after the floor's name and the training size."""
    with atomic_write(path) as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow([*FLOOR_COLUMNS, *next(iter(floors.values())).header()])
        for (name, size), table in floors.items():
            writer.writerows([name, size, *row] for row in table.cells())


def read_floors(path: Path) -> dict[tuple[str, TrainSize], Predictions]:
    """What ``write_floors`` wrote."""
    return dict(_floors(path, path.stat().st_mtime_ns))


@lru_cache(maxsize=16)
def _floors(path: Path, _written: int) -> tuple[tuple[tuple[str, TrainSize], Predictions], ...]:
    with open(path, encoding="utf-8", newline="") as file:
        header, *rows = [*csv.reader(file, delimiter="\t")] or [[]]
    if tuple(header[:2]) != FLOOR_COLUMNS or not rows or any(len(row) != len(header) for row in rows):
        raise HeadstartError("is not a table of floors", path=path,
                             fix="Remove it: the same benchmark makes it again.")
    blocks: dict[tuple[str, str], list[list[str]]] = defaultdict(list)
    for row in rows:
        blocks[row[0], row[1]].append(row[2:])
    return tuple(((name, "full" if size == "full" else int(size)), from_cells(header[2:], block))
                 for (name, size), block in blocks.items())
