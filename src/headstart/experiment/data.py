"""The scans of an experiment: those with a label, at the sites asked for, in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from headstart.brains.cohort import Scan
from headstart.brains.splits import Split, make_split
from headstart.brains.store import Store, StoredScan
from headstart.errors import HeadstartError
from headstart.experiment.value import Request
from headstart.files import digest_json
from headstart.tasks import Task, find_task


@dataclass(frozen=True, eq=False)
class Data:
    """Scans and targets, indexed alike; training reads it as its examples.

    Attributes:
        rows: (n,) indices into the store.
        targets: (n,) float64, the number or the class's index; never NaN.
        notes: plain words on what was left out.
    """

    store: Store
    task: Task
    rows: np.ndarray
    targets: np.ndarray
    notes: tuple[str, ...]

    @property
    def stored(self) -> list[StoredScan]:
        return [self.store.scans[row] for row in self.rows]

    @property
    def scans(self) -> list[Scan]:
        return [stored.scan for stored in self.stored]

    def volumes(self, indices: np.ndarray) -> Tensor:
        """float32 (len(indices), 1, X, Y, Z)."""
        return self.store.volumes(self.rows[indices])

    @property
    def digest(self) -> str:
        return digest_json([[*stored.scan.key, stored.scan.subject, stored.scan.site, float(target), stored.crc32]
                            for stored, target in zip(self.stored, self.targets, strict=True)])


class Usable(NamedTuple):
    """What a request can use: the task, places (n,) among all scans, targets (n,) and notes as in ``Data``."""

    task: Task
    rows: np.ndarray
    targets: np.ndarray
    notes: tuple[str, ...]


def select(store: Store, request: Request) -> Data:
    """The scans of ``store`` that ``request`` can use.

    Raises:
        HeadstartError: an unknown site, no usable scan, or a class that no scan has.
    """
    return Data(store, *usable([stored.scan for stored in store.scans], request))


def usable(scans: Sequence[Scan], request: Request) -> Usable:
    """Those of ``scans`` that ``request`` can use; raises as ``select`` does."""
    _check_sites(request, {scan.site for scan in scans})
    sites = {*request.train_sites, *request.test_sites} if request.train_sites else {scan.site for scan in scans}
    rows = np.array([row for row, scan in enumerate(scans) if scan.site in sites], np.int64)
    task = find_task(request.task, request.target, [scans[row] for row in rows], request.positive)
    targets = task.labels([scans[row] for row in rows])
    notes = task.left_out([scans[row] for row in rows])
    labelled = ~np.isnan(targets)
    _check_targets(task, targets[labelled], notes)
    return Usable(task, rows[labelled], targets[labelled], tuple(notes))


def split_of(request: Request, scans: Sequence[Scan], targets: np.ndarray, task: Task) -> Split:
    """The split that ``request`` gives, or a new one of these scans; raises as ``make_split`` and ``read_tsv`` do."""
    return Split.read_tsv(request.split, scans) if request.split else make_split(
        scans, targets, seeds=range(request.seeds), folds=request.folds, train_sites=request.train_sites or None,
        test_sites=request.test_sites, loso=request.loso, stratify=task.kind)


def _check_sites(request: Request, known: set[str]) -> None:
    unknown = sorted({*request.train_sites, *request.test_sites} - known)
    if unknown:
        raise HeadstartError(f"no scan is from site '{unknown[0]}'", fix=f"Sites: {', '.join(sorted(known))}.")
    both = sorted(set(request.train_sites) & set(request.test_sites))
    if both:
        raise HeadstartError(f"site '{both[0]}' is both a training and a test site", fix="Name it once.")


def _check_targets(task: Task, targets: np.ndarray, notes: Sequence[str]) -> None:
    if not len(targets):
        raise HeadstartError(f"no scan can be used for '{task.name}': {'; '.join(notes) or 'there is none'}",
                             fix=f"Fill column '{task.column}' of participants.tsv, or give another --target.")
    for index, name in enumerate(task.classes):
        if not (targets == index).any():
            raise HeadstartError(f"no scan has {task.column} = '{name}'",
                                 fix=f"Task '{task.name}' needs scans of each class: {', '.join(task.classes)}.")
    if task.kind == "regression" and np.ptp(targets) == 0:
        raise HeadstartError(f"every scan has {task.column} = {targets[0]:g}", fix="There is nothing to learn.")
