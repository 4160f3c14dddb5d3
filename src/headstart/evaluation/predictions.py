"""Predictions of one model on many scans, seeds and partitions: the table every score is computed from."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from headstart.brains.cohort import Scan, ScanKey
from headstart.errors import HeadstartError
from headstart.evaluation.metrics import Kind, Outcome
from headstart.files import atomic_write

COLUMNS = ("dataset", "participant_id", "session", "site", "seed", "partition", "truth", "prediction")
SUBJECT = "subject"  # the last column, where there is one
PARTITIONS = ("inside", "outside")
MEND = "Use the file that finetune wrote."


@dataclass(frozen=True)
class Predictions:
    """A row for each scan, seed and partition; every array is indexed alike.

    Attributes:
        dataset, participant_id, session, site: (n,) text.
        subject: (n,) identity for resampling; the same person in two data sets has one.
        seed: (n,) int.
        partition: (n,) ``inside`` (out-of-fold, training sites) or ``outside`` (sites never trained on).
        truth, prediction: (n,) float64; of a classification, the class's index.
        classes: their names in order; empty for a regression.
        probabilities: (n, C), or None for a regression.
    """

    dataset: np.ndarray
    participant_id: np.ndarray
    session: np.ndarray
    site: np.ndarray
    subject: np.ndarray
    seed: np.ndarray
    partition: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    classes: tuple[str, ...] = ()
    probabilities: np.ndarray | None = None

    def __post_init__(self) -> None:
        if (self.probabilities is None) == bool(self.classes):
            raise HeadstartError("predictions of a classification need classes and probabilities, both or neither")
        if any(len(column) != len(self.truth) for column in self._columns().values()):
            raise HeadstartError("the columns of a table of predictions differ in length")
        if len(self) and not np.isin(self.partition, PARTITIONS).all():
            raise HeadstartError("a prediction is neither 'inside' nor 'outside'")
        values = [self.truth, self.prediction, *([] if self.probabilities is None else [self.probabilities])]
        if not all(np.isfinite(value).all() for value in values):
            raise HeadstartError("a truth or prediction is not a finite number",
                                 fix="The training of that model diverged; lower its learning rate.")

    @classmethod
    def of(cls, scans: Sequence[Scan], *, seed: int | np.ndarray, partition: str | np.ndarray, truth: np.ndarray,
           output: np.ndarray, classes: Sequence[str] = ()) -> Predictions:
        """A table from scans and a model's output.

        Args:
            scans: n scans.
            seed: one for all, or (n,).
            partition: one for all, or (n,).
            truth: (n,) number or class index.
            output: (n,) numbers, or (n, C) class probabilities.
        """
        text = {name: np.array([getattr(scan, name) for scan in scans], dtype=object)
                for name in ("dataset", "participant_id", "session", "site")}
        subject = np.array([scan.subject or f"{scan.dataset}/{scan.participant_id}" for scan in scans], dtype=object)
        output, probabilities = np.asarray(output, np.float64), None
        if classes:
            output, probabilities = output.argmax(1).astype(np.float64), output
        return cls(**text, subject=subject, seed=np.broadcast_to(seed, len(scans)).astype(np.int64),
                   partition=np.broadcast_to(np.asarray(partition, dtype=object), len(scans)),
                   truth=np.asarray(truth, np.float64), prediction=output, classes=tuple(classes),
                   probabilities=probabilities)

    @classmethod
    def concatenate(cls, tables: Sequence[Predictions]) -> Predictions:
        """All rows of ``tables``, in order.

        Raises:
            HeadstartError: they have different classes.
        """
        if len({table.classes for table in tables}) != 1:
            raise HeadstartError("tables of predictions with different classes cannot be joined")
        columns = {name: np.concatenate([table._columns()[name] for table in tables]) for name in tables[0]._columns()}
        return cls(**columns, classes=tables[0].classes)

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def kind(self) -> Kind:
        return "classification" if self.classes else "regression"

    @property
    def keys(self) -> list[ScanKey]:
        return list(map(ScanKey, self.dataset, self.participant_id, self.session))

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(int(seed) for seed in np.unique(self.seed))

    @cached_property
    def num_subjects(self) -> int:
        return len(set(self.subject))

    def select(self, rows: np.ndarray) -> Predictions:
        """The rows of a boolean mask or of indices."""
        return replace(self, **{name: column[rows] for name, column in self._columns().items()})

    def part(self, partition: str) -> Predictions:
        """The rows ``inside`` or ``outside``."""
        return self.select(self.partition == partition)

    def sorted(self) -> Predictions:
        """The same rows ordered by partition, seed and key: two tables of the same scans then match row by row."""
        return self.select(np.array(sorted(range(len(self)), key=self._row_keys().__getitem__), dtype=int))

    def same_rows(self, other: Predictions) -> bool:
        """Whether both tables hold the same scans, seeds and partitions, in the same order."""
        return self._row_keys() == other._row_keys()

    def outcome(self) -> Outcome:
        """What the metrics see."""
        return Outcome(self.truth, self.prediction, self.probabilities, np.unique(self.site, return_inverse=True)[1])

    def seed_mean(self) -> Predictions:
        """One row a scan and partition, with the prediction (or probabilities) averaged over seeds; seed is -1."""
        table = self.sorted()
        keys = list(zip(table.partition, table.keys, strict=True))
        first = {key: position for position, key in reversed(list(enumerate(keys)))}
        rows = np.array(sorted(first.values()), dtype=int)
        rank = {keys[row]: position for position, row in enumerate(rows)}
        group = np.array([rank[key] for key in keys], dtype=int)
        output = table.prediction[:, None] if table.probabilities is None else table.probabilities
        counts = np.bincount(group, minlength=len(rows))
        mean = np.stack([np.bincount(group, column, len(rows)) / counts for column in output.T], 1)
        averaged = {"prediction": mean[:, 0]} if table.probabilities is None else {
            "prediction": mean.argmax(1).astype(np.float64), "probabilities": mean}
        return replace(table.select(rows), seed=np.full(len(rows), -1), **averaged)

    def write_tsv(self, path: str | Path) -> None:
        """Write ``predictions.tsv``: classes by name, probabilities as columns ``p_<class>``."""
        with atomic_write(path) as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(self.header())
            writer.writerows(self.cells())

    def header(self) -> list[str]:
        """The columns of the file; ``subject`` only where people are not who their data sets say."""
        return [*COLUMNS, *(f"p_{name}" for name in self.classes), *([SUBJECT] if self._merged else [])]

    @property
    def _merged(self) -> bool:
        """Whether someone is known under two names: in two data sets, mostly."""
        return bool((self.subject != self.dataset + "/" + self.participant_id).any())

    def cells(self) -> list[list[str]]:
        """The rows of the file, as text."""
        text = [self.dataset, self.participant_id, self.session, self.site, self.seed, self.partition]
        values = [self._named(self.truth), self._named(self.prediction)]
        if self.probabilities is not None:
            values += [[f"{p:.6g}" for p in column] for column in self.probabilities.T]
        if self._merged:
            values.append(self.subject.tolist())
        return [[str(cell) for cell in row] for row in zip(*text, *values, strict=True)]

    def _named(self, column: np.ndarray) -> list[str]:
        return [self.classes[int(value)] if self.classes else f"{value:.8g}" for value in column]

    def _columns(self) -> dict[str, np.ndarray]:
        names = [field.name for field in fields(self) if field.name != "classes"]
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def _row_keys(self) -> list[tuple]:
        return list(zip(self.partition, self.seed.tolist(), self.keys, strict=True))


def read_tsv(path: str | Path) -> Predictions:
    """Read ``predictions.tsv``. Without a column ``subject``, a subject is (dataset, participant_id).

    Raises:
        HeadstartError: a column is missing, a row is torn, or a value is not what its column holds.
    """
    header, rows = _read_rows(Path(path))
    try:
        return from_cells(header, rows)
    except (ValueError, HeadstartError) as error:
        problem = error.problem if isinstance(error, HeadstartError) else f"holds a value that does not fit: {error}"
        raise HeadstartError(problem, path=path, fix=MEND) from error


def from_cells(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Predictions:
    """Predictions from the text of a table: its header, and rows of the same length.

    Raises:
        ValueError, HeadstartError: a value is not what its column holds.
    """
    classes = tuple(name.removeprefix("p_") for name in header[len(COLUMNS):] if name != SUBJECT)
    column = dict(zip(header, (np.array(values, dtype=object) for values in zip(*rows, strict=True)), strict=True))
    values = {name: _decode(column[name], classes) for name in ("truth", "prediction")}
    probabilities = np.stack([column[f"p_{name}"].astype(float) for name in classes], 1) if classes else None
    text = {name: column[name] for name in ("dataset", "participant_id", "session", "site", "partition")}
    subject = column.get(SUBJECT, column["dataset"] + "/" + column["participant_id"])
    return Predictions(**text, subject=subject, seed=column["seed"].astype(np.int64), **values, classes=classes,
                       probabilities=probabilities)


def _read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file, delimiter="\t")) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HeadstartError(f"cannot be read ({error})", path=path, fix=MEND) from error
    extra = header[len(COLUMNS):-1 if header[-1:] == [SUBJECT] else None]
    if tuple(header[: len(COLUMNS)]) != COLUMNS or not all(name.startswith("p_") for name in extra):
        raise HeadstartError(f"is not a table of predictions (columns: {' '.join(header)[:200] or 'none'})", path=path,
                             fix=f"Its columns must be {' '.join(COLUMNS)}, then p_<class> for each class.")
    torn = next((line for line, row in enumerate(rows, 2) if len(row) != len(header)), None)
    if torn or not rows:
        problem = f"line {torn} has not {len(header)} columns" if torn else "has no rows"
        raise HeadstartError(problem, path=path, fix=MEND)
    return header, rows


def _decode(column: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    if not classes:
        return column.astype(np.float64)
    unknown = sorted(set(column) - set(classes))
    if unknown:
        raise ValueError(f"'{unknown[0]}' is not one of the classes {', '.join(classes)}")
    return np.array([classes.index(name) for name in column], dtype=np.float64)
