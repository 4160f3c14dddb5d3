"""How far a benchmark is: cells done, running, failed and waiting, and the time left, as a live table."""

from __future__ import annotations

import fcntl
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headstart.benchmark.cells import STARTED
from headstart.benchmark.plan import Cell
from headstart.benchmark.results import CELL, Benchmark, CellResult, cell_folder, read

LINE_SECONDS = 20.0
REFRESH_SECONDS = 2.0
SHOWN = 20  # failed or running cells that are named


@dataclass(frozen=True)
class Status:
    """A look at a benchmark.

    Attributes:
        running: cells that a process on any machine holds.
        waiting: cells that nobody has begun, or that were cut off.
    """

    benchmark: Benchmark
    running: tuple[Cell, ...]
    waiting: tuple[Cell, ...]

    @property
    def done(self) -> tuple[CellResult, ...]:
        return self.benchmark.done

    @property
    def failed(self) -> tuple[CellResult, ...]:
        return self.benchmark.failed

    def seconds_left(self, beginning: int = 0) -> float | None:
        """By the median time of cells of the same task, backbone and size; None before one is done.

        Args:
            beginning: processes that are free at this instant and take a waiting cell at the next.
        """
        every = [result.record.seconds for result in self.done]
        if not every:
            return None
        ahead = [self._expected(cell, statistics.median(every)) for cell in (*self.waiting, *self.running)]
        return sum(ahead) / max(1, len(self.running) + min(beginning, len(self.waiting)))

    def _expected(self, cell: Cell, otherwise: float) -> float:
        alike = [result.record.seconds for result in self.done if _kind(result.cell) == _kind(cell)]
        return statistics.median(alike) if alike else otherwise

    def line(self, beginning: int = 0) -> str:
        left = self.seconds_left(beginning)
        time_left = "" if left is None or not self.waiting + self.running else f", {duration(left)} left"
        return (f"{self.benchmark.plan.name}: {len(self.done)} of {len(self.benchmark.plan.cells)} cells done, "
                f"{len(self.running)} running, {len(self.failed)} failed{time_left}")


def _kind(cell: Cell) -> tuple:
    return cell.task, cell.backbone, cell.train_size, cell.mode


def look(folder: Path) -> Status:
    """How far the benchmark in ``folder`` is, whoever works on it."""
    benchmark = read(folder)
    running = tuple(cell for cell in benchmark.missing if is_held(cell_folder(folder, cell.digest)))
    return Status(benchmark, running, tuple(cell for cell in benchmark.missing if cell not in running))


def is_held(folder: Path) -> bool:
    """Whether a process works in ``folder``; a cell that is being taken at this very instant waits for the look."""
    with suppress(FileNotFoundError), open(folder / ".lock", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def started(folder: Path, cell: Cell) -> dict:
    """Where a cell was begun: host, process, job and log of the last attempt; empty before the first."""
    with suppress(OSError, ValueError):
        return json.loads((cell_folder(folder, cell.digest) / STARTED).read_text(encoding="utf-8"))
    return {}


def retry(folder: Path) -> int:
    """Forget how failed cells ended, so that the same benchmark does them again; how many there were."""
    failed = read(folder).failed
    for result in failed:
        (result.folder / CELL).unlink(missing_ok=True)
    return len(failed)


# --- for people


def status_table(status: Status) -> RenderableType:
    """Rows by task and backbone, then the failures and their reasons."""
    table = Table(title=status.line(), title_justify="left")
    for name in ("task", "backbone", "done", "running", "failed", "waiting", "a cell"):
        table.add_column(name, justify="left" if name in ("task", "backbone") else "right")
    plan = status.benchmark.plan
    for task in plan.tasks:
        for backbone in plan.backbones:
            done = _of(task.name, backbone, [result.cell for result in status.done])
            seconds = [r.record.seconds for r in status.done if (r.cell.task, r.cell.backbone) == (task.name, backbone)]
            table.add_row(task.name, backbone, str(done), *(
                str(_of(task.name, backbone, cells) or "") for cells in (
                    status.running, [result.cell for result in status.failed], status.waiting)),
                duration(statistics.median(seconds)) if seconds else "")
    return Group(table, *map(Text, _words(status)))


def _of(task: str, backbone: str, cells: Sequence[Cell]) -> int:
    return sum((cell.task, cell.backbone) == (task, backbone) for cell in cells)


def _words(status: Status) -> Iterator[str]:
    folder = status.benchmark.folder
    for result in status.failed[:SHOWN]:
        log = f" (log: {result.record.log})" if result.record.log else ""
        yield f"failed: {result.cell} [{result.cell.digest}]: {result.record.error}{log}"
    for cell in status.running[:SHOWN]:
        where = started(folder, cell)
        by = f"job {where['job']}" if where.get("job") else f"process {where.get('process', '?')}"
        log = f" (log: {where['log']})" if where.get("log") else ""
        yield f"running: {cell} [{cell.digest}] on {where.get('host', '?')}, {by}{log}"


def duration(seconds: float) -> str:
    """``4.2 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def live(folder: Path) -> Iterator[Callable[[], None]]:
    """Show the status while the caller works: a live table on a terminal, a line now and then elsewhere.

    Yields:
        What the caller calls whenever something has ended.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(folder, console)
        return
    with Live(console=console, refresh_per_second=1 / REFRESH_SECONDS, get_renderable=lambda: _shown(folder)) as view:
        yield view.refresh


def _shown(folder: Path) -> RenderableType:
    return status_table(look(folder)) if (folder / "plan.json").exists() else Text("Looking at the data")


class _Lines:
    def __init__(self, folder: Path, console: Console) -> None:
        self._folder, self._console, self._last = folder, console, 0.0

    def __call__(self) -> None:
        if time.monotonic() - self._last > LINE_SECONDS:
            self._last = time.monotonic()
            # Called when a cell has ended: whose process is not counted as running, and goes on at once.
            self._console.print(look(self._folder).line(beginning=1), highlight=False)
