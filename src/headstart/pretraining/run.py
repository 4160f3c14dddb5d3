"""``headstart pretrain``: make an upstream. The result is a model folder that ``finetune --upstream`` loads."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.backbones import BrainModel, build_backbone, build_model
from headstart.brains.volumes import volume_spec
from headstart.environment import environment
from headstart.errors import HeadstartError
from headstart.files import one_writer, read_json, write_json
from headstart.modelfolder import CONFIG, ModelConfig, save_model
from headstart.pretraining.card import card, domain
from headstart.pretraining.config import PretrainConfig, read_config
from headstart.pretraining.curve import peak_memory_gib
from headstart.pretraining.data import check_pool, is_first, pool_of, probe_store
from headstart.pretraining.monitor import Monitor
from headstart.pretraining.objectives import OBJECTIVES, Pretext
from headstart.pretraining.pool import Pool
from headstart.pretraining.supervised import agreement
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

    Under torchrun all processes share every batch, and the first one writes.

    Args:
        config: what to learn from, with which network and objective.
        out: new, or begun with the same configuration.
        jobs: processes that simulate or render the pool.

    Returns:
        What stands in ``pretraining.json``: configuration, curve, scores, costs. Nothing in the other processes.

    Raises:
        HeadstartError: an unknown name, data that do not fit the source, or ``out`` holds another configuration.
    """
    build_backbone(config.backbone, volume_spec(config.volume))  # a wrong name is refused before a pool is made for it
    with one_writer(out) if is_first() else nullcontext():
        if is_first():
            _refuse_another(config, out)
        if not (out / CONFIG).exists():
            pool = Pool.open(pool_of(config, jobs=jobs))
            check_pool(config, pool.store)
            brains = Pool.open(probe_store(config.probe, pool.store.spec.name, jobs=jobs)) if config.probe else None
            _train(config, pool, brains, out)
        return read_json(out / RECORD) if is_first() else {}


def _refuse_another(config: PretrainConfig, out: Path) -> None:
    """HeadstartError, with what differs, if ``out`` is another configuration's folder, or another program's."""
    if not (out / REQUEST).exists():
        if (out / CONFIG).exists():
            raise HeadstartError("holds a model that pretrain did not make", path=out, fix="Give another --out.")
        return
    other = read_config(out / REQUEST, {})  # JSON is YAML; what an older version did not know has its default
    if other != config:
        differing = [name for name in PretrainConfig.model_fields if getattr(other, name) != getattr(config, name)]
        raise HeadstartError(f"holds another pre-training (other {', '.join(differing)})", path=out,
                             fix="Give another --out, or remove that folder.")


def _train(config: PretrainConfig, pool: Pool, brains: Pool | None, out: Path) -> None:
    parts = _split(pool, config)
    if config.objective == "supervised":
        pool.check_labels(parts.train)
    model = build_model(config.backbone, pool.store.spec, pool.outputs or 1, seed=config.seed)
    pretext = _pretext(config, pool, model)
    if is_first():  # from here on the folder is this configuration's: nothing can be refused any more
        write_json(out / REQUEST, config.model_dump(mode="json"))
    plan = plan_of(config, len(parts.train), pretext.augmentation)
    steps = plan.max_epochs * -(-len(parts.train) // plan.batch_size)
    monitor = Monitor(model, brains, out / TRAINING, steps)
    if is_first():
        monitor.look(0)
    nobody = parts.held_out[:0]  # no validation: every start takes the same number of steps, and its last weights
    history = fit(pretext.module, pretext.objective, pretext.examples, parts.train, nobody, plan, seed=config.seed,
                  folder=out / TRAINING, flip=config.flip, watch=monitor)
    if is_first():
        scores = held_out_scores(pool, model, parts.held_out) if config.objective == "supervised" else {}
        record = _record(config, history, monitor, scores, parts)
        write_json(out / RECORD, record)
        _save(config, pool, model, record, out)


def _split(pool: Pool, config: PretrainConfig) -> Parts:
    """Whole subjects are held out, the pieces of one clip being one; trained on is what the budget allows."""
    subjects, owner = np.unique([stored.scan.subject for stored in pool.store.scans], return_inverse=True)
    random = np.random.default_rng(config.seed)
    order = random.permutation(len(subjects))
    held = max(1, int(VALIDATION_SHARE * len(order)))
    if len(order) <= held:
        raise HeadstartError(f"{len(order)} people or clips ({len(owner)} samples) are too few to pre-train on: "
                             "some are held out", path=pool.store.path, fix="Give a larger --pool, or more data.")
    is_held = np.isin(owner, order[:held])
    train = np.flatnonzero(~is_held)
    if config.budget_samples < len(train):
        train = np.sort(random.choice(train, config.budget_samples, replace=False))
    return Parts(train, np.flatnonzero(is_held))


def _pretext(config: PretrainConfig, pool: Pool, model: BrainModel) -> Pretext:
    """What the backbone learns by; its further weights are a function of the seed as well."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + 2)
        return OBJECTIVES[config.objective](config, pool, model)


def plan_of(config: PretrainConfig, count: int, augmentation: float) -> TrainingPlan:
    """How to train on ``count`` samples: as many whole epochs as come nearest to the budget."""
    shared = config.model_dump(include={"learning_rate", "weight_decay", "warmup_fraction", "precision", "optimizer"})
    epochs = max(1, round(config.budget_samples / count))
    return TrainingPlan(**shared, augmentation=augmentation, batch_size=min(config.batch_size, count),
                        max_epochs=epochs, patience=epochs)


def held_out_scores(pool: Pool, model: BrainModel, held_out: np.ndarray) -> dict[str, float | None]:
    """Agreement of the model with the true labels of samples it was not trained on, by label."""
    return agreement(pool.labels, predict(model, pool, held_out), pool.targets[held_out])


def _record(config: PretrainConfig, history: History, monitor: Monitor, scores: dict[str, float | None],
            parts: Parts) -> dict[str, Any]:
    steps, losses = monitor.curve.averaged()
    seconds, samples = sum(epoch.seconds for epoch in history.epochs), len(history.epochs) * len(parts.train)
    return {
        "config": config.model_dump(mode="json"), "held_out": {"samples": len(parts.held_out), "scores": scores},
        "cost": {"samples": samples, "steps": steps[-1], "epochs": len(history.epochs), "seconds": round(seconds, 1),
                 "hours": round(seconds / 3600, 3), "samples_per_second": round(samples / max(seconds, 1e-9), 1),
                 "busy": round(history.busy, 3), "peak_memory_gib": peak_memory_gib()},
        "curve": {"step": steps, "loss": losses}, "looks": list(monitor.looks.read().values()),
        "warnings": _warnings(losses),
        "made_with": environment()}


def _warnings(losses: list[float]) -> list[str]:
    if losses[-1] <= losses[0]:
        return []
    return [f"the training loss rose from {losses[0]:.3g} to {losses[-1]:.3g}: nothing was learnt. Lower the learning "
            "rate, and start again in another folder."]


def _save(config: PretrainConfig, pool: Pool, model: BrainModel, record: dict[str, Any], out: Path) -> None:
    simulated = all(stored.scan.simulated for stored in pool.store.scans)
    taught = pool.output_names if config.objective == "supervised" else []
    described = ModelConfig(
        backbone=config.backbone, num_outputs=model.num_outputs, contract=pool.store.contract, upstream="scratch",
        seen=sorted({stored.scan.dataset for stored in pool.store.scans}), simulated=simulated,
        domain=domain(record["config"], simulated=simulated), outputs=taught, made_with=record["made_with"])
    save_model(out, model, described, card(record, simulated=simulated))
