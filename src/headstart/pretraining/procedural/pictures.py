"""Procedural pictures as pseudo-volumes: textures, fractals and shapes that change slowly with depth.

Depth runs along X, Y or Z at random, so that a 3D network meets pictures in every plane. Objects are closed along depth
too, some nearly extruded, some as thick as they are wide: the 3D network needs no inflation.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from headstart.brains.volumes import VolumeSpec
from headstart.pretraining.procedural import shapes, textures
from headstart.pretraining.procedural.scenes import Draws, between, choice, draw, dress, pose, render, rows, window_of

GONE = 1e-3  # size of what has closed: nothing is left of it


def pictures(seed: int, indices: np.ndarray, spec: VolumeSpec) -> tuple[np.ndarray, list[dict[str, str]]]:
    """Pictures as rows of a store, with what is true of each: a pure function of (seed, index).

    Returns:
        (n, n_kept) float16, and for each its classes (``shape``, ``texture``, ``ground``) and numbers.
    """
    drawn, window = draw(seed, indices), window_of(spec)
    looks = dress(drawn)
    axis, size, thickness = choice(drawn.shared[:, 8], 3), drawn.shared[:, 9], drawn.shared[:, 10]
    image, covered = render(looks, _poses(drawn, size, thickness, window.times[axis]), axis, window)
    labels = [{
        "shape": list(shapes.FAMILIES)[looks.shape[i]], "texture": list(textures.FAMILIES)[looks.texture[i]],
        "ground": list(textures.FAMILIES)[looks.ground[i]], "object_size": f"{size[i]:.4f}",
        "thickness": f"{thickness[i]:.4f}", "objects": str(int(looks.count[i])),
        "contrast": f"{looks.contrast[i]:.4f}", "covered": f"{covered[i]:.4f}"} for i in range(len(indices))]
    return rows(image, window), labels


def _poses(drawn: Draws, size: Tensor, thickness: Tensor, depth: Tensor) -> Tensor:
    """(n, OBJECTS + 1, frames, 6): every layer drifts, turns and zooms a little with depth."""
    u, depth = drawn.own[..., 1:, None].unbind(2), depth[:, None]
    half = between(thickness, 0.4, 2.0)[:, None, None]
    closing = (1 - ((depth - between(u[0], -0.5, 0.5)) / half) ** 2).clamp(min=GONE**2).sqrt()
    scale = between(size, 0.3, 0.8)[:, None, None] * between(u[1], 0.75, 1.25)
    scale = torch.cat([between(u[1][:, :1], 0.6, 1.4).expand_as(closing[:, :1]), (scale * closing)[:, 1:]], 1)
    scale = scale * torch.exp(between(u[2], -0.2, 0.2) * depth)
    angle = 2 * torch.pi * u[3] + between(u[4], -0.5, 0.5) * depth
    x, y = (between(u[i], -0.5, 0.5) + between(u[i + 2], -0.25, 0.25) * depth for i in (5, 6))
    return pose(scale, scale, angle, x, y)
