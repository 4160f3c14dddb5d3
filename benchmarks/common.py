"""What all benchmarks share: a row of the table, and a median of interleaved repeats."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what was done.
        seconds: our median.
        peers: the median of each peer at the same work.
        target: how many times faster than each peer we mean to be, by peer; a peer without one is for comparison.
        limits: other targets in words, and whether each was met.
        note: how it was measured.
    """

    name: str
    seconds: float
    peers: Mapping[str, float] = field(default_factory=dict)
    target: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, bool] = field(default_factory=dict)
    note: str = ""

    def ratio(self, peer: str) -> float:
        return self.peers[peer] / self.seconds

    @property
    def met(self) -> bool:
        return all(self.limits.values()) and all(self.ratio(peer) >= wanted for peer, wanted in self.target.items())


def medians(work: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each piece of work, after one warm-up.

    The pieces take turns, so that a change in the machine's load meets all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(repeats + 1):
        for name, piece in work.items():
            gc.collect()
            start = time.perf_counter()
            piece()
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return {name: median(times) for name, times in seconds.items()}
