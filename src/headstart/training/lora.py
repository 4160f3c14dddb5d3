"""LoRA: low-rank changes of a transformer's attention (Hu et al., arXiv 2106.09685), merged when training ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.vit import Attention
from headstart.errors import HeadstartError

RANK = 8  # section 7.2 of the paper finds little gain above 4 to 8
LAYERS = ("qkv", "proj")


class LowRank(nn.Module):
    """A linear layer and a change of rank ``RANK`` beside it, which is zero at first.

    Args:
        linear: the layer; its own weights are not trained here.
        generator: for the factor that is not zero.
    """

    def __init__(self, linear: nn.Linear, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = linear
        down = torch.randn(RANK, linear.in_features, generator=generator) / linear.in_features**0.5
        self.down = nn.Parameter(down.to(linear.weight))
        self.up = nn.Parameter(linear.weight.new_zeros(linear.out_features, RANK))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + F.linear(F.linear(x, self.down), self.up)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The layer with the change added to its weights: the same function."""
        self.linear.weight.add_(self.up @ self.down)
        return self.linear


@contextmanager
def low_rank(backbone: nn.Module, seed: int) -> Iterator[None]:
    """Within, every attention of ``backbone`` has trainable low-rank changes; at the end they are merged.

    Raises:
        HeadstartError: the backbone is no transformer.
    """
    attentions = [part for part in backbone.modules() if isinstance(part, Attention)]
    if not attentions:
        raise HeadstartError("LoRA changes the attention of transformers, and this backbone has none",
                             fix="Use --mode full, frozen or probe, or a vit backbone.")
    generator = torch.Generator().manual_seed(seed)
    for attention in attentions:
        for name in LAYERS:
            setattr(attention, name, LowRank(getattr(attention, name), generator))
    try:
        yield
    finally:
        for attention in attentions:
            for name in LAYERS:
                setattr(attention, name, getattr(attention, name).merged())
