"""Heads without gradient descent, on the features of a frozen backbone: a linear probe and nearest neighbours.

Each comes as a path of candidates from the most to the least regularised; the validation loss chooses. A step of the
path counts as an epoch, so that a refit without validation scans takes the step that the folds found best.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.model import BrainModel
from headstart.errors import HeadstartError
from headstart.training.batches import Batch
from headstart.training.objectives import Classification, Objective
from headstart.training.plan import Epoch, History, TrainingPlan

# From 100,000, where nothing but the mean is left even of thousands of correlated features, to 0.001.
PENALTIES = tuple(10.0 ** (5 - step / 2) for step in range(17))
NEIGHBOURS = (51, 35, 25, 15, 9, 5, 3, 1)


class Known(NamedTuple):
    """What a head learns from: standardised features (n, width), what standardised them, targets (n, k)."""

    features: Tensor
    mean: Tensor
    scale: Tensor
    targets: Tensor


class HeadOnly(nn.Module):
    """A model's head as a function of features, with the target's scale of the model."""

    target_mean: Tensor
    target_scale: Tensor

    def __init__(self, model: BrainModel, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("target_mean", model.target_mean.cpu())
        self.register_buffer("target_scale", model.target_scale.cpu())

    forward = BrainModel.forward_head


def fit_head(model: BrainModel, objective: Objective, parts: Sequence[tuple[Tensor, np.ndarray]],
             plan: TrainingPlan) -> History:
    """Give ``model`` the head of the lowest validation loss, or of step ``plan.stop_after`` where the plan says so.

    Args:
        model: its ``head`` is set: a linear layer, or ``Neighbours``.
        parts: (features, targets) of training and validation scans; (n, width) and (n, k), NaN where unknown.

    Raises:
        HeadstartError: neither validation scans nor ``stop_after`` can choose.
    """
    (features, targets), validation = parts
    if not len(validation[1]) and plan.stop_after is None:
        raise HeadstartError(f"a {plan.mode} without validation scans cannot choose its regularisation",
                             fix="Give validation scans, or stop_after.")
    objective.prepare(model, targets)
    began = time.monotonic()
    heads = list(_path(plan.mode, objective)(standardise(features, targets), model, objective))
    losses = [[_loss(HeadOnly(model, head), objective, *part) for part in parts] for head in heads]
    best = int(np.argmin([loss[1] for loss in losses])) if plan.stop_after is None else plan.stop_after - 1
    model.head = cast(nn.Linear, heads[best].to(model.target_mean.device))
    epochs = tuple(Epoch(loss[0], loss[1] if len(validation[1]) else None, 0.0, 0.0) for loss in losses)
    return History(epochs, best, len(targets) / max(time.monotonic() - began, 1e-9))


def standardise(features: Tensor, targets: np.ndarray) -> Known:
    """What a head learns from, without scans whose targets are unknown."""
    known = torch.from_numpy(np.isfinite(targets).all(1))
    mean, scale = features.mean(0), _scale(features)
    return Known((features[known] - mean) / scale, mean, scale, torch.from_numpy(targets)[known])


def _scale(features: Tensor) -> Tensor:
    """What features are divided by: their deviations, but no less than a tenth of the root mean square of all.

    A network from photographs may leave most of its features dead on brains; blown up, they would outvote the rest.
    """
    deviation = features.std(0, correction=0)
    return deviation.clamp(min=0.1 * float(deviation.square().mean().sqrt()) + 1e-12)


Path = Callable[[Known, BrainModel, Objective], Iterator[nn.Module]]


def _path(mode: str, objective: Objective) -> Path:
    if mode == "knn":
        return neighbours_path
    return logistic_path if isinstance(objective, Classification) else ridge_path


@torch.no_grad()
def _loss(model: nn.Module, objective: Objective, features: Tensor, targets: np.ndarray) -> float:
    if not len(targets):
        return math.nan
    terms = objective(model, Batch(features, torch.from_numpy(targets), np.zeros(len(targets), np.uint64)))
    return float((terms.loss * terms.weight).sum() / terms.weight.sum())


# ---------------------------------------------------------------- linear probe


def ridge_path(train: Known, model: BrainModel, objective: Objective) -> Iterator[nn.Linear]:
    """Least squares with every penalty, from one singular value decomposition; the targets are standardised."""
    targets = ((train.targets - model.target_mean.cpu()) / model.target_scale.cpu()).double()
    u, s, vt = torch.linalg.svd(train.features.double(), full_matrices=False)
    inner = u.T @ (targets - targets.mean(0))  # (axes, k)
    for penalty in PENALTIES:
        weight = (vt.T * (s / (s**2 + penalty * len(targets)))) @ inner
        yield _linear(weight.T, targets.mean(0), train)


def logistic_path(train: Known, model: BrainModel, objective: Objective) -> Iterator[nn.Linear]:
    """Multinomial logistic regression with every penalty, classes weighted as ``objective`` does."""
    from sklearn.linear_model import LogisticRegression

    features, truth = train.features.double().numpy(), train.targets[:, 0].numpy().astype(int)
    weights = objective.class_weight.double().numpy()[truth]  # type: ignore[attr-defined]
    for penalty in PENALTIES:
        found = LogisticRegression(C=1 / (penalty * len(truth)), max_iter=1000).fit(features, truth, weights)
        weight, bias = torch.from_numpy(found.coef_), torch.from_numpy(found.intercept_)
        if len(weight) == 1:  # two classes: one row, for the second
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        yield _linear(weight, bias, train)


@torch.no_grad()
def _linear(weight: Tensor, bias: Tensor, train: Known) -> nn.Linear:
    """The layer that gives on raw features what ``weight`` (k, width) and ``bias`` give on standardised ones."""
    weight = weight / train.scale
    layer = nn.Linear(weight.shape[1], len(weight))
    layer.weight.copy_(weight)
    layer.bias.copy_(bias - weight @ train.mean.double())
    return layer


# ---------------------------------------------------------------- nearest neighbours


class Neighbours(nn.Module):
    """The mean over the nearest training scans by cosine; logarithms of smoothed shares where ``outputs`` are classes.

    Args:
        train: the scans that are looked up.
        outputs: (n, k), what each of them votes for.
        count: how many are asked; all, where there are fewer.
        classes: whether the outputs are weighted classes.
    """

    mean: Tensor
    scale: Tensor
    outputs: Tensor
    known: Tensor

    def __init__(self, train: Known, outputs: Tensor, count: int, *, classes: bool) -> None:
        super().__init__()
        self.count, self.classes = min(count, len(outputs)), classes
        for name, tensor in (("mean", train.mean), ("scale", train.scale), ("outputs", outputs.float()),
                             ("known", F.normalize(train.features, dim=1))):
            self.register_buffer(name, tensor)

    def forward(self, features: Tensor) -> Tensor:
        """Features (n, width) to standardised targets or logits (n, k)."""
        likeness = F.normalize((features - self.mean) / self.scale, dim=1) @ self.known.T
        votes = self.outputs[likeness.topk(self.count).indices]  # (n, count, k)
        return (votes.sum(1) + 1).log() if self.classes else votes.mean(1)  # one vote for each class, unseen


def neighbours_path(train: Known, model: BrainModel, objective: Objective) -> Iterator[Neighbours]:
    """From many neighbours to one."""
    classes = isinstance(objective, Classification)
    outputs = (F.one_hot(train.targets[:, 0].long(), objective.num_classes) * objective.class_weight  # type: ignore
               if classes else (train.targets - model.target_mean.cpu()) / model.target_scale.cpu())
    return (Neighbours(train, outputs, count, classes=classes) for count in NEIGHBOURS)
