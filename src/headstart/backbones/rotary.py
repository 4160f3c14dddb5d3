"""Rotary positions (Su et al., arXiv 2104.09864) as DINOv3 and V-JEPA 2 use them, on a grid of patches in 3D.

Queries and keys are turned by angles that depend on where a patch lies, so that attention sees relative positions.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, prod
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Layout(NamedTuple):
    """How a head's components turn: the angle (patches, width) of each, and which pairs turn together.

    Attributes:
        angles: in radians, patches in C order of the grid.
        first: (pairs,) the first component of each pair; components in no pair stay.
        second: (pairs,) the second one.
    """

    angles: Tensor
    first: Tensor
    second: Tensor


def dinov3_layout(grid: tuple[int, ...], width: int) -> Layout:
    """DINOv3's rotation (arXiv 2508.10104) by Y and Z, from the middle of the grid; X does not turn.

    A network of photographs knows a plane: on one sagittal slice this is its own rotation, to the last digit.
    """
    periods = 100.0 ** (torch.arange(width // 4, dtype=torch.float64) * 4 / width)
    _, y, z = ((2 * axis + 1) / size - 1 for axis, size in zip(_axes(grid), grid, strict=True))  # -1 … 1
    angles = torch.cat([2 * pi * axis[:, None] / periods for axis in (y, z)], dim=1)  # (patches, width / 2)
    return Layout(angles.repeat(1, 2), torch.arange(width // 2), torch.arange(width // 2, width))


def vjepa2_layout(grid: tuple[int, ...], width: int) -> Layout:
    """V-JEPA 2's rotation (arXiv 2506.09985): a third of the components each for X, Y and Z, by whole patches.

    Neighbouring components are a pair, and yet the list of frequencies is repeated, not interleaved: as published.
    """
    third = 2 * (width // 3 // 2)
    rate = 10000.0 ** -(torch.arange(third // 2, dtype=torch.float64) * 2 / third)
    angles = torch.cat([(axis[:, None] * rate).repeat(1, 2) for axis in _axes(grid)], dim=1)
    pairs = torch.arange(0, 3 * third, 2)
    return Layout(nn.functional.pad(angles, (0, width - 3 * third)), pairs, pairs + 1)


LAYOUTS: dict[str, Callable[[tuple[int, ...], int], Layout]] = {"dinov3": dinov3_layout, "vjepa2": vjepa2_layout}


def _axes(grid: tuple[int, ...]) -> list[Tensor]:
    """The index of every patch along each axis, (patches,) float64 each."""
    return [axis.flatten().double() for axis in torch.meshgrid(*map(torch.arange, grid), indexing="ij")]


class Rotation(NamedTuple):
    """What turns queries and keys: x * cosine + x[partner] * sine, with the partner's sign in the sine.

    Attributes:
        cosine, sine: (T, width), or (n, 1, T, width) where samples keep other tokens.
        partner: (width,) the component that each is mixed with.
    """

    cosine: Tensor
    sine: Tensor
    partner: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Queries or keys (n, heads, T, width), turned."""
        return (x * self.cosine + x.index_select(-1, self.partner) * self.sine).to(x.dtype)


class Rotary(nn.Module):
    """The rotation of every patch of a grid; tokens before the patches do not turn.

    Args:
        kind: a name in ``LAYOUTS``.
        grid: patches along (X, Y, Z).
        width: components of a head.
        prefix: tokens before the patches.
    """

    cosine: Tensor
    sine: Tensor
    partner: Tensor

    def __init__(self, kind: str, grid: tuple[int, ...], width: int, prefix: int) -> None:
        super().__init__()
        angles, first, second = LAYOUTS[kind](grid, width)
        sine, partner = torch.zeros_like(angles), torch.arange(width)
        sine[:, first], sine[:, second] = -angles[:, first].sin(), angles[:, second].sin()
        partner[first], partner[second] = second, first
        still = angles.new_zeros(prefix, width)
        self.prefix, self.patches = prefix, prod(grid)
        self.register_buffer("cosine", torch.cat([still + 1, angles.cos()]).float(), persistent=False)
        self.register_buffer("sine", torch.cat([still, sine]).float(), persistent=False)
        self.register_buffer("partner", partner, persistent=False)

    def forward(self, tokens: Tensor) -> Rotation:
        """The rotation of the tokens before the patches and of the patches ``tokens``, (T,) or (n, T) indices."""
        first = torch.arange(self.prefix, device=tokens.device).expand(*tokens.shape[:-1], -1)
        rows = torch.cat([first, tokens + self.prefix], dim=-1)
        cosine, sine = self.cosine[rows], self.sine[rows]
        if tokens.ndim == 2:  # for all heads
            cosine, sine = cosine[:, None], sine[:, None]
        return Rotation(cosine, sine, self.partner)
