"""Procedural clips: moving, turning, growing, deforming, occluding textured shapes.

After Yu et al., "Learning Video Representations without Natural Videos" (arXiv 2410.24213). Time runs along X, from
left to right, as it does when the kernels of video networks are imported (``adaptation/inflation.py``); frames are
sagittal planes, (Y, Z).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from headstart.brains.volumes import VolumeSpec
from headstart.pretraining.procedural import shapes, textures
from headstart.pretraining.procedural.scenes import Draws, between, choice, draw, dress, pose, render, rows, window_of

AXIS = 0  # time runs along X
MOTIONS = ("drifting", "accelerating", "circling", "swinging", "turning", "growing", "deforming")


def clips(seed: int, indices: np.ndarray, spec: VolumeSpec) -> tuple[np.ndarray, list[dict[str, str]]]:
    """Clips as rows of a store, with what is true of each: a pure function of (seed, index).

    Returns:
        (n, n_kept) float16, and for each clip its classes (``motion``, ``shape``, ``texture``, ``ground``) and numbers.
    """
    drawn, window = draw(seed, indices), window_of(spec)
    looks = dress(drawn)
    motion, speed, size = choice(drawn.shared[:, 8], len(MOTIONS)), drawn.shared[:, 9], drawn.shared[:, 10]
    poses = _poses(drawn, motion, speed, size, window.times[AXIS])
    image, covered = render(looks, poses, torch.full_like(motion, AXIS), window)
    labels = [{
        "motion": MOTIONS[motion[i]], "shape": list(shapes.FAMILIES)[looks.shape[i]],
        "texture": list(textures.FAMILIES)[looks.texture[i]], "ground": list(textures.FAMILIES)[looks.ground[i]],
        "speed": f"{speed[i]:.4f}", "object_size": f"{size[i]:.4f}", "objects": str(int(looks.count[i])),
        "contrast": f"{looks.contrast[i]:.4f}", "covered": f"{covered[i]:.4f}"} for i in range(len(indices))]
    return rows(image, window), labels


def _poses(drawn: Draws, motion: Tensor, speed: Tensor, size: Tensor, times: Tensor) -> Tensor:
    """(n, OBJECTS + 1, frames, 6): objects share their motion, and each goes its own way."""
    u = drawn.own[..., 1:, None].unbind(2)  # each (n, layers, 1)
    motion, pace = motion[:, None, None], between(speed, 0.4, 1.4)[:, None, None]
    swing = torch.sin(torch.pi * (1 + 1.5 * pace) * times + 2 * torch.pi * u[0])
    path = torch.zeros_like(swing)
    for number, form in enumerate((times, (times + 1) ** 2 / 2 - 1, None, swing)):
        if form is not None:
            path = torch.where(motion == number, pace * form, path)
    heading, phase = 2 * torch.pi * u[1], torch.pi * pace * times + 2 * torch.pi * u[2]
    circle = (motion == MOTIONS.index("circling")) * between(u[7], 0.25, 0.55)
    x = between(u[3], -0.45, 0.45) + 0.8 * path * torch.cos(heading) + circle * torch.cos(2 * phase)
    y = between(u[4], -0.45, 0.45) + 0.8 * path * torch.sin(heading) + circle * torch.sin(2 * phase)
    sense = torch.where(u[5] < 0.5, -1, 1)
    angle = 2 * torch.pi * u[6] + (motion == MOTIONS.index("turning")) * sense * torch.pi * pace * times
    growth = torch.exp((motion == MOTIONS.index("growing")) * sense * 0.7 * pace * times)
    stretch = torch.exp((motion == MOTIONS.index("deforming")) * 0.45 * pace * swing)
    base = between(size, 0.25, 0.7)[:, None, None] * between(u[8], 0.75, 1.25) * growth
    poses = pose(base * stretch, base / stretch, angle, x, y)
    poses[:, 0] = _ground(u, times)
    return poses


def _ground(u: tuple[Tensor, ...], times: Tensor) -> Tensor:
    """The ground drifts slowly, (n, frames, 6)."""
    x, y = (between(value[:, 0], -0.2, 0.2) * times for value in (u[9], u[10]))
    scale = between(u[11][:, 0], 0.6, 1.4)
    return pose(scale, scale, 2 * torch.pi * u[12][:, 0], x, y)
