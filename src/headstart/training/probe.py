"""A linear probe: the backbone is frozen, its features are computed once, and only a linear head is trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from headstart.backbones.model import BrainModel
from headstart.training.batches import Examples
from headstart.training.devices import launch
from headstart.training.objectives import Objective
from headstart.training.plan import History, TrainingPlan


@dataclass(frozen=True)
class Features:
    """Examples whose volumes are feature vectors already."""

    targets: np.ndarray
    features: Tensor  # (n, num_features)

    def volumes(self, indices: np.ndarray) -> Tensor:
        return self.features[torch.from_numpy(np.asarray(indices))]


class Probe(nn.Module):
    """The head of a model alone; its tensors are the model's own."""

    target_mean: Tensor
    target_scale: Tensor

    def __init__(self, model: BrainModel) -> None:
        super().__init__()
        self.head = model.head
        self.register_buffer("target_mean", model.target_mean)
        self.register_buffer("target_scale", model.target_scale)

    forward = BrainModel.forward_head
    set_target_scale = BrainModel.set_target_scale

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [list(self.head.parameters())]


def fit_probe(model: BrainModel, objective: Objective, examples: Examples, train: np.ndarray, validation: np.ndarray,
              plan: TrainingPlan, *, seed: int, folder: Path | None) -> History:
    """Train the head on standardised features, then fold the standardisation into it."""
    from headstart.training.loop import encode, fit

    model.to(launch().device)
    used = np.concatenate([train, validation]).astype(np.int64)
    features = torch.from_numpy(encode(model, examples, used))
    mean, scale = features[: len(train)].mean(0), features[: len(train)].std(0, correction=0) + 1e-6
    standardised = Features(np.asarray(examples.targets)[used], (features - mean) / scale)
    inner = plan.model_copy(update={"mode": "full", "augmentation": 0.0})
    rows = np.arange(len(used))
    history = fit(Probe(model), objective, standardised, rows[: len(train)], rows[len(train):], inner, seed=seed,
                  folder=folder)
    _fold(model.head, mean.to(model.head.weight.device), scale.to(model.head.weight.device))
    return history


@torch.no_grad()
def _fold(head: nn.Linear, mean: Tensor, scale: Tensor) -> None:
    """Make ``head`` give on raw features what it gave on standardised ones."""
    head.weight.div_(scale)
    head.bias.sub_(head.weight @ mean)
