"""A backbone with a head: what is trained, saved and asked for predictions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from headstart.backbones.base import Backbone, parameters_of


class BrainModel(nn.Module):
    """LayerNorm and a linear head on pooled features; predictions leave in the target's own units.

    Args:
        backbone: any 3D backbone.
        num_outputs: 1 per regression target, or the number of classes.

    Attributes:
        target_mean, target_scale: (num_outputs,) buffers, 0 and 1 unless a regression sets them: a saved model is
            complete, and the head itself works on standardised targets.
    """

    target_mean: Tensor
    target_scale: Tensor

    def __init__(self, backbone: Backbone, num_outputs: int) -> None:
        super().__init__()
        self.backbone, self.num_outputs = backbone, num_outputs
        self.norm = nn.LayerNorm(backbone.num_features)
        self.head = nn.Linear(backbone.num_features, num_outputs)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("target_mean", torch.zeros(num_outputs))
        self.register_buffer("target_scale", torch.ones(num_outputs))

    def forward(self, volumes: Tensor) -> Tensor:
        """Volumes (n, 1, X, Y, Z) to predictions or logits (n, num_outputs)."""
        return self.forward_head(self.normed_features(volumes))

    def normed_features(self, volumes: Tensor) -> Tensor:
        """Volumes (n, 1, X, Y, Z) to what the linear head reads, (n, num_features)."""
        return self.norm(self.backbone(volumes))

    def forward_head(self, features: Tensor) -> Tensor:
        """Normed features (n, num_features) to predictions or logits (n, num_outputs)."""
        return self.head(features) * self.target_scale + self.target_mean

    def set_target_scale(self, mean: Tensor, scale: Tensor) -> None:
        """Standardise the targets by ``mean`` and ``scale``, (num_outputs,) each."""
        self.target_mean.copy_(mean)
        self.target_scale.copy_(scale)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Parameters from input to output; the head is the last group."""
        return [*self.backbone.layer_groups(), parameters_of(self.norm, self.head)]
