"""Floors: what simple predictors reach on the same folds. A model that does not beat them has learned little.

A floor is one declared entry of ``FLOORS``. All but the constant are a ridge regression in dual form (of classes, on
their indicators), whose cost depends on the scans and not on the voxels; the strength of the penalty is chosen by
cross-validation within the training scans, by subject. Classes from a few columns are read by logistic regression.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from headstart.brains.cohort import Scan
from headstart.brains.intensity import tissue_fractions
from headstart.brains.splits import Cell
from headstart.errors import HeadstartError
from headstart.evaluation.linear import fit_classes, fit_number
from headstart.evaluation.predictions import Predictions

VOXELS_AT_ONCE = 8192  # bounds the memory of a kernel: scans × this, as float32


@dataclass(frozen=True)
class FloorInputs:
    """What floors may see.

    Attributes:
        scans: n scans.
        target: (n,) number or class index.
        column: name of the target's column, which no floor may use.
        classes: names of the classes, empty for a regression.
        rows: (n, voxels) prepared intensities, exactly 0 outside the brain; None where there are none.
    """

    scans: Sequence[Scan]
    target: np.ndarray
    column: str
    classes: tuple[str, ...] = ()
    rows: np.ndarray | None = None

    @cached_property
    def site(self) -> np.ndarray:
        return np.array([scan.site for scan in self.scans], dtype=object)

    @cached_property
    def subject(self) -> np.ndarray:
        names = [scan.subject or f"{scan.dataset}/{scan.participant_id}" for scan in self.scans]
        return np.unique(names, return_inverse=True)[1]

    @cached_property
    def age_and_sex(self) -> np.ndarray:
        """(n, 2) years and 1 for male; NaN where unknown, and throughout for the target itself."""
        age = [np.nan if scan.age_years is None or self.column == "age" else scan.age_years for scan in self.scans]
        sex = [np.nan if scan.sex is None or self.column == "sex" else float(scan.sex == "M") for scan in self.scans]
        return np.array([age, sex], dtype=np.float64).T

    @cached_property
    def voxel_kernel(self) -> np.ndarray:
        """(n, n) inner products of intensities."""
        return self._inner_products(lambda block: block)

    @cached_property
    def mask_kernel(self) -> np.ndarray:
        """(n, n) inner products of brain masks, 1 in the brain and 0 outside."""
        return self._inner_products(lambda block: block != 0)

    @cached_property
    def tissue(self) -> np.ndarray:
        """(n, 3) shares of cerebrospinal fluid, grey and white matter."""
        return np.array([tissue_fractions(row[row != 0].astype(np.float32)) for row in self._voxels()])

    def _inner_products(self, view: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        rows = self._voxels()
        kernel = np.zeros((len(rows), len(rows)))
        for start in range(0, rows.shape[1], VOXELS_AT_ONCE):
            block = view(rows[:, start: start + VOXELS_AT_ONCE]).astype(np.float32)
            kernel += block @ block.T
        return kernel

    def _voxels(self) -> np.ndarray:
        if self.rows is None:
            raise HeadstartError("this floor needs the voxels of the scans")
        return self.rows


@dataclass(frozen=True)
class Floor:
    """A declared floor.

    Attributes:
        table: (inputs, training indices) → (n, p) columns, NaN where unknown; or None.
        kernel: inputs → (n, n) inner products of its features; or None.
    """

    name: str
    title: str
    description: str
    table: Callable[[FloorInputs, np.ndarray], np.ndarray] | None = None
    kernel: Callable[[FloorInputs], np.ndarray] | None = None
    needs_voxels: bool = False


def _site_columns(inputs: FloorInputs, train: np.ndarray) -> np.ndarray:
    """One column a training site; a scan from elsewhere is unknown, so that it gets the constant."""
    known = np.unique(inputs.site[train].astype(str))
    columns = (inputs.site[:, None] == known).astype(float)
    columns[columns.sum(1) == 0] = np.nan
    return columns


FLOORS: dict[str, Floor] = {floor.name: floor for floor in (
    Floor("constant", "Constant", "Says the same for everyone: the median of the training targets, or how frequent "
          "each class is among them (inside, averaged over the folds of a seed)."),
    Floor("age_sex", "Age and sex", "A linear model on age and sex, without the target itself.",
          table=lambda inputs, train: inputs.age_and_sex),
    Floor("site", "Site alone", "Knows only the site; a site it was not trained on gets the constant.",
          table=_site_columns),
    Floor("mask", "Brain outline", "A linear model on the brain mask: shape and size without intensities.",
          kernel=lambda inputs: inputs.mask_kernel, needs_voxels=True),
    Floor("tissue", "Tissue fractions", "A linear model on three numbers: the shares of cerebrospinal fluid, grey and "
          "white matter, from a three-class mixture of intensities.",
          table=lambda inputs, train: inputs.tissue, needs_voxels=True),
    Floor("voxels", "Linear on voxels", "Ridge regression on all voxels; of classes, on their indicators.",
          kernel=lambda inputs: inputs.voxel_kernel, needs_voxels=True),
)}


def possible_floors(inputs: FloorInputs) -> tuple[str, ...]:
    """Names of the floors that make sense here: not the target itself, not voxels where there are none."""
    without = {"site"} if inputs.column == "site" else set()
    without |= {floor.name for floor in FLOORS.values() if floor.needs_voxels and inputs.rows is None}
    return tuple(name for name in FLOORS if name not in without)


def all_floors(inputs: FloorInputs, cells: Iterable[Cell]) -> dict[str, Predictions]:
    """Predictions of every possible floor, by name, on the test scans of every cell."""
    cells = list(cells)
    return {name: floor_predictions(name, inputs, cells) for name in possible_floors(inputs)}


def floor_predictions(name: str, inputs: FloorInputs, cells: Iterable[Cell]) -> Predictions:
    """Predictions of one floor, trained on train + validation of each cell, for its test scans.

    Raises:
        HeadstartError: no such floor, or it needs voxels that are not there.
    """
    if name not in FLOORS:
        raise HeadstartError(f"unknown floor '{name}'", fix=f"Choose one of: {', '.join(FLOORS)}.")
    cells = [cell for cell in cells if len(cell.test)]
    kernel_of = FLOORS[name].kernel
    kernel = None if kernel_of is None else kernel_of(inputs)  # once for all cells
    constants, means = _shared(inputs, cells, _constant), _shared(inputs, cells, _mean)
    return Predictions.concatenate([
        Predictions.of([inputs.scans[i] for i in cell.test], seed=cell.seed, partition=partition_of(cell),
                       truth=inputs.target[cell.test], classes=inputs.classes,
                       output=_predict(FLOORS[name], inputs, cell, kernel, constant, mean))
        for cell, constant, mean in zip(cells, constants, means, strict=True)])


def partition_of(cell: Cell) -> str:
    """``inside`` for a fold of cross-validation, ``outside`` for held-out sites."""
    return "outside" if cell.outside else "inside"


def _shared(inputs: FloorInputs, cells: Sequence[Cell],
            summary: Callable[[FloorInputs, np.ndarray], np.ndarray]) -> list[np.ndarray]:
    """What each cell takes for ``summary`` of its training targets: (outputs,) a cell.

    Within cross-validation all folds of a seed share their mean. Where it differs between folds it runs against the
    held-out truth, and the pooled scores of weak predictors would fall below chance.
    """
    own = [summary(inputs, inputs.target[_training(cell)]) for cell in cells]
    inside = [cell.seed if partition_of(cell) == "inside" else None for cell in cells]
    return [np.mean([other for other, match in zip(own, inside, strict=True) if match == seed], axis=0)
            if seed is not None else value for seed, value in zip(inside, own, strict=True)]


def _constant(inputs: FloorInputs, target: np.ndarray) -> np.ndarray:
    """The best constant: the median (for the absolute error), or the frequencies of the classes."""
    return _mean(inputs, target) if inputs.classes else np.array([np.median(target)])


def _mean(inputs: FloorInputs, target: np.ndarray) -> np.ndarray:
    if not inputs.classes:
        return np.array([target.mean()])
    return np.bincount(target.astype(int), minlength=len(inputs.classes)) / len(target)


def _training(cell: Cell) -> np.ndarray:
    return np.concatenate([cell.train, cell.validation]).astype(int)


def _predict(floor: Floor, inputs: FloorInputs, cell: Cell, kernel: np.ndarray | None, constant: np.ndarray,
             mean: np.ndarray) -> np.ndarray:
    """(tests,) numbers, or (tests, C) probabilities."""
    train, test = _training(cell), np.asarray(cell.test, int)
    if floor.table is not None:
        columns = standardise(floor.table(inputs, train), train)
        kernel = columns @ columns.T if columns.shape[1] else None
    if kernel is None:
        output = np.tile(constant, (len(test), 1))
        return output if inputs.classes else output[:, 0]
    return _anchored(inputs, train, mean, _linear(inputs, kernel, train, test))


def _linear(inputs: FloorInputs, kernel: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    groups = inputs.subject[train]
    if inputs.classes:
        return fit_classes(kernel, inputs.target.astype(int), train, test, groups, len(inputs.classes))
    return fit_number(kernel, inputs.target, train, test, groups)


def _anchored(inputs: FloorInputs, train: np.ndarray, mean: np.ndarray, output: np.ndarray) -> np.ndarray:
    """Move predictions from the mean of the fold's own training targets to the one that folds share."""
    own = _mean(inputs, inputs.target[train])
    if not inputs.classes:
        return output + (mean - own)[0]
    moved = output * np.divide(mean, own, out=np.ones_like(own), where=own > 0)
    return moved / moved.sum(1, keepdims=True)


def standardise(columns: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Columns (n, p) with mean 0 and variance 1 over ``train``; unknown becomes 0; what does not vary is dropped."""
    known = ~np.isnan(columns)
    count = np.maximum(known[train].sum(0), 1)
    filled = np.where(known, columns, 0)
    mean = filled[train].sum(0) / count
    centred = np.where(known, filled - mean, 0)
    spread = np.sqrt((centred[train] ** 2).sum(0) / count)
    varies = spread > 1e-9 * (1 + np.abs(mean))
    return centred[:, varies] / spread[varies]
