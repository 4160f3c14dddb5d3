"""A head that begins with what the upstream could say already, at the level and slope of the scans at hand.

A start that has learnt age, say from simulated brains, has a direction among its features along which age lies. What it
says is off by years at each real site, so the direction alone is taken over; two numbers, found on the training scans,
put it on their scale. The slope is that of a ridge whose penalty weighs as much as twenty scans: few people say little
about how far to trust it elsewhere. From there on everything learns as ever, and what is kept lies halfway between this
beginning and the end: training on people of few sites unlearns some of what held at any site.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headstart.backbones.model import BrainModel
from headstart.training import Classification, Examples, History, Objective, TrainingPlan, encode, fit
from headstart.upstreams.base import Readout

PRIOR_SCANS = 20
HALFWAY = 0.5  # what the paper on it advises where nothing is known of the scans to come


def fit_aimed(model: BrainModel, readout: Readout | None, objective: Objective, examples: Examples, train: np.ndarray,
              validation: np.ndarray, plan: TrainingPlan, *, seed: int, folder: Path | None = None,
              flip: bool = False) -> History:
    """``headstart.training.fit`` from a start that may have learnt to say what is asked.

    Args:
        readout: how the start says it; None where it does not, and then this is ``fit`` and no more.

    Raises:
        Preempted, HeadstartError: as ``fit``.
    """
    aimed = readout is not None and plan.descends and aim_head(model, readout, objective, examples, train)
    start = deepcopy(model.state_dict()) if aimed else None
    history = fit(model, objective, examples, train, validation, plan, seed=seed, folder=folder, flip=flip)
    if start is not None:
        meet_halfway(model, start)
    return history


@torch.no_grad()
def aim_head(model: BrainModel, readout: Readout, objective: Objective, examples: Examples, train: np.ndarray) -> bool:
    """Set the norm of ``model`` from ``readout``, and its head where what is read rises with the training targets.

    With several targets or more than two classes there is no one direction, and nothing is set.

    Returns:
        Whether the head was set.
    """
    targets = np.asarray(examples.targets, np.float64)[train].reshape(len(train), -1)
    is_class = isinstance(objective, Classification)
    if model.num_outputs != 1 + is_class:
        return False
    objective.prepare(model, targets)
    wanted = torch.from_numpy(targets[:, 0]).float()
    wanted = 2 * wanted - 1 if is_class else (wanted - model.target_mean.cpu()) / model.target_scale.cpu()
    model.norm.load_state_dict(readout.norm)
    known = wanted.isfinite()
    said = torch.from_numpy(encode(model, examples, np.asarray(train)[known.numpy()])) @ readout.direction
    slope, level = _line(said, wanted[known])
    if slope > 0:
        sides = torch.tensor([-1.0, 1.0] if is_class else [1.0])
        model.head.weight.copy_(slope * torch.outer(sides, readout.direction))
        model.head.bias.copy_(level * sides)
    return slope > 0


@torch.no_grad()
def meet_halfway(model: BrainModel, start: dict[str, Tensor]) -> None:
    """Move the weights of ``model`` halfway back to ``start``, its state before training.

    Only for a start that could say already what is asked: between such a start and what training made of it the
    networks on the straight line are good ones, and better at sites never seen (WiSE-FT, Wortsman et al., 2022, arXiv
    2109.01903).
    """
    for name, value in model.state_dict().items():
        if value.is_floating_point():  # not what a normalisation has counted
            value.lerp_(start[name].to(value), 1 - HALFWAY)


def _line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Slope and intercept of ``y`` on ``x`` by ridge regression; slope 0 where ``x`` is constant."""
    off = x - x.mean()
    slope = float(off @ (y - y.mean()) / (off @ off).clamp(min=1e-12)) * len(x) / (len(x) + PRIOR_SCANS)
    return slope, float(y.mean()) - slope * float(x.mean())
