"""``headstart pretrain``: make an upstream. The result is a model folder that ``finetune --upstream`` loads."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.backbones import BrainModel, build_model
from headstart.environment import environment
from headstart.errors import HeadstartError
from headstart.files import cache_dir, digest_json, one_writer, read_json, write_json
from headstart.modelfolder import CONFIG, ModelConfig, save_model
from headstart.pretraining.card import card
from headstart.pretraining.config import PROCEDURAL, PretrainConfig
from headstart.pretraining.curve import peak_memory_gib
from headstart.pretraining.monitor import Monitor, probe_brains
from headstart.pretraining.objectives import OBJECTIVES, Pretext
from headstart.pretraining.pool import Pool
from headstart.pretraining.procedural import write_pool
from headstart.pretraining.supervised import agreement
from headstart.simulation.cohort import write_store
from headstart.training import History, TrainingPlan, fit, predict

VALIDATION_SHARE = 0.05
RECORD, REQUEST, TRAINING, READY = "pretraining.json", "request.json", "training", "ready"
NOBODY = np.empty(0, np.int64)


@dataclass(frozen=True)
class Parts:
    """Which samples are trained on, and which are held out, as indices into the pool."""

    train: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True)
class Data:
    """What a run reads: the pool, and the brains of its probe."""

    pool: Pool
    brains: Pool | None


def pretrain(config: PretrainConfig, out: Path, *, jobs: int) -> dict[str, Any]:
    """Pre-train, resumably, into the model folder ``out``; a finished folder is left as it is.

    Under torchrun all processes share every batch, and the first one writes.

    Returns:
        What stands in ``pretraining.json``: configuration, curve, scores, costs.
    """
    first = int(os.environ.get("RANK", "0")) == 0
    with one_writer(out) if first else nullcontext():
        if first:
            _claim(config, out)
        if not (out / CONFIG).exists():
            _train(config, _data(config, out, jobs=jobs, first=first), out, first=first)
    return read_json(out / RECORD) if first else {}
