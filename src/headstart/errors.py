"""One error class for everything a user can mend: it names the file, what is wrong and what to do."""

from __future__ import annotations

from pathlib import Path


class HeadstartError(Exception):
    """A problem with an input or a request, worded for the person who can mend it.

    Args:
        problem: what is wrong, in one clause ("has 4 dimensions, expected 3").
        path: the file or folder it is wrong with, where there is one.
        fix: what to do about it, as a sentence ("Give a single 3D T1w volume.").
    """

    def __init__(self, problem: str, *, path: str | Path | None = None, fix: str = "") -> None:
        self.problem, self.path, self.fix = problem, path, fix
        where = f"{path}: " if path is not None else ""
        super().__init__(f"{where}{problem}." + (f" {fix}" if fix else ""))

    def __reduce__(self):  # crosses process pools whole: keyword arguments are lost by default
        return _rebuild, (type(self), self.problem, self.path, self.fix)


def _rebuild(cls, problem, path, fix):
    return cls(problem, path=path, fix=fix)


class LeakError(HeadstartError):
    """A subject (or a held-out site) stands on both sides of a split."""


class BusyError(HeadstartError):
    """Another process holds the output folder."""


class Stopped(HeadstartError):
    """Stopped on a signal (preemption, time limit) with everything saved; the same command goes on."""
