"""Families of plane shapes, each a soft mask that a few uniform numbers determine."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from headstart.pretraining.procedural.textures import SIZE, Numbers, axes

NUMBERS = 6  # uniform numbers that a shape is made of
SOFTNESS = 1.5 / SIZE  # of the rim, in units of half the picture


def cut(families: Tensor, uniform: Tensor) -> Tensor:
    """Masks of the asked families: 1 inside, 0 outside, nothing at the picture's border.

    Args:
        families: (n,) int64, indices into ``FAMILIES``.
        uniform: (n, NUMBERS) in [0, 1).

    Returns:
        (n, SIZE, SIZE) float32.
    """
    out = torch.empty(len(families), SIZE, SIZE)
    for number, family in enumerate(FAMILIES.values()):
        chosen = torch.nonzero(families == number)[:, 0]
        if len(chosen):
            out[chosen] = torch.sigmoid(family(uniform[chosen, :, None, None].unbind(1)) / SOFTNESS)
    return out


# Each returns (m, SIZE, SIZE): about the distance to the rim, positive inside.


def ellipse(u: Numbers) -> Tensor:
    x, y = axes()
    return 0.8 - torch.hypot(x, y / (0.35 + 0.65 * u[0]))


def polygon(u: Numbers) -> Tensor:
    r, angle = _polar()
    sector = 2 * torch.pi / (3 + (4 * u[0]).floor())  # three to six corners
    return 0.85 * torch.cos(sector / 2) / torch.cos(torch.remainder(angle, sector) - sector / 2) - r


def star(u: Numbers) -> Tensor:
    r, angle = _polar()
    points = 4 + (5 * u[0]).floor()
    tooth = (torch.remainder(angle * points / (2 * torch.pi), 1) - 0.5).abs() * 2
    inner = 0.3 + 0.3 * u[1]
    return 0.9 * (inner + (1 - inner) * tooth) - r


def blob(u: Numbers) -> Tensor:
    r, angle = _polar()
    waves = sum(0.22 / order * (0.4 + u[order - 2]) * torch.cos(order * angle + 2 * torch.pi * u[order])
                for order in (2, 3, 4, 5))
    return 0.6 * (1 + waves) - r


def ring(u: Numbers) -> Tensor:
    r, _ = _polar()
    return 0.1 + 0.15 * u[0] - (r - 0.6).abs()


def cross(u: Numbers) -> Tensor:
    x, y = axes()
    width, length = 0.15 + 0.2 * u[0], 0.6 + 0.25 * u[1]
    upright = torch.minimum(length - x.abs(), width - y.abs())
    return torch.maximum(upright, torch.minimum(width - x.abs(), 0.85 - y.abs()))


def crescent(u: Numbers) -> Tensor:
    x, y = axes()
    bite = torch.hypot(x - 0.3 - 0.3 * u[0], y) - (0.5 + 0.2 * u[1])
    return torch.minimum(0.8 - torch.hypot(x, y), bite)


def bar(u: Numbers) -> Tensor:
    x, y = axes()
    return torch.minimum(0.9 - x.abs(), 0.12 + 0.25 * u[0] - y.abs())


FAMILIES: dict[str, Callable[[Numbers], Tensor]] = {
    family.__name__: family for family in (ellipse, polygon, star, blob, ring, cross, crescent, bar)}


def _polar() -> tuple[Tensor, Tensor]:
    """Distance from the centre and angle of every pixel, (SIZE, SIZE)."""
    x, y = axes()
    return torch.hypot(x, y), torch.atan2(y.expand(SIZE, SIZE), x.expand(SIZE, SIZE))
