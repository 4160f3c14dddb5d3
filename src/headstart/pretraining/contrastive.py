"""Contrastive pre-training: two views of a brain are alike, two brains are not, and less unlike the closer their ages.

Chen et al., "SimCLR" (arXiv 2002.05709), with the soft positives of Dufumier et al., "Contrastive Learning with
Continuous Proxy Meta-Data for 3D MRI Classification" (arXiv 2106.08808), where ages are known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.base import parameters_of
from headstart.backbones.model import BrainModel
from headstart.brains.augment import Augmentation, augment
from headstart.training import Batch, Terms

TEMPERATURE = 0.1
AGE_YEARS = 5.0  # standard deviation of the kernel on ages
WIDTH = 128  # of what is compared


class Projected(nn.Module):
    """A model's features, and the projection in which they are compared; the head stays as it is."""

    def __init__(self, model: BrainModel) -> None:
        super().__init__()
        width = model.backbone.num_features
        self.backbone, self.norm = model.backbone, model.norm
        self.projection = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, WIDTH))

    def forward(self, volumes: Tensor) -> Tensor:
        """Volumes (n, 1, X, Y, Z) to unit vectors (n, WIDTH)."""
        return F.normalize(self.projection(self.norm(self.backbone(volumes))).float(), dim=1)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [*self.backbone.layer_groups(), parameters_of(self.norm, self.projection)]


class Contrastive:
    """Cross-entropy of finding one's own second view among those of the whole batch, on all processes.

    Args:
        limits: how far each view is augmented; the volumes come unaugmented.
    """

    def __init__(self, limits: Augmentation) -> None:
        self.limits = limits

    def prepare(self, model: nn.Module, targets: np.ndarray) -> None:
        """Nothing depends on the targets."""

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        """Ages in years are the first target."""
        views = [augment(batch.volumes, np.asarray(batch.seeds) ^ np.uint64(view), self.limits) for view in (1, 2)]
        both = model(torch.cat(views)).view(2, len(batch), -1).transpose(0, 1)  # (b, 2, WIDTH)
        everyone, ages, first = gathered(both), gathered(batch.targets[:, :1])[:, 0], offset(len(batch))
        weights = likeness(ages)[first : first + len(batch)]
        loss = [_found(both[:, view], everyone[:, 1 - view], weights) for view in (0, 1)]
        return Terms(torch.stack(loss).mean(0), torch.ones(len(batch), device=both.device))


def _found(own: Tensor, others: Tensor, weights: Tensor) -> Tensor:
    """(b,) cross-entropy of (b, N) likenesses with the weights."""
    return -(F.log_softmax(own @ others.T / TEMPERATURE, dim=1) * weights).sum(1)


def likeness(ages: Tensor) -> Tensor:
    """How much each counts as another's second view, (N, N), rows sum to 1; unknown ages (NaN) are like nobody's."""
    kernel = torch.exp(-((ages[:, None] - ages[None, :]) / AGE_YEARS).square() / 2).nan_to_num(0.0)
    kernel = kernel.fill_diagonal_(1)
    return kernel / kernel.sum(1, keepdim=True)


def gathered(values: Tensor) -> Tensor:
    """The rows of all processes in order of rank, with gradients to their owners; shares may differ by one row."""
    if not _several():
        return values
    counts = _counts(len(values))
    padded = torch.cat([values, values.new_zeros(max(counts) - len(values), *values.shape[1:])])
    parts = _Gather.apply(padded)  # (processes, most, ...)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


class _Gather(torch.autograd.Function):
    """Equal shares of all processes, stacked; each gets the sum of what all processes say of its own."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, values.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]


def offset(count: int) -> int:
    """Where this process's rows begin among all."""
    return sum(_counts(count)[: dist.get_rank()]) if _several() else 0


def _counts(count: int) -> list[int]:
    found: list[int] = [0] * dist.get_world_size()
    dist.all_gather_object(found, count)
    return found


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
