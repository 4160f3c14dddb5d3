"""Does leaving out the air cost accuracy? Our ViT-Tiny and MONAI's, same simulated cohort, seeds, epochs and recipe.

``python -m benchmarks.vit_accuracy``: about ten minutes on two cores; not part of ``python -m benchmarks``.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.vit import SPEC, MonaiViT
from headstart.backbones import build_model
from headstart.backbones.model import BrainModel
from headstart.brains.store import Store
from headstart.simulation.cohort import write_store
from headstart.training import Regression, TrainingPlan, fit, predict

TRAIN, TEST, SEEDS = 64, 48, (0, 1, 2)
PLAN = TrainingPlan(max_epochs=8, batch_size=8, learning_rate=1e-3)
MODELS: dict[str, Callable[[], BrainModel]] = {
    "headstart": lambda: build_model("vit-tiny", SPEC, 1), "MONAI": lambda: BrainModel(MonaiViT(), 1)}


class Ages:
    """The scans of a store with their ages, all in memory."""

    def __init__(self, store: Store) -> None:
        self.targets = np.array([stored.scan.age_years for stored in store.scans])
        self._volumes = store.volumes(np.arange(len(store)))

    def volumes(self, indices: np.ndarray) -> torch.Tensor:
        return self._volumes[torch.from_numpy(indices)]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_store(Path(folder) / "store", n=TRAIN + TEST, jobs=2, volume=SPEC.name, sites=1, seed=0)
        ages = Ages(Store.open(path))
    constant = np.abs(ages.targets[TRAIN:] - np.median(ages.targets[:TRAIN])).mean()
    print(f"Brain age on {TEST} simulated people after {PLAN.max_epochs} epochs on {TRAIN} others, mean absolute error "
          f"in years; the median age alone: {constant:.2f}", flush=True)
    for name, build in MODELS.items():
        began = time.perf_counter()
        errors = [error(build, ages, seed) for seed in SEEDS]
        print(f"{name}: {', '.join(f'{value:.2f}' for value in errors)}; mean {np.mean(errors):.2f}; "
              f"{time.perf_counter() - began:.0f} s", flush=True)


def error(build: Callable[[], BrainModel], ages: Ages, seed: int) -> float:
    """Mean absolute error on the test scans, years, of a model trained from ``seed``."""
    torch.manual_seed(seed)
    model = build()
    fit(model, Regression(), ages, np.arange(TRAIN), np.array([], int), PLAN, seed=seed, flip=True)
    test = np.arange(TRAIN, TRAIN + TEST)
    return float(np.abs(predict(model, ages, test)[:, 0] - ages.targets[test]).mean())


if __name__ == "__main__":
    main()
