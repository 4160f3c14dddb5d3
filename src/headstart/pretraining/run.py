"""``headstart pretrain``: make an upstream. The result is a model folder that ``finetune --upstream`` loads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones import build_model
from headstart.environment import environment
from headstart.errors import HeadstartError
from headstart.files import cache_dir, digest_json, one_writer, read_json, write_json
from headstart.modelfolder import CONFIG, ModelConfig, save_model
from headstart.pretraining.card import card
from headstart.pretraining.config import PROCEDURAL, PretrainConfig
from headstart.pretraining.curve import Curve, peak_memory_gib
from headstart.pretraining.pool import Pool
from headstart.pretraining.procedural import write_pool
from headstart.pretraining.supervised import Supervised, agreement
from headstart.simulation.cohort import write_store
from headstart.training import History, TrainingPlan, fit, predict

VALIDATION_SHARE = 0.05
RECORD, REQUEST, TRAINING = "pretraining.json", "request.json", "training"


@dataclass(frozen=True)
class Parts:
    """Which samples are trained on, and which are held out, as indices into the pool."""

    train: np.ndarray
    held_out: np.ndarray


def pretrain(config: PretrainConfig, out: Path, *, jobs: int) -> dict[str, Any]:
    """Pre-train, resumably, into the model folder ``out``; a finished folder is left as it is.

    Returns:
        What stands in ``pretraining.json``: configuration, curve, scores, costs.
    """
    with one_writer(out):
        _claim(config, out)
        if not (out / CONFIG).exists():
            _train(config, Pool.open(pool_of(config, jobs=jobs)), out)
    return read_json(out / RECORD)


def _claim(config: PretrainConfig, out: Path) -> None:
    """Make ``out`` this configuration's folder; HeadstartError names what differs if it is another's."""
    mine = config.model_dump(mode="json")
    if not (out / REQUEST).exists():
        write_json(out / REQUEST, mine)
    other = read_json(out / REQUEST)
    if other != mine:
        differing = sorted(name for name in mine if other.get(name) != mine[name])
        raise HeadstartError(f"holds another pre-training (other {', '.join(differing)})", path=out,
                             fix="Give another --out, or remove that folder.")


def pool_of(config: PretrainConfig, *, jobs: int) -> Path:
    """The store to train on: the one given, or one in the cache, made or completed if need be."""
    if config.data is not None:
        return config.data
    if config.source in PROCEDURAL:
        kind = PROCEDURAL[config.source]
        path = _cached([kind, config.seed, config.volume, config.pool])
        return write_pool(path, kind, n=config.pool, seed=config.seed, volume=config.volume)
    if config.source != "synthetic-mri":
        raise HeadstartError("real MRI has to come from somewhere", fix="Give --data STORE (see headstart prepare).")
    design: dict[str, Any] = {
        "purpose": "upstream", "cohort": "ageing", "seed": config.seed, "generator": config.generator,
        "labelmaps": config.labelmaps, "volume": config.volume}
    return write_store(_cached([design, config.pool]), n=config.pool, jobs=jobs, **design)


def _cached(what: list) -> Path:
    return cache_dir() / "pools" / digest_json(what)


def _train(config: PretrainConfig, pool: Pool, out: Path) -> None:
    pool.check_labels()
    taught = pool.with_shuffled_labels(config.seed) if config.shuffle_labels else pool
    parts = _split(pool, config.seed)
    model = build_model(config.backbone, pool.store.spec, pool.outputs, seed=config.seed)
    curve = Curve(out / TRAINING / "curve.jsonl")
    nobody = np.empty(0, np.int64)  # no validation: every start takes the same number of steps, and its last weights
    history = fit(model, Supervised(pool.labels), taught, parts.train, nobody, plan_of(config, len(parts.train)),
                  seed=config.seed, folder=out / TRAINING, flip=config.flip, watch=curve.note)
    scores = agreement(pool.labels, predict(model, pool, parts.held_out), pool.targets[parts.held_out])
    record = _record(config, pool, history, curve, scores, parts)
    write_json(out / RECORD, record)
    _save(config, pool, model, record, out)


def _split(pool: Pool, seed: int) -> Parts:
    order = np.random.default_rng(seed).permutation(len(pool.targets))
    held = max(1, int(VALIDATION_SHARE * len(order)))
    if len(order) <= held:
        raise HeadstartError(f"{len(order)} scans are too few to pre-train on", path=pool.store.path,
                             fix="Give a larger --pool, or a store with more scans.")
    return Parts(np.sort(order[held:]), np.sort(order[:held]))


def plan_of(config: PretrainConfig, count: int) -> TrainingPlan:
    """How to train on ``count`` samples: as many whole epochs as come nearest to the budget."""
    shared = config.model_dump(include={"learning_rate", "weight_decay", "warmup_fraction", "augmentation"})
    epochs = max(1, round(config.budget_samples / count))
    return TrainingPlan(**shared, batch_size=min(config.batch_size, count), max_epochs=epochs, patience=epochs)


def _record(config: PretrainConfig, pool: Pool, history: History, curve: Curve, scores: dict[str, float | None],
            parts: Parts) -> dict[str, Any]:
    steps, losses = curve.averaged()
    seconds = sum(epoch.seconds for epoch in history.epochs)
    samples = len(history.epochs) * len(parts.train)
    return {
        "config": config.model_dump(mode="json"), "labels": [label.name for label in pool.labels],
        "held_out": {"samples": len(parts.held_out), "scores": scores},
        "cost": {"samples": samples, "steps": steps[-1], "epochs": len(history.epochs), "seconds": round(seconds, 1),
                 "hours": round(seconds / 3600, 3), "samples_per_second": round(samples / max(seconds, 1e-9), 1),
                 "peak_memory_gib": peak_memory_gib()},
        "curve": {"step": steps, "loss": losses}, "made_with": environment()}


def _save(config: PretrainConfig, pool: Pool, model, record: dict[str, Any], out: Path) -> None:
    simulated = all(stored.scan.simulated for stored in pool.store.scans)
    described = ModelConfig(
        backbone=config.backbone, num_outputs=pool.outputs, contract=pool.store.contract, upstream="scratch",
        seen=sorted({stored.scan.dataset for stored in pool.store.scans}), simulated=simulated,
        made_with=record["made_with"])
    save_model(out, model, described, card(record, simulated=simulated))
