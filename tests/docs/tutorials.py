"""Tutorials are run as they stand: what a page shows is what its commands print, digits aside.

Of a page's fenced blocks, ``bash`` and ``python`` are run, one after the other, in one folder, and ``sh`` where there
is a SLURM; a block with a ``title="FILE"`` is written to that file, and a ``diff`` changes one; ``text`` after a run
block is what it printed, or some lines of it; ``console`` is shown only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGES = Path(__file__).resolve().parents[2] / "docs" / "tutorials"
FENCE = re.compile(r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<text>.*?)^```$",
                   re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"[-−+]?\d+(?:[.,]\d+)*")
FRAME = re.compile(r"[\s─-╿]+")  # of tables
SECONDS = 300
# With so few scans most of a second process's time would go into its imports.
ONE_CORE = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))] if shutil.which("taskset") else []


@dataclass(frozen=True)
class Block:
    language: str
    title: str | None
    text: str


def blocks(page: str) -> list[Block]:
    """The fenced blocks of the tutorial called ``page``."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    return [Block(**found.groupdict()) for found in FENCE.finditer(text)]


def run_page(page: str, folder: Path) -> None:
    """Run a page in ``folder``; AssertionError where a block fails or prints something else than the page says."""
    printed: str | None = None
    runs = {"bash", "python"} | ({"sh"} if "SLURM_CONF" in os.environ else set())
    for block in blocks(page):
        if block.title:
            (folder / block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "diff":
            change(block.text, folder)
        elif block.language in ("bash", "python", "sh"):
            printed = run(block, folder) if block.language in runs else None
        elif block.language == "text" and printed is not None:
            missing = first_missing(block.text, printed)
            assert missing is None, f"{page}: the page shows\n  {missing}\nand the program printed\n{printed}"


def change(diff: str, folder: Path) -> None:
    """Apply a diff whose hunks have no line numbers: what a hunk shows must stand in the file exactly once."""
    names, *hunks = diff.split("@@\n")
    path = folder / names.split("+++ b/")[1].strip()
    text = path.read_text(encoding="utf-8")
    for hunk in hunks:
        old, new = ("".join(line[1:] for line in hunk.splitlines(keepends=True) if line[0] in kept)
                    for kept in (" -", " +"))
        assert text.count(old) == 1, f"{path.name} does not hold, exactly once,\n{old}"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def run(block: Block, folder: Path) -> str:
    """What the block printed, its errors included."""
    command = [sys.executable, "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
    done = subprocess.run([*ONE_CORE, *command, block.text], cwd=folder, env=environment(folder), text=True,
                          timeout=SECONDS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, f"exit code {done.returncode} of\n{block.text}\n{done.stdout}"
    return done.stdout


def environment(folder: Path) -> dict[str, str]:
    """As in a terminal of 100 columns, without a network, with this Python's ``headstart`` first; that in
    ``folder``, where there is one."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "COLUMNS": "100", "OMP_NUM_THREADS": "1", "HEADSTART_OFFLINE": "1",
            "PYTHONPATH": str(folder / "src")}


def first_missing(shown: str, printed: str) -> str | None:
    """The first line shown that was not printed, in this order; None if all were."""
    rest: Iterator[str] = iter([masked(line) for line in printed.splitlines()])
    return next((line for line in shown.splitlines() if masked(line) and masked(line) not in rest), None)


def masked(line: str) -> str:
    """A line without what differs from machine to machine: digits, and the width of tables."""
    return FRAME.sub(" ", NUMBER.sub("#", line)).strip()
