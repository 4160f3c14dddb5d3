"""Small finished models with random weights: what they say means nothing, how they say it is tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headstart.backbones import build_model
from headstart.brains.contract import Contract
from headstart.brains.nifti import write_nifti
from headstart.brains.volumes import template
from headstart.calibration.familiarity import Familiarity
from headstart.modelfolder import ModelConfig, save_model
from headstart.tasks import Task

QUICK = Contract(bias_correction="none")  # N4 is half of the time


def write_model(folder: Path, task: Task | None, num_outputs: int, familiarity: Familiarity | None = None,
                contract: Contract = QUICK) -> Path:
    """A model folder around an untrained network."""
    network = build_model("cnn-small", contract.spec, num_outputs)
    config = ModelConfig(backbone="cnn-small", num_outputs=num_outputs, task=task, contract=contract, simulated=True)
    return save_model(folder, network, config, "# card", familiarity)


def write_scans(folder: Path, n: int) -> Path:
    """A BIDS data set of ``n`` template brains at 2 mm with some noise."""
    target = template("2mm")
    for i in range(n):
        affine, rng = target.spec.affine.copy(), np.random.default_rng(i)
        affine[:3, 3] += rng.uniform(-5, 5, 3)
        noise = rng.normal(0, 10, target.t1.shape)
        write_nifti(scan_path(folder, f"sub-{i:02d}"), brain(noise), affine)
    return folder


def scan_path(folder: Path, participant: str) -> Path:
    """Where a participant's scan is, or should be."""
    path = folder / participant / "anat" / f"{participant}_T1w.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def brain(noise: np.ndarray | float = 0.0) -> np.ndarray:
    """The template's brain at 2 mm as a scanner might give it."""
    target = template("2mm")
    return np.where(target.brain, 500 * target.t1 + noise, 0).astype(np.float32)


def familiar(centre: float = 0.0) -> Familiarity:
    """The summary of 100 made-up scans around ``centre``, with 60 people held out."""
    rng = np.random.default_rng(0)
    features = centre + rng.normal(0, 1, (100, 128))
    held_out = Familiarity.of(features).distance(centre + rng.normal(0, 1, (60, 128)))
    return Familiarity.of(features, held_out)
