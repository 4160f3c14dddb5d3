"""``headstart pretrain``: make an upstream. The result is a model folder that ``finetune --upstream`` loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones import build_model
from headstart.environment import environment
from headstart.errors import HeadstartError
from headstart.files import cache_dir, digest_json, one_writer, read_json, write_json
from headstart.modelfolder import CONFIG, ModelConfig, save_model
from headstart.pretraining.supervised import Pool
from headstart.simulation.cohort import write_store
from headstart.training import History, Regression, TrainingPlan, fit, predict

VALIDATION_SHARE = 0.05
HISTORY, REQUEST = "pretraining.json", "request.json"

_CARD = """# {backbone}, pre-trained on {kind}

A start for `headstart finetune --upstream`, not a finished model. {epochs} epochs over {scans} scans, {seconds:.0f} s.
Correlation with the truth on held-out scans of the same kind:

| target | r |
| --- | --- |
{rows}
"""


@dataclass(frozen=True)
class PretrainRequest:
    """What is asked for; each field is an option of ``headstart pretrain``.

    Attributes:
        data: a store of labelled scans; simulated into the cache when None.
        pool: how many brains to simulate then.
        budget_samples: training samples in all, over as many epochs as the pool needs.
    """

    backbone: str
    budget_samples: int
    data: Path | None = None
    generator: str = "anatomy"
    labelmaps: Path | None = None
    volume: str = "4mm"
    pool: int = 4000
    learning_rate: float = 2e-3
    seed: int = 0


def pretrain(request: PretrainRequest, out: Path, *, jobs: int) -> Path:
    """Pre-train, resumably, into the model folder ``out``; a finished folder is left as it is."""
    with one_writer(out):
        _claim(request, out)
        if not (out / CONFIG).exists():
            pool = Pool.open(request.data or simulated_pool(request, jobs=jobs))
            _train(request, pool, out)
    return out


def _claim(request: PretrainRequest, out: Path) -> None:
    """Make ``out`` this request's folder; HeadstartError names what differs if it is another's."""
    mine = {name: str(value) for name, value in asdict(request).items()}
    if not (out / REQUEST).exists():
        write_json(out / REQUEST, mine)
    other = read_json(out / REQUEST)
    if other != mine:
        differing = sorted(name for name in mine if other.get(name) != mine[name])
        raise HeadstartError(f"holds another pre-training (other {', '.join(differing)})", path=out,
                             fix="Give another --out, or remove that folder.")


def simulated_pool(request: PretrainRequest, *, jobs: int) -> Path:
    """The store of simulated brains of this request, in the cache; made or completed if need be."""
    design: dict[str, Any] = {
        "purpose": "upstream", "cohort": "ageing", "seed": request.seed, "generator": request.generator,
        "labelmaps": request.labelmaps, "volume": request.volume}
    path = cache_dir() / "pools" / digest_json([design, request.pool])
    return write_store(path, n=request.pool, jobs=jobs, **design)


def _train(request: PretrainRequest, pool: Pool, out: Path) -> None:
    order = np.random.default_rng(request.seed).permutation(len(pool.targets))
    held = max(1, int(VALIDATION_SHARE * len(order)))
    validation, train = np.sort(order[:held]), np.sort(order[held:])
    if not len(train):
        raise HeadstartError(f"{len(order)} scans are too few to pre-train on", path=pool.store.path,
                             fix="Give a larger --pool, or a store with more scans.")
    model = build_model(request.backbone, pool.store.spec, len(pool.names), seed=request.seed)
    epochs = max(1, round(request.budget_samples / len(train)))
    plan = TrainingPlan(learning_rate=request.learning_rate, batch_size=min(32, len(train)), max_epochs=epochs,
                        patience=epochs)
    history = fit(model, Regression(), pool, train, validation, plan, seed=request.seed, folder=out / "training",
                  flip=True)
    held_out = _agreement(pool.names, predict(model, pool, validation), pool.targets[validation])
    write_json(out / HISTORY, {"targets": list(pool.names), "held_out_r": held_out, "history": history.to_json()})
    _save(request, pool, model, history, held_out, out)


def _agreement(names: Sequence[str], predicted: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    """Correlation of prediction and truth on held-out brains, by target."""
    found = {}
    for name, p, t in zip(names, predicted.T, truth.T, strict=True):
        known = np.isfinite(t)
        enough = known.sum() > 2 and np.ptp(t[known]) > 0 and np.ptp(p[known]) > 0
        found[name] = round(float(np.corrcoef(p[known], t[known])[0, 1]), 4) if enough else None
    return found


def _save(request: PretrainRequest, pool: Pool, model, history: History, held_out: dict, out: Path) -> None:
    simulated = all(stored.scan.simulated for stored in pool.store.scans)
    config = ModelConfig(backbone=request.backbone, num_outputs=len(pool.names), contract=pool.store.contract,
                         upstream="scratch", seen=sorted({stored.scan.dataset for stored in pool.store.scans}),
                         simulated=simulated, made_with=environment())
    kind = "simulated brains; no real scan was seen" if simulated else "real scans"
    rows = "\n".join(f"| {name} | {'–' if r is None else format(r, '.2f')} |" for name, r in held_out.items())
    card = _CARD.format(backbone=request.backbone, kind=kind, epochs=len(history.epochs), scans=len(pool.targets),
                        seconds=sum(epoch.seconds for epoch in history.epochs), rows=rows)
    save_model(out, model, config, card)
