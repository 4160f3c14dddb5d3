"""Families of grey textures, each a function of a few uniform numbers and white noise.

What is learnt from images made by programs carries over the better the more diverse they are (Baradad et al.,
"Learning to See by Looking at Noise", arXiv 2106.05963; Kataoka et al., "Pre-training without Natural Images",
arXiv 2101.08515).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

SIZE = 64  # pixels along each side
NUMBERS = 6  # uniform numbers that a texture is made of
SITES = 14  # of the cells
ITERATIONS = 20  # of the Julia sets


def paint(families: Tensor, uniform: Tensor, noise: Tensor) -> Tensor:
    """Textures of the asked families.

    Args:
        families: (n,) int64, indices into ``FAMILIES``.
        uniform: (n, NUMBERS) in [0, 1).
        noise: (n, SIZE, SIZE), standard normal.

    Returns:
        (n, SIZE, SIZE) float32 with mean 0, about within [-1, 1].
    """
    out = torch.empty_like(noise)
    for number, family in enumerate(FAMILIES.values()):
        chosen = torch.nonzero(families == number)[:, 0]
        if len(chosen):
            out[chosen] = family(uniform[chosen, :, None, None].unbind(1), noise[chosen])
    out = out - out.mean((1, 2), keepdim=True)
    return torch.tanh(out / out.std((1, 2), keepdim=True).clamp(min=1e-3))


Numbers = tuple[Tensor, ...]  # each (m, 1, 1)


def clouds(u: Numbers, noise: Tensor) -> Tensor:
    """Noise whose amplitude falls with frequency to a power of 0.7 to 2.2; natural images have about 1."""
    return filtered(noise, 0.7 + 1.5 * u[0])


def ridges(u: Numbers, noise: Tensor) -> Tensor:
    return -filtered(noise, 1.0 + u[0]).abs()


def spots(u: Numbers, noise: Tensor) -> Tensor:
    field = filtered(noise, 1.2 + 0.4 * u[0], low=3 + 6 * u[1])
    return torch.tanh(4 * (field - u[2] + 0.3))


def stripes(u: Numbers, noise: Tensor) -> Tensor:
    wave = torch.sin(_pi(2 + 8 * u[0]) * along(u[1]) + _pi(2 * u[2]))
    return torch.tanh(wave * (1 + 4 * u[3]))


def checks(u: Numbers, noise: Tensor) -> Tensor:
    a = torch.sin(_pi(2 + 6 * u[0]) * along(u[1]) + _pi(2 * u[2]))
    b = torch.sin(_pi(2 + 6 * u[0] * (0.6 + 0.4 * u[4])) * along(u[1] + 0.5) + _pi(2 * u[3]))
    return torch.tanh(5 * a * b)


def plaids(u: Numbers, noise: Tensor) -> Tensor:
    return (torch.sin(_pi(2 + 7 * u[0]) * along(u[1])) + torch.sin(_pi(2 + 7 * u[2]) * along(u[1] + 0.3 + 0.4 * u[3]))
            + torch.sin(_pi(3 + 9 * u[4]) * along(u[5])))


def rings(u: Numbers, noise: Tensor) -> Tensor:
    x, y = axes()
    distance = torch.hypot(x - u[0] + 0.5, (y - u[1] + 0.5) * (0.5 + u[2]))
    return torch.sin(_pi(4 + 10 * u[3]) * distance)


def wood(u: Numbers, noise: Tensor) -> Tensor:
    return torch.sin(_pi(2 + 5 * u[0]) * (along(u[1]) + (0.1 + 0.4 * u[2]) * filtered(noise, 1.8)))


def cells(u: Numbers, noise: Tensor) -> Tensor:
    """Distance to the nearest of some sites, and at random the walls between cells."""
    x, y = axes()
    places = torch.tanh(noise.flatten(1)[:, : 2 * SITES]).view(-1, 2, SITES, 1, 1) * 1.3
    squared = (x - places[:, 0]).square() + (y - places[:, 1]).square()  # (m, SITES, SIZE, SIZE)
    nearest = squared.topk(2, dim=1, largest=False).values.sqrt()
    return torch.where(u[0] < 0.5, nearest[:, 0], torch.tanh(6 * (nearest[:, 1] - nearest[:, 0])))


def julia(u: Numbers, noise: Tensor) -> Tensor:
    """How fast the points of the plane escape under z² + c, with c near the rim of the Mandelbrot set's heart."""
    angle, (x, y) = _pi(2 * u[0]), axes()
    real = (0.5 * angle.cos() - 0.25 * (2 * angle).cos()) * (1.02 + 0.1 * u[1])
    imaginary = (0.5 * angle.sin() - 0.25 * (2 * angle).sin()) * (1.02 + 0.1 * u[1])
    zoom = 0.8 + 0.6 * u[2]
    x, y = x * zoom + 0 * y + 0.4 * (u[3] - 0.5), y * zoom + 0 * x
    steps = torch.zeros_like(noise)
    for _ in range(ITERATIONS):
        x, y = (x * x - y * y).add_(real).clamp_(-9, 9), (2 * x * y).add_(imaginary).clamp_(-9, 9)  # stays finite
        steps += 1 / (1 + (x * x + y * y) / 4)
    return steps


FAMILIES: dict[str, Callable[[Numbers, Tensor], Tensor]] = {
    family.__name__: family for family in (clouds, ridges, spots, stripes, checks, plaids, rings, wood, cells, julia)}


def filtered(noise: Tensor, slope: Tensor | float, low: Tensor | float = 0.0) -> Tensor:
    """Noise with amplitude 1 / frequency ** slope and little below ``low`` cycles, one standard deviation."""
    frequency = _frequencies()
    gain = frequency ** (-slope) * (1 - torch.exp(-((frequency / (low + 0.5)) ** 4)))
    field = torch.fft.irfft2(torch.fft.rfft2(noise) * gain, s=noise.shape[-2:])
    return field / field.std((1, 2), keepdim=True).clamp(min=1e-6)


def along(turns: Tensor) -> Tensor:
    """Position along a direction, ``turns`` half turns from x: (m, SIZE, SIZE)."""
    x, y = axes()
    return x * torch.cos(_pi(turns)) + y * torch.sin(_pi(turns))


@lru_cache(maxsize=1)
def axes() -> tuple[Tensor, Tensor]:
    """Coordinates of the pixels in [-1, 1]: x (SIZE, 1) and y (1, SIZE)."""
    line = torch.linspace(-1, 1, SIZE)
    return line[:, None], line[None, :]


@lru_cache(maxsize=1)
def _frequencies() -> Tensor:
    """Cycles across the picture, (SIZE, SIZE // 2 + 1); the mean counts as one cycle."""
    fx, fy = torch.fft.fftfreq(SIZE) * SIZE, torch.fft.rfftfreq(SIZE) * SIZE
    return torch.hypot(fx[:, None], fy[None, :]).clamp(min=1)


def _pi(value: Tensor) -> Tensor:
    return torch.pi * value
