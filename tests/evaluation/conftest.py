"""A small simulated cohort, its folds, and what floors see of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from headstart.brains.cohort import Scan
from headstart.evaluation.floors import FloorInputs

N, INSIDE, VOXELS = 60, 45, 500


@dataclass(frozen=True)
class Fold:
    seed: int
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    outside: bool


@pytest.fixture(scope="session")
def scans() -> list[Scan]:
    random = np.random.default_rng(0)
    return [Scan("set", f"sub-{i:02d}", "ses-1", Path("none"), "here" if i < INSIDE else "there",
                 age_years=float(random.uniform(20, 80)), sex="FM"[i % 2], subject=f"set/sub-{i:02d}")
            for i in range(N)]


@pytest.fixture(scope="session")
def cells() -> list[Fold]:
    out = []
    for seed in (0, 1, 2):
        order = np.random.default_rng(seed).permutation(INSIDE)
        for fold in range(5):
            rest = np.setdiff1d(order, order[fold::5])
            out.append(Fold(seed, rest[8:], rest[:8], order[fold::5], False))
        out.append(Fold(seed, order, order[:0], np.arange(INSIDE, N), True))
    return out


@pytest.fixture(scope="session")
def age_inputs(scans: list[Scan]) -> FloorInputs:
    """Voxels that darken with age in brains whose outline is noise."""
    random, age = np.random.default_rng(1), np.array([scan.age_years for scan in scans])
    pattern = random.normal(size=VOXELS)
    rows = 0.5 + 0.06 * (age[:, None] - 50) / 17 * pattern + random.normal(0, 0.2, (N, VOXELS))
    rows[random.random((N, VOXELS)) < 0.05] = 0
    return FloorInputs(scans, age, "age", (), rows.astype(np.float16))


@pytest.fixture(scope="session")
def sex_inputs(scans: list[Scan]) -> FloorInputs:
    """Outlines that differ by sex; intensities that do not."""
    random, male = np.random.default_rng(2), np.array([float(scan.sex == "M") for scan in scans])
    rows = random.normal(0.5, 0.2, (N, VOXELS))
    rows[:, :60] *= random.random((N, 60)) < 0.4 + 0.4 * male[:, None]
    return FloorInputs(scans, male, "sex", ("F", "M"), rows.astype(np.float16))
