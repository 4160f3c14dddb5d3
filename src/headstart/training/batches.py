"""Examples, and the order in which training sees them: a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from headstart.brains.augment import sample_seeds

Request = TypeVar("Request")
Loaded = TypeVar("Loaded")


class Examples(Protocol):
    """Scans with targets.

    Attributes:
        targets: (n,) or (n, k) numbers, NaN where unknown; classes are 0, 1, 2, …
    """

    @property
    def targets(self) -> np.ndarray: ...

    def volumes(self, indices: np.ndarray) -> Tensor:
        """float32 (len(indices), 1, X, Y, Z), in that order."""
        ...


@dataclass(frozen=True)
class Batch:
    """What an objective sees.

    Attributes:
        volumes: (b, 1, X, Y, Z).
        targets: (b, k) float32, NaN where unknown.
        seeds: (b,) uint64, one per sample and epoch, for whatever else an objective draws.
    """

    volumes: Tensor
    targets: Tensor
    seeds: np.ndarray

    def __len__(self) -> int:
        return len(self.seeds)


def epoch_batches(indices: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Shuffle and cut into batches whose sizes differ by one at most, so that no last batch is tiny."""
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch]))).permutation(len(indices))
    return np.array_split(np.asarray(indices)[order], steps_per_epoch(len(indices), batch_size))


def steps_per_epoch(count: int, batch_size: int) -> int:
    return -(-count // batch_size)


def load_batch(examples: Examples, indices: np.ndarray, seed: int, epoch: int) -> Batch:
    """Read the scans ``indices`` (in this order); fresh tensors that the caller may keep."""
    targets = np.asarray(examples.targets, np.float32)[indices].reshape(len(indices), -1)
    return Batch(examples.volumes(indices), torch.from_numpy(targets), sample_seeds(seed, epoch, indices))


def prefetched(load: Callable[[Request], Loaded], requests: Iterable[Request]) -> Iterator[Loaded]:
    """``map(load, requests)`` with the next one loading in the background while the caller works."""
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        waiting = None
        for request in requests:
            upcoming = pool.submit(load, request)
            if waiting is not None:
                yield waiting.result()
            waiting = upcoming
        if waiting is not None:
            yield waiting.result()
