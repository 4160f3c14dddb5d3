"""Simulated brains a second, the whole chain included: subject, tissue, scanner, intensities, labels."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence

from benchmarks.common import Row
from headstart.brains.volumes import volume_spec
from headstart.brains.workers import run_each
from headstart.simulation.anatomy import AnatomyGenerator
from headstart.simulation.generate import generate

TARGETS_PER_SECOND = {"4mm": 80.0, "2mm": 6.0}
PEOPLE, CHUNKS = {"4mm": 50, "2mm": 8}, 8


def run() -> list[Row]:
    """Generate on every core; starting the processes is not counted."""
    return [_measure(volume) for volume in TARGETS_PER_SECOND]


def _measure(volume: str) -> Row:
    jobs = min(multiprocessing.cpu_count(), 2)
    _chunk((volume, 0, 1))  # builds what the processes read from the cache
    chunks = [(volume, start * PEOPLE[volume], PEOPLE[volume]) for start in range(CHUNKS + jobs)]
    done = []
    for _ in run_each(_chunk, chunks, jobs):
        done.append(time.perf_counter())
    seconds = (done[-1] - done[jobs - 1]) / (len(done) - jobs) / PEOPLE[volume]
    note = f"{1 / seconds:.0f} a second on {jobs} cores, target {TARGETS_PER_SECOND[volume]:.0f}"
    return Row(f"one simulated brain at {volume}", seconds, note=note)


def _chunk(item: Sequence) -> int:
    volume, start, count = item
    return len(generate(AnatomyGenerator(), 0, range(start, start + count), volume_spec(volume)))


if __name__ == "__main__":
    print(*run(), sep="\n")
