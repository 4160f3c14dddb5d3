"""What is to be predicted: a task is a short declaration, and it reads its own labels from scans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from headstart.brains.cohort import Scan

Kind = Literal["regression", "classification"]


@dataclass(frozen=True)
class Task:
    """A question that a scan can answer.

    Attributes:
        name: what users say, e.g. ``brain-age``.
        kind: ``regression`` or ``classification``.
        column: the column of ``participants.tsv`` that holds the answer.
        classes: for classification, the labels in order; of two, the last is the positive one.
        unit: of a regression's answer, e.g. ``years``.
        rest: the first class stands for every value but the last (``--positive`` with many values).
    """

    name: str
    kind: Kind
    column: str
    classes: tuple[str, ...] = ()
    unit: str = ""
    rest: bool = False

    @property
    def num_outputs(self) -> int:
        return len(self.classes) if self.kind == "classification" else 1

    def labels(self, scans: Sequence[Scan]) -> np.ndarray:
        """Target of each scan, float64 (n,): the number, or the class's index; NaN where there is none."""
        return np.array([self._label(scan) for scan in scans], dtype=np.float64)

    def _label(self, scan: Scan) -> float:
        value = cell(scan, self.column)
        if value is None:
            return np.nan
        if self.kind == "regression":
            return number(value) if not (self.column == "age" and scan.age_censored) else np.nan
        if value in self.classes[self.rest:]:
            return float(self.classes.index(value))
        return 0.0 if self.rest else np.nan

    def left_out(self, scans: Sequence[Scan]) -> list[str]:
        """Plain words on the scans that this task cannot use, and why."""
        missing = [scan for scan, label in zip(scans, self.labels(scans), strict=True) if np.isnan(label)]
        reasons = Counter(self._reason(scan) for scan in missing)
        return [f"{count} scan{'s' if count > 1 else ''} left out: {reason}" for reason, count in reasons.items()]

    def _reason(self, scan: Scan) -> str:
        if cell(scan, self.column) is None:
            return f"no value in column '{self.column}'"
        if self.column == "age" and scan.age_censored:
            return "age is only known to be above a limit (89+)"
        return f"{self.column} is '{cell(scan, self.column)}'"


def cell(scan: Scan, column: str) -> str | None:
    """The text in ``column`` of a scan's row, cleaned; ``None`` where absent."""
    if column == "age":
        return None if scan.age_years is None else repr(float(scan.age_years))
    if column == "sex":
        return scan.sex
    if column == "site":
        return scan.site
    return scan.columns.get(column)


def number(text: str) -> float:
    """A number as written in tables (decimal comma allowed), NaN for anything else."""
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return np.nan
    return value if np.isfinite(value) else np.nan
