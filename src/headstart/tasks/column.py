"""Any column of ``participants.tsv`` as a task: a number, two classes, or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from headstart.brains.cohort import Scan
from headstart.errors import HeadstartError
from headstart.tasks.base import Task, cell, number

MOST_CLASSES = 20
FEWEST_NUMBERS = 10  # fewer distinct numbers are codes of classes (0/1, CDR 0/0.5/1), not a quantity


def column_task(column: str, scans: Sequence[Scan], positive: str | None = None) -> Task:
    """Declare a task on ``column`` by looking at its values.

    Raises:
        HeadstartError: no such column, one value only, too many classes, or ``positive`` is not a value of it.
    """
    values = [value for value in (cell(scan, column) for scan in scans) if value is not None]
    if not values:
        known = sorted({name for scan in scans for name in scan.columns} | {"age", "sex", "site"})
        raise HeadstartError(f"no scan has a value in column '{column}'",
                             fix=f"Columns that exist: {', '.join(known)}.")
    counts = Counter(values)
    if positive is not None:
        return _one_against_rest(column, counts, positive)
    if len(counts) >= FEWEST_NUMBERS and not np.isnan([number(value) for value in counts]).any():
        return Task(column, "regression", column)
    return _classes(column, counts)


def _one_against_rest(column: str, counts: Counter[str], positive: str) -> Task:
    if positive not in counts:
        raise HeadstartError(f"'{positive}' is not a value of column '{column}'",
                             fix=f"Its values: {', '.join(sorted(counts))}.")
    others = sorted(set(counts) - {positive})
    if not others:
        raise HeadstartError(f"column '{column}' holds only '{positive}'", fix="Two values are needed.")
    negative = others[0] if len(others) == 1 else "other"
    return Task(column, "classification", column, classes=(negative, positive), rest=len(others) > 1)


def _classes(column: str, counts: Counter[str]) -> Task:
    if len(counts) < 2:
        raise HeadstartError(f"column '{column}' holds only '{next(iter(counts))}'", fix="Two values are needed.")
    if len(counts) > MOST_CLASSES:
        raise HeadstartError(f"column '{column}' has {len(counts)} different values, which are not all numbers",
                             fix="Give a column of numbers or of a few classes, or --positive VALUE.")
    return Task(column, "classification", column, classes=tuple(sorted(counts)))
