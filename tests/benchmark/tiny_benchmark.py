"""A benchmark small enough to be run, killed and run again in a test, and starts to put into it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import yaml

HEADSTART = [sys.executable, "-m", "headstart.cli"]
TINY: dict[str, Any] = {
    "name": "tiny", "seeds": 2, "train_sizes": ["full"],
    "training": {"epochs": 2, "learning_rates": [0.001]},
    "tasks": [{"task": "brain-age", "store": "$TINY_STORE", "outside_sites": ["c"]}],
    "rows": [{"backbone": "cnn-small", "upstream": "scratch"},
             {"backbone": "cnn-small", "upstream": "synthetic-mri"},
             {"backbone": "vit-mini", "upstream": "scratch", "mode": "probe"}],
}


def write_config(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(TINY | changes), encoding="utf-8")
    return path


def write_start(folder: Path, seed: int = 5) -> Path:
    """Starts as they are shipped, from random weights."""
    from headstart.backbones import build_model
    from headstart.brains.contract import Contract
    from headstart.modelfolder import ModelConfig, save_model

    contract = Contract(volume="4mm")
    model = build_model("cnn-small", contract.spec, 1, seed=seed)
    save_model(folder / "synthetic-mri" / "cnn-small-4mm", model,
               ModelConfig(backbone="cnn-small", num_outputs=1, contract=contract, simulated=True), "made up")
    return folder


def environment(starts: Path) -> dict[str, str]:
    return {**os.environ, "HEADSTART_STARTS": str(starts), "OMP_NUM_THREADS": "1"}
