"""What training minimises: small objects that turn a batch into a loss per sample."""

from __future__ import annotations

from typing import NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.model import BrainModel
from headstart.errors import HeadstartError
from headstart.training.batches import Batch


class Terms(NamedTuple):
    """Loss (b,) and weight (b,) of each sample; the batch's loss is their weighted mean over all processes."""

    loss: Tensor
    weight: Tensor


class Objective(Protocol):
    """A loss. The loop knows nothing else about what is learnt."""

    def prepare(self, model: nn.Module, targets: np.ndarray) -> None:
        """Look at the training targets (n, k) once, before the first step."""
        ...

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        """The loss of each sample; weight 0 where its target is unknown."""
        ...


class Regression:
    """Huber loss on standardised targets, any number of them, each missing (NaN) where it will.

    The model needs ``set_target_scale`` and ``target_scale``, as ``BrainModel`` has them.
    """

    def prepare(self, model: nn.Module, targets: np.ndarray) -> None:
        known = np.isfinite(targets)
        if not known.any(axis=0).all():
            raise HeadstartError("a target is unknown for every training scan", fix="Choose another column.")
        scale = np.nanstd(targets, axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        cast(BrainModel, model).set_target_scale(torch.tensor(np.nanmean(targets, axis=0)), torch.tensor(scale))

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        predicted = model(batch.volumes).float()
        known = batch.targets.isfinite()
        error = torch.where(known, predicted - batch.targets, 0) / cast(BrainModel, model).target_scale
        loss = F.huber_loss(error, torch.zeros_like(error), reduction="none").sum(1)
        count = known.sum(1)
        return Terms(loss / count.clamp(min=1), count / known.shape[1])


class Classification:
    """Cross-entropy over classes 0 … k-1; every class weighs the same unless ``balanced`` is off."""

    def __init__(self, num_classes: int, *, balanced: bool = True) -> None:
        self.num_classes, self.balanced = num_classes, balanced
        self.class_weight = torch.ones(num_classes)

    def prepare(self, model: nn.Module, targets: np.ndarray) -> None:
        known = targets[np.isfinite(targets)].astype(int)
        counts = np.bincount(known, minlength=self.num_classes)
        if len(counts) > self.num_classes or not counts.all():
            raise HeadstartError(
                f"the training scans hold {np.count_nonzero(counts)} of {self.num_classes} classes",
                fix="Every class must be present among the training scans: use more scans or fewer folds.")
        if self.balanced:
            self.class_weight = torch.tensor(counts.sum() / (self.num_classes * counts), dtype=torch.float32)

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        logits = model(batch.volumes).float()
        target = batch.targets[:, 0]
        known = target.isfinite()
        target = torch.where(known, target, 0).long()
        loss = F.cross_entropy(logits, target, reduction="none")
        return Terms(loss, self.class_weight.to(loss.device)[target] * known)
