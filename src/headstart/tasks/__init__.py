"""Tasks: the declared ones by name, and any column of a table.

A new task is one more entry in one of these files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headstart.brains.cohort import Scan
from headstart.errors import HeadstartError
from headstart.tasks import brain_age, diagnosis, sex
from headstart.tasks.base import Task
from headstart.tasks.column import column_task

DECLARED: dict[str, Task] = {task.name: task for task in (*brain_age.TASKS, *diagnosis.TASKS, *sex.TASKS)}
"""The declared tasks by name: brain-age, ad, pd, sex."""
_BY_TARGET = {"age": "brain-age", "sex": "sex"}

__all__ = ["DECLARED", "Task", "find_task"]


def find_task(name: str | None, target: str | None, scans: Sequence[Scan], positive: str | None = None) -> Task:
    """The task that ``--task``, ``--target`` and ``--positive`` ask for.

    A declared task may be read from another column (``--task ad --target dx``). A target alone is looked at:
    ``age`` and ``sex`` are the declared tasks, any other column becomes one by its values.

    Raises:
        HeadstartError: nothing is asked for, the task is unknown, or the column cannot be one.
    """
    if name is None and target is None:
        raise HeadstartError("nothing to predict", fix="Give --task brain-age|ad|pd|sex or --target COLUMN.")
    if name is None and positive is None:
        name = _BY_TARGET.get(str(target))
    if name is None:
        return column_task(str(target), scans, positive)
    if name not in DECLARED:
        raise HeadstartError(f"unknown task '{name}'", fix=f"Choose one of: {', '.join(DECLARED)}.")
    if positive is not None:
        raise HeadstartError(f"--positive does not go with the declared task '{name}'",
                             fix="Its classes are fixed; use --target COLUMN --positive VALUE.")
    return replace(DECLARED[name], column=target) if target else DECLARED[name]
