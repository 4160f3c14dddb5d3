"""``python -m benchmarks [names]``: speed beside peers. All of them also go into ``docs/performance.md``."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.common import Row

NAMES = ("load", "augment", "vit", "masked", "store", "prepare", "simulate", "weights", "start")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
HEADER = ("what", "time", "beside", "ratio", "target", "")


def main(names: list[str]) -> None:
    """Run each benchmark in a process of its own, print one table, keep it when it is complete."""
    unknown = set(names) - set(NAMES)
    if unknown:
        sys.exit(f"no benchmark {sorted(unknown)}; there are {', '.join(NAMES)}")
    began = time.monotonic()
    rows = [row for name in track(names or NAMES, "Measuring") for row in measured(name)]
    lines = [line for row in rows for line in lines_of(row)]
    Console().print(table(lines))
    if not names:
        keep(lines, rows, time.monotonic() - began)


def measured(name: str) -> list[Row]:
    """Its rows, from a process with as many threads as users get."""
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    code = f"from benchmarks.__main__ import send; send({name!r})"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, text=True, env=environment)
    return [Row(**row) for row in json.loads(done.stdout.splitlines()[-1])]


def send(name: str) -> None:
    """In the process of its own: run the benchmark and print its rows as JSON."""
    print("\n" + json.dumps([asdict(row) for row in importlib.import_module(f"benchmarks.{name}").run()]))


def lines_of(row: Row) -> list[tuple[str, ...]]:
    """A line for us, one a peer, one a limit."""
    lines = [(row.name, duration(row.seconds), "", "", "", "")]
    for peer, seconds in row.peers.items():
        wanted = row.target.get(peer)
        verdict = "" if wanted is None else "met" if row.ratio(peer) >= wanted else "short"
        lines.append(("", duration(seconds), peer, f"{row.ratio(peer):.1f} ×", f"≥ {wanted:g} ×" if wanted else "",
                      verdict))
    return lines + [("", "", "", "", words, "met" if met else "short") for words, met in row.limits.items()]


def duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def table(lines: Iterable[tuple[str, ...]]) -> Table:
    made = Table(*HEADER)
    for line in lines:
        made.add_row(*line, end_section=False)
    return made


def keep(lines: list[tuple[str, ...]], rows: list[Row], seconds: float) -> None:
    """Replace what stands between the marks of the page."""
    notes = [f"- {row.name}: {row.note}" for row in rows if row.note]
    text = "\n".join([
        f"Measured on {time.strftime('%Y-%m-%d')}: {machine()}. The whole took {seconds / 60:.0f} minutes.", "",
        *(f"| {' | '.join(line)} |" for line in (HEADER, ("---",) * len(HEADER), *lines)), "", *notes])
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def machine() -> str:
    from headstart.environment import environment

    found = environment()
    parts = [found["processor"], f"{found['cores']} cores", f"{found['memory_gib']} GiB", f"Python {found['python']}"]
    return ", ".join(parts + [f"{name} {version}" for name, version in peers().items()])


def peers() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "monai", "torchio")}


if __name__ == "__main__":
    main(sys.argv[1:])
