"""How long the command takes to say what it can do."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.common import Row, medians

LIMIT_S = 0.5


def run(repeats: int = 9) -> list[Row]:
    """``headstart --help`` in a fresh process, beside a Python that does nothing."""
    times = medians({"headstart": lambda: _python("-m", "headstart.cli", "--help"),
                     "bare Python": lambda: _python("-c", "pass")}, repeats)
    seconds = times.pop("headstart")
    return [Row("headstart --help", seconds, times, limits={f"< {LIMIT_S} s": seconds < LIMIT_S})]


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
