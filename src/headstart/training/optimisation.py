"""AdamW or Muon with layer-wise learning rates, and the schedule."""

from __future__ import annotations

import math
from typing import Protocol, cast

import torch
from torch import nn

from headstart.training.muon import Muon
from headstart.training.plan import TrainingPlan


class Layered(Protocol):
    """A module that names its parameters from input to output."""

    def layer_groups(self) -> list[list[nn.Parameter]]: ...


def build_optimizer(model: nn.Module, plan: TrainingPlan) -> torch.optim.Optimizer:
    """The plan's optimiser over ``model.layer_groups()``; each group's ``scale`` multiplies the scheduled rate.

    Layer-wise decay as in BEiT (arXiv 2106.08254): the k-th group from the output learns at ``layer_decay ** k``.
    Norms, biases, tokens and positions do not decay, and are AdamW's; so is the head, whose rows are no one space.
    """
    layers = cast(Layered, model).layer_groups()
    groups: list[dict] = []
    for depth, layer in enumerate(reversed(layers)):
        for decays in (True, False):
            chosen = [p for p in layer if p.requires_grad and _is_weight(p) == decays]
            groups.append({"params": chosen, "scale": plan.layer_decay**depth, "matrices": decays and depth > 0,
                           "weight_decay": plan.weight_decay if decays else 0.0})
    groups = [group for group in groups if group["params"]]
    if plan.optimizer == "muon":
        return Muon(groups, plan.learning_rate)
    return torch.optim.AdamW(groups, lr=plan.learning_rate, fused=True)


def _is_weight(parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 or parameter.ndim > 3  # linear layers and kernels; tokens have three dimensions


def rate_factor(step: int, total: int, warmup_fraction: float) -> float:
    """Linear warm-up, then a cosine to zero: the factor on the learning rate at ``step`` (from 0) of ``total``."""
    warmup = warmup_fraction * total
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
