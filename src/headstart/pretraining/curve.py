"""The curve of a pre-training, and what it cost."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

POINTS = 100  # that a curve is averaged to


class Curve:
    """A note on every step (or on some), a line each in a file that survives a kill.

    A run that is resumed tells again of the steps since its last checkpoint. They are the same, so that the last line
    of a step counts, and a torn line is told again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, step: int, value: Any) -> None:
        """Add a note, a JSON-able value; the line break comes first, so that it also ends a torn line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps([step, value])}")

    def read(self) -> dict[int, Any]:
        """The notes by step, in order."""
        found = {}
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []:
            try:
                step, value = json.loads(line)
            except ValueError:
                continue
            found[step] = value
        return dict(sorted(found.items()))

    def averaged(self) -> tuple[list[int], list[float]]:
        """Means of numbers over equal stretches, ``POINTS`` at most, and the last step of each."""
        losses = np.array(list(self.read().values()))
        stretches = np.array_split(losses, min(POINTS, len(losses)))
        ends = np.cumsum([len(stretch) for stretch in stretches])
        return ends.tolist(), [round(float(stretch.mean()), 5) for stretch in stretches]


def peak_memory_gib() -> dict[str, float]:
    """The most memory that this process has held, and its device where it has one."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    found = {"process": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)}
    if torch.cuda.is_available():
        found["device"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return found
