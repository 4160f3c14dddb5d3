"""Supervised pre-training: all labels of a pool jointly, numbers and classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.model import BrainModel
from headstart.pretraining.pool import Label
from headstart.training import Batch, Terms


class Supervised:
    """The mean over labels of Huber loss on standardised numbers and of cross-entropy, in units of pure guessing.

    Args:
        labels: the outputs of the model follow their order; each may be missing (NaN) where it will.
    """

    def __init__(self, labels: Sequence[Label]) -> None:
        self.labels = tuple(labels)

    def prepare(self, model: nn.Module, targets: np.ndarray) -> None:
        mean, scale = [], []
        for label, column in zip(self.labels, targets.T, strict=True):
            known = column[np.isfinite(column)]
            is_number = not label.classes and len(known)
            mean += [float(known.mean()) if is_number else 0.0] * label.outputs
            scale += [(float(known.std()) or 1.0) if is_number else 1.0] * label.outputs
        cast(BrainModel, model).set_target_scale(torch.tensor(mean), torch.tensor(scale))

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        scale = cast(BrainModel, model).target_scale.split(widths(self.labels))
        said = model(batch.volumes).float().split(widths(self.labels), dim=1)
        known = batch.targets.isfinite()
        targets = torch.where(known, batch.targets, 0).unbind(1)
        losses = torch.stack([_loss(*item) for item in zip(self.labels, said, targets, scale, strict=True)], 1)
        count = known.sum(1)
        return Terms((losses * known).sum(1) / count.clamp(min=1), count / known.shape[1])


def _loss(label: Label, said: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    """(b,)"""
    if label.classes:
        return F.cross_entropy(said, target.long(), reduction="none") / math.log(label.outputs)
    error = (said[:, 0] - target) / scale
    return F.huber_loss(error, torch.zeros_like(error), reduction="none")


def widths(labels: Sequence[Label]) -> list[int]:
    return [label.outputs for label in labels]


def agreement(labels: Sequence[Label], predicted: np.ndarray, truth: np.ndarray) -> dict[str, float | None]:
    """Of predictions (n, outputs) with the truth (n, labels): correlation of numbers, accuracy of classes, by label."""
    said = np.split(predicted, np.cumsum(widths(labels))[:-1], axis=1)
    return {label.name: _agreement(label, p, t) for label, p, t in zip(labels, said, truth.T, strict=True)}


def _agreement(label: Label, said: np.ndarray, truth: np.ndarray) -> float | None:
    known = np.isfinite(truth)
    said, truth = said[known], truth[known]
    if label.classes:
        return round(float((said.argmax(1) == truth).mean()), 4) if len(truth) else None
    if len(truth) < 3 or np.ptp(truth) == 0 or np.ptp(said) == 0:
        return None
    return round(float(np.corrcoef(said[:, 0], truth)[0, 1]), 4)
