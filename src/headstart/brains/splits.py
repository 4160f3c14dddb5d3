"""Splits by subject: repeated stratified cross-validation inside, whole sites outside, and no leak between them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from headstart.brains.cohort import Scan, ScanKey
from headstart.brains.strata import (
    Stratify,
    Subject,
    check_targets,
    deal,
    order_by_strata,
    subjects_of,
    take_validation,
)
from headstart.errors import HeadstartError, LeakError
from headstart.files import atomic_write, digest_json

REFIT = "refit"
SITE = "site:"
COLUMNS = ("dataset", "participant_id", "session", "subject", "site", "seed", "fold", "partition")
Partition = Literal["train", "validation", "test", "outside", "unused"]
NONE = "n/a"
VALIDATION_PARTS = 5


@dataclass(frozen=True, eq=False)
class Cell:
    """One model to train: scan numbers, ascending, of its training, validation and test set.

    Folds ``0`` … are the cross-validation. ``refit`` trains on everything inside, with an empty validation set (its
    epochs follow from the cross-validation), and is tested on the outside sites, if there are any. ``site:NAME``
    trains on the other sites and is tested on that one.
    """

    seed: int
    fold: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def outside(self) -> bool:
        """Whether the test set is of sites that the model never saw."""
        return self.fold == REFIT or self.fold.startswith(SITE)

    def parts(self) -> tuple[tuple[Partition, np.ndarray], ...]:
        test: Partition = "outside" if self.outside else "test"
        return ("train", self.train), ("validation", self.validation), (test, self.test)


@dataclass(frozen=True, eq=False)
class Split:
    """All cells of an experiment over ``scans``; cannot be built if anything leaks."""

    scans: tuple[Scan, ...]
    cells: tuple[Cell, ...]

    def __post_init__(self) -> None:
        check_leaks(self)

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(cell.seed for cell in self.cells))

    @property
    def folds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell.fold for cell in self.cells))

    @property
    def digest(self) -> str:
        """Equal for splits that put the same scans into the same parts."""
        return digest_json(sorted(self._rows()))

    def cell(self, seed: int, fold: str) -> Cell:
        """The cell of ``seed`` and ``fold``.

        Raises:
            HeadstartError: the split has none.
        """
        for cell in self.cells:
            if (cell.seed, cell.fold) == (seed, fold):
                return cell
        raise HeadstartError(f"the split has no fold '{fold}' for seed {seed}",
                             fix=f"It has seeds {', '.join(map(str, self.seeds))} and folds {', '.join(self.folds)}.")

    def write_tsv(self, path: str | Path) -> None:
        """Write one row per scan, seed and fold; scans of no use stand in it as ``unused``."""
        with atomic_write(path) as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerows([COLUMNS, *self._rows()])

    @classmethod
    def read_tsv(cls, path: str | Path, scans: Sequence[Scan]) -> Split:
        """Read a split for exactly ``scans``, whatever their order.

        Raises:
            HeadstartError: it cannot be read, or is a split of other scans.
            LeakError: a subject or a held-out site stands on two sides.
        """
        try:
            return cls(tuple(scans), _cells(_read_rows(Path(path)), _numbered(scans)))
        except HeadstartError as error:
            raise type(error)(error.problem, path=path, fix=error.fix) from error

    def _rows(self) -> list[tuple[str, ...]]:
        described = [(*scan.key[:2], scan.session or NONE, scan.subject, scan.site) for scan in self.scans]
        rows = [(*described[i], str(cell.seed), cell.fold, partition)
                for cell in self.cells for partition, indices in cell.parts() for i in indices.tolist()]
        used = {i for cell in self.cells for _, indices in cell.parts() for i in indices.tolist()}
        return rows + [(*described[i], NONE, NONE, "unused") for i in range(len(self.scans)) if i not in used]


def make_split(scans: Sequence[Scan], target: np.ndarray, *, seeds: Sequence[int], folds: int = 5,
               train_sites: Sequence[str] | None = None, test_sites: Sequence[str] = (), loso: bool = False,
               stratify: Stratify) -> Split:
    """Repeated stratified cross-validation inside the training sites (one repeat per seed), and a refit.

    Strata are class × site, or quantile of the target × site; a subject counts with its first session. About a fifth
    of the subjects that are not tested are the validation set. A subject seen at a test site, wherever else it was
    scanned, is never trained on. The result depends on the scans, not on their order.

    Args:
        scans: n scans, of which those at other sites are left aside.
        target: (n,), a number or class for every scan, none missing.
        seeds: one repeat each.
        folds: of each repeat.
        train_sites: sites inside; all but ``test_sites`` if None. Sites in neither are not used.
        test_sites: sites outside.
        loso: also leave out each inside site in turn.
        stratify: ``classification`` (by class) or ``regression`` (by quantile of the target).

    Raises:
        HeadstartError: unknown or overlapping sites, too few subjects, one class only, or a class with fewer
            subjects than folds.
    """
    _check_request(scans, target, seeds, folds)
    train, test = _sites(scans, train_sites, test_sites)
    everyone = subjects_of(scans, np.asarray(target))
    inside = [subject for subject in everyone if not subject.sites & test and subject.sites & train]
    outside = np.array([i for i, scan in enumerate(scans) if scan.site in test], int)
    plan = _Plan(tuple(scans), tuple(inside), frozenset(train), folds, stratify)
    check_targets(inside, stratify, folds)
    sites = _sites_to_leave_out(inside, train) if loso else []
    return Split(tuple(scans), tuple(
        cell for seed in dict.fromkeys(seeds)
        for cell in (*plan.cross_validation(seed), plan.refit(seed, outside), *(plan.without(s, seed) for s in sites))))


def check_leaks(split: Split) -> None:
    """Raise LeakError if a subject stands on two sides of a cell, or an outside site in training or selection."""
    held_out = [split.scans[i] for cell in split.cells if cell.fold == REFIT for i in cell.test.tolist()]
    sites, subjects = {scan.site for scan in held_out}, {scan.subject for scan in held_out}
    for cell in split.cells:
        parts = {name: [split.scans[i] for i in indices.tolist()] for name, indices in cell.parts()}
        _check_sides(cell, parts)
        barred = sites | ({cell.fold.removeprefix(SITE)} if cell.fold.startswith(SITE) else set())
        for scan in parts["train"] + parts["validation"]:
            if scan.site in barred or scan.subject in subjects:
                raise LeakError(f"subject {scan.subject} of the outside site {scan.site} would be trained on "
                                f"(seed {cell.seed}, fold {cell.fold})", fix="Make the split again.")


def _check_sides(cell: Cell, parts: dict[Partition, list[Scan]]) -> None:
    side: dict[str, Partition] = {}
    for name, scans in parts.items():
        for scan in scans:
            if side.setdefault(scan.subject, name) != name:
                raise LeakError(f"subject {scan.subject} stands in both {side[scan.subject]} and {name} "
                                f"(seed {cell.seed}, fold {cell.fold})", fix="Make the split again.")


@dataclass(frozen=True)
class _Plan:
    """How the inside subjects are dealt out; every draw follows from (seed, fold) alone."""

    scans: tuple[Scan, ...]
    subjects: tuple[Subject, ...]
    sites: frozenset[str]
    folds: int
    stratify: Stratify

    def cross_validation(self, seed: int) -> list[Cell]:
        parts = deal(self._shuffled(self.subjects, seed, 0), self.folds)
        return [self._nested(seed, str(fold), tested, fold + 1) for fold, tested in enumerate(parts)]

    def refit(self, seed: int, outside: np.ndarray) -> Cell:
        return Cell(seed, REFIT, self._indices(self.subjects), np.array([], int), outside)

    def without(self, site: str, seed: int) -> Cell:
        """Tested on ``site``: the draw depends on the site's name, not on its place among the others."""
        tested = [subject for subject in self.subjects if site in subject.sites]
        cell = self._nested(seed, SITE + site, tested, self.folds + 1, *site.encode())
        return replace(cell, test=np.array([i for i in cell.test.tolist() if self.scans[i].site == site], int))

    def _nested(self, seed: int, fold: str, tested: Sequence[Subject], *draw: int) -> Cell:
        """The subjects that are not tested, parted into training and validation."""
        out = {subject.name for subject in tested}
        rest = self._shuffled([subject for subject in self.subjects if subject.name not in out], seed, *draw)
        validation, train = take_validation(rest, self.stratify, VALIDATION_PARTS)
        return Cell(seed, fold, *map(self._indices, (train, validation, tested)))

    def _shuffled(self, subjects: Sequence[Subject], seed: int, *draw: int) -> list[Subject]:
        random = np.random.default_rng(np.random.SeedSequence([seed, *draw]))
        return order_by_strata(subjects, self.stratify, self.folds, random)

    def _indices(self, subjects: Sequence[Subject]) -> np.ndarray:
        numbers = [i for subject in subjects for i in subject.scans if self.scans[i].site in self.sites]
        return np.array(sorted(numbers), int)


def _check_request(scans: Sequence[Scan], target: np.ndarray, seeds: Sequence[int], folds: int) -> None:
    if len(target) != len(scans):
        raise ValueError(f"{len(scans)} scans, but {len(target)} targets")
    if np.asarray(target).dtype.kind == "f" and not np.isfinite(target).all():
        raise ValueError("a target is missing: leave such scans out first")
    if folds < 2 or not seeds or min(seeds) < 0:
        raise HeadstartError(f"cannot split with {folds} folds and seeds {list(seeds)}",
                             fix="Ask for at least two folds and one seed, none negative.")
    _numbered(scans)


def _sites(scans: Sequence[Scan], train: Sequence[str] | None, test: Sequence[str]) -> tuple[set[str], set[str]]:
    known = {scan.site for scan in scans}
    inside = known - set(test) if train is None else set(train)
    if unknown := sorted((inside | set(test)) - known):
        raise HeadstartError(f"no usable scan is of site {', '.join(unknown)}",
                             fix=f"The sites are: {', '.join(sorted(known))}.")
    if both := sorted(inside & set(test)):
        raise LeakError(f"site {', '.join(both)} is asked for both inside and outside", fix="Name it once.")
    return inside, set(test)


def _sites_to_leave_out(subjects: Sequence[Subject], train: set[str]) -> list[str]:
    for site in sorted(train):
        left = {subject.target for subject in subjects if site not in subject.sites}
        if len(left) < 2:
            raise HeadstartError(f"without site {site} there is nothing left to learn from",
                                 fix="Leave --loso out, or give data of more sites.")
    return sorted(train)


def _numbered(scans: Sequence[Scan]) -> dict[ScanKey, int]:
    numbers = {scan.key: i for i, scan in enumerate(scans)}
    if len(numbers) < len(scans):
        double = next(scan.key for i, scan in enumerate(scans) if numbers[scan.key] != i)
        raise HeadstartError(f"scan {double} is there twice", fix="Give each data set once.")
    return numbers


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", restval="")
            rows, columns = list(reader), set(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HeadstartError(f"cannot be read ({error})", fix="Give a split.tsv that this program wrote.") from error
    if missing := [column for column in COLUMNS if column not in columns]:
        raise HeadstartError(f"has no column {', '.join(missing)}", fix="Give a split.tsv that this program wrote.")
    return rows


def _cells(rows: Sequence[dict[str, str]], numbers: dict[ScanKey, int]) -> tuple[Cell, ...]:
    parts: dict[tuple[int, str], dict[str, list[int]]] = {}
    listed: set[ScanKey] = set()
    for line, row in enumerate(rows, start=2):
        key = ScanKey(row["dataset"], row["participant_id"], "" if row["session"] == NONE else row["session"])
        listed.add(key)
        if key in numbers and row["partition"] != "unused":
            _add(parts, row, numbers[key], line)
    _check_same_scans(listed, set(numbers))
    return tuple(Cell(seed, fold, *(np.array(sorted(set(own[name])), int) for name in ("train", "validation", "test")))
                 for (seed, fold), own in parts.items())


def _add(parts: dict[tuple[int, str], dict[str, list[int]]], row: dict[str, str], number: int, line: int) -> None:
    name = "test" if row["partition"] == "outside" else row["partition"]
    if name not in ("train", "validation", "test") or not row["seed"].isascii() or not row["seed"].isdigit():
        raise HeadstartError(f"line {line} has no usable seed or partition ('{row['seed']}', '{row['partition']}')",
                             fix="Give a split.tsv that this program wrote.")
    cell = parts.setdefault((int(row["seed"]), row["fold"]), {"train": [], "validation": [], "test": []})
    cell[name].append(number)


def _check_same_scans(listed: set[ScanKey], given: set[ScanKey]) -> None:
    for odd, what in ((listed - given, "are not among the data"), (given - listed, "are not in the split")):
        if odd:
            raise HeadstartError(f"is a split of other scans: {len(odd)} {what}, for example {min(odd)}",
                                 fix="Give the same data and target as when it was made, or make a new split.")
