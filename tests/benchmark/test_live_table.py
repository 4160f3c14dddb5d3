"""The live table as a person sees it: the command on a terminal of its own, interrupted from the keyboard."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_benchmark import HEADSTART, write_config

from headstart.benchmark.cells import run_cell
from headstart.benchmark.config import load_config
from headstart.benchmark.engine import give_up
from headstart.benchmark.resolve import make_plan
from headstart.benchmark_commands import CELL_FAILED
from headstart.cli import INTERRUPTED

ROWS = [{"backbone": "vit-mini", "upstream": "scratch", "mode": "probe"},
        {"backbone": "cnn-small", "upstream": "scratch"}]
HIDE_CURSOR, SHOW_CURSOR, UP_AND_ERASE, CTRL_C = "\x1b[?25l", "\x1b[?25h", "\x1b[1A\x1b[2K", b"\x03"


class Terminal:
    """A command with a terminal for itself, and all that it ever wrote there."""

    def __init__(self, command: list[str]) -> None:
        self.pid, self._file = pty.fork()
        if self.pid == 0:
            os.execve(command[0], command, {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "160"})
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
        self._settings, self.written = termios.tcgetattr(self._file), ""

    def until(self, seen: Callable[[str], bool], seconds: float) -> None:
        ends = time.monotonic() + seconds
        while not seen(self.written):
            assert time.monotonic() < ends, f"waited {seconds:.0f} s in vain; it wrote {self.written!r}"
            assert self._read(), f"it ended, and wrote {self.written!r}"

    def _read(self) -> bool:
        if select.select([self._file], [], [], 0.5)[0]:
            try:
                self.written += os.read(self._file, 65536).decode(errors="replace")
            except OSError:  # the other side was closed
                return False
        return True

    def press(self, keys: bytes) -> None:
        os.write(self._file, keys)

    def ended(self, seconds: float) -> int:
        """Its exit status, when all it started has let go of the terminal, which is as it was."""
        ends = time.monotonic() + seconds
        while self._read():
            assert time.monotonic() < ends, f"it does not end; it wrote {self.written!r}"
        assert termios.tcgetattr(self._file) == self._settings
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self._file)


@pytest.fixture
def terminal() -> Iterator[Callable[[list[str]], Terminal]]:
    opened: list[Terminal] = []

    def start(command: list[str]) -> Terminal:
        opened.append(Terminal(command))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_it_is_drawn_in_place_and_leaves_a_tidy_terminal(tmp_path: Path, terminal: Callable) -> None:
    """One cell is done, two have failed, the last would train for hours: until Ctrl-C. At last it has failed, too."""
    config, out = write_config(tmp_path / "tiny.yaml", rows=ROWS, training={
        "epochs": 20_000, "patience": 20_000, "learning_rates": [0.001]}), tmp_path / "out"
    plan = make_plan(load_config(config))
    plan.claim(out)
    run_cell(out, plan, plan.cells[0])
    for cell in plan.cells[1:3]:
        give_up(out, cell, "the loss is nan")
    command = [*HEADSTART, "benchmark", "--config", str(config), "--out", str(out), "--workers", "1"]

    view = terminal(command)
    view.until(lambda text: text.count("1 of 4 cells done, 1 running, 2 failed") >= 3, 90)
    assert "failed: " in view.written
    assert "the loss is nan" in view.written
    assert f"running: {plan.cells[3]}" in view.written
    assert " left" in view.written
    assert drawn_in_place(view.written)
    view.press(CTRL_C)
    assert view.ended(60) == INTERRUPTED
    assert "headstart: interrupted." in view.written
    assert "Traceback" not in view.written
    assert tidy(view.written)

    give_up(out, plan.cells[3], "the loss is nan")
    view = terminal(command)
    assert view.ended(120) == CELL_FAILED
    assert "1 of 4 cells done, 0 running, 3 failed" in view.written
    assert tidy(view.written)


def drawn_in_place(written: str) -> bool:
    """Every table but the first takes the place of the one before it."""
    first, *others = written.split("tiny: ")[1:]
    return len(others) > 1 and all(before.count(UP_AND_ERASE) >= 8 for before in (first, *others[:-1]))


def tidy(written: str) -> bool:
    """The cursor is shown again, and the prompt will stand at the beginning of a line."""
    return (HIDE_CURSOR in written and written.rindex(SHOW_CURSOR) > written.rindex(HIDE_CURSOR)
            and written.endswith("\n"))
