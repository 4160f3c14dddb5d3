"""A store of procedural clips or pictures, rendered once and read by every run that asks for the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from headstart.brains.cohort import Scan
from headstart.brains.contract import Contract
from headstart.brains.progress import progress_bar
from headstart.brains.store import StoreWriter
from headstart.brains.volumes import VolumeSpec, volume_spec
from headstart.pretraining.procedural.clips import clips
from headstart.pretraining.procedural.pictures import pictures
from headstart.simulation.base import one_thread

Render = Callable[[int, np.ndarray, VolumeSpec], tuple[np.ndarray, list[dict[str, str]]]]

KINDS: dict[str, Render] = {"procedural-video": clips, "procedural-images": pictures}
VERSION = 1  # of what the generators render
CHUNK = 32  # rendered at once: about what the processor's cache holds
WRITTEN = 8 * CHUNK  # between two writes to the store


def write_pool(path: Path, kind: str, *, n: int, seed: int, volume: str, progress: bool = True) -> Path:
    """Render ``n`` clips or pictures into a store; the same call goes on where a killed one stopped.

    Args:
        kind: one of ``KINDS``.
        seed: with the index it determines each of them.
    """
    name, spec = f"{kind}-{seed}", volume_spec(volume)
    with StoreWriter(path, Contract(volume=volume)) as writer:
        parts = [np.arange(first, min(first + WRITTEN, n)) for first in range(len(writer), n, WRITTEN)]
        with progress_bar(f"Rendering, {WRITTEN} at a time", len(parts), progress) as advance:
            for part in parts:
                rows, labels = render(KINDS[kind], seed, part, spec)
                writer.append_many([_scan(name, index, row) for index, row in zip(part.tolist(), labels)], rows)
                advance()
    return path


def render(kind: Render, seed: int, indices: np.ndarray, spec: VolumeSpec) -> tuple[np.ndarray, list[dict[str, str]]]:
    """Rows and labels of many, a cacheful at a time; on one thread, whose sums do not depend on what else is drawn."""
    with torch.no_grad(), one_thread():
        done = [kind(seed, indices[first : first + CHUNK], spec) for first in range(0, len(indices), CHUNK)]
    return np.concatenate([rows for rows, _ in done]), [label for _, labels in done for label in labels]


def _scan(name: str, index: int, labels: dict[str, str]) -> Scan:
    return Scan(name, f"sub-{index + 1:06d}", "", Path(f"{index + 1:06d}"), name, columns=labels,
                subject=f"{name}/{index}", simulated=True)
