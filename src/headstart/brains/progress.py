"""Progress with rate and time left: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

LINE_SECONDS = 10.0


@contextlib.contextmanager
def progress_bar(label: str, total: int, show: bool = True) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each of ``total`` items; everything goes to standard error."""
    if not show or not total:
        yield lambda: None
    elif sys.stderr.isatty():
        with _bar(label, total) as advance:
            yield advance
    else:
        yield _Lines(label, total)


@contextlib.contextmanager
def _bar(label: str, total: int) -> Iterator[Callable[[], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total, rate="")

        def advance() -> None:
            done = progress.tasks[0].completed + 1
            progress.update(task, completed=done, rate=f"{(time.monotonic() - start) / done:.2f} s each")

        yield advance


class _Lines:
    """``Preparing: 40 of 96, 1.30 s each, 73 s left`` about every ten seconds, and at the end."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._done = label, total, 0
        self._start = self._last = time.monotonic()

    def __call__(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._last < LINE_SECONDS and self._done < self._total:
            return
        self._last, each = now, (now - self._start) / self._done
        print(f"{self._label}: {self._done} of {self._total}, {each:.2f} s each, "
              f"{each * (self._total - self._done):.0f} s left", file=sys.stderr, flush=True)
