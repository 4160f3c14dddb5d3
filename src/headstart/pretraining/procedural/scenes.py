"""Scenes: textured shapes before a textured ground, carried through time or depth, seen through the brain's window.

A scene is a stack of layers. Each is a flat picture (a sprite) and a pose for every frame; each voxel of the template's
brain looks up where in the sprite it lies. So a volume is rendered where the store keeps it and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.brains.augment import sample_seeds
from headstart.brains.volumes import VolumeSpec, template
from headstart.pretraining.procedural import shapes, textures

OBJECTS = 4  # at most
SHARED, OWN = 16, 20  # uniform numbers of a scene, and of each of its layers' poses
LOWEST, HIGHEST = -0.45, 1.6  # of the intensities, which are those of prepared brains: grey about 0.5, white about 1


@dataclass(frozen=True)
class Draws:
    """The random numbers of n scenes; layer 0 is the ground.

    Attributes:
        shared: (n, SHARED) uniform numbers.
        own: (n, OBJECTS + 1, OWN) uniform numbers.
        texture, shape: (n, OBJECTS + 1, …) uniform numbers for the families' functions.
        noise: (n, OBJECTS + 1, SIZE, SIZE) standard normal.
    """

    shared: Tensor
    own: Tensor
    texture: Tensor
    shape: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Looks:
    """What the objects of n scenes look like; each scene has one family of shapes and one of textures.

    Attributes:
        shape, texture, ground: (n,) int64, indices into the families.
        count: (n,) int64, how many objects there are.
        contrast: (n,) between the ground's level and the objects'.
        sprites: (n, OBJECTS + 1, 2, SIZE, SIZE): intensity times mask, and mask.
    """

    shape: Tensor
    texture: Tensor
    ground: Tensor
    count: Tensor
    contrast: Tensor
    sprites: Tensor


@dataclass(frozen=True)
class Window:
    """The template's brain, along each of the three axes that frames may be stacked on.

    Attributes:
        inside: (n_kept,) bool: which voxels of a store's row are brain.
        frame: (3, P) int64, the frame of each brain voxel.
        place: (3, 2, P), its place in the frame, in [-1, 1] along the grid's longest side.
        times: (3, frames), the time or depth of each frame in [-1, 1].
    """

    inside: np.ndarray
    frame: Tensor
    place: Tensor
    times: Tensor


def draw(seed: int, indices: np.ndarray) -> Draws:
    """Every scene's numbers come from its own counter-based generator."""
    layers, pixels = OBJECTS + 1, textures.SIZE**2
    sizes = [SHARED, layers * OWN, layers * textures.NUMBERS, layers * shapes.NUMBERS]
    uniform, noise = np.empty((len(indices), sum(sizes)), np.float32), np.empty((len(indices), layers * pixels), "f4")
    for row, key in enumerate(sample_seeds(seed, 0, indices)):
        rng = np.random.Generator(np.random.Philox(key=int(key)))
        rng.random(out=uniform[row], dtype=np.float32)
        rng.standard_normal(out=noise[row], dtype=np.float32)
    shared, own, texture, shape = torch.from_numpy(uniform).split(sizes, 1)
    return Draws(shared, own.view(-1, layers, OWN), texture.view(-1, layers, textures.NUMBERS),
                 shape.view(-1, layers, shapes.NUMBERS), torch.from_numpy(noise).view(-1, layers, *[textures.SIZE] * 2))


def dress(drawn: Draws) -> Looks:
    """Paint and cut out the layers of every scene."""
    u, n = drawn.shared, len(drawn.shared)
    shape, texture = choice(u[:, 0], len(shapes.FAMILIES)), choice(u[:, 1], len(textures.FAMILIES))
    ground, count = choice(u[:, 2], len(textures.FAMILIES)), 1 + choice(u[:, 3], OBJECTS)
    contrast = (u[:, 4] - 0.5) * 1.6
    of_layers = torch.cat([ground[:, None], texture[:, None].expand(n, OBJECTS)], 1)
    painted = textures.paint(of_layers.flatten(), drawn.texture.flatten(0, 1), drawn.noise.flatten(0, 1))
    mask = shapes.cut(shape.repeat_interleave(OBJECTS), drawn.shape[:, 1:].flatten(0, 1))
    mask = mask.view(n, OBJECTS, *mask.shape[1:])
    mask = torch.cat([torch.ones_like(mask[:, :1]), mask], 1)
    level = 0.3 + 0.4 * u[:, 5, None] + contrast[:, None] * (torch.arange(OBJECTS + 1) > 0)
    amplitude = 0.08 + 0.35 * drawn.own[:, :, 0]
    value = level[..., None, None] + amplitude[..., None, None] * painted.view_as(mask)
    return Looks(shape, texture, ground, count, contrast, torch.stack([value * mask, mask], 2))


def render(looks: Looks, poses: Tensor, axis: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """What each brain voxel shows.

    Args:
        looks: of n scenes.
        poses: (n, OBJECTS + 1, frames, 6), see ``pose``.
        axis: (n,) int64, the anatomical axis that the frames of each scene are stacked on.
        window: the template's brain.

    Returns:
        Intensities (n, P), and the share of the window that objects cover (n,).
    """
    image, covered = torch.empty(len(axis), window.frame.shape[1]), torch.empty(len(axis))
    for i, (stacked, count) in enumerate(zip(axis.tolist(), looks.count.tolist(), strict=True)):
        layers = [layer(looks.sprites[i, k], poses[i, k], window.frame[stacked], window.place[stacked], ground=k == 0)
                  for k in range(count + 1)]
        image[i] = layers[0][0]
        clear = torch.ones_like(image[i])  # through how many objects the ground is seen
        for value, mask in layers[1:]:
            image[i].mul_(1 - mask).add_(value)
            clear.mul_(1 - mask)
        covered[i] = 1 - clear.mean()
    return image.clamp_(LOWEST, HIGHEST), covered


def layer(sprite: Tensor, poses: Tensor, frame: Tensor, place: Tensor, *, ground: bool) -> Tensor:
    """Intensity times mask, and mask, of one layer at every voxel, (2, P)."""
    (x, y), (a, b, c, d, e, f) = place, poses.T.index_select(1, frame)
    where = torch.stack([a * x + b * y + c, d * x + e * y + f], -1)
    outside = "reflection" if ground else "zeros"  # the ground goes on for ever
    return F.grid_sample(sprite[None], where[None, None], padding_mode=outside, align_corners=True)[0, :, 0]


def pose(scale_x: Tensor, scale_y: Tensor, angle: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Poses (…, 6) of sprites that are scaled, turned, and then moved to (x, y); all arguments broadcast.

    They take places in the frame to places in the sprite: ``u = a x + b y + c`` and ``v = d x + e y + f``.
    """
    cos, sin = torch.cos(angle), torch.sin(angle)
    a, b, d, e = torch.broadcast_tensors(cos / scale_x, sin / scale_x, -sin / scale_y, cos / scale_y)
    return torch.stack(torch.broadcast_tensors(a, b, -(a * x + b * y), d, e, -(d * x + e * y)), -1)


@lru_cache(maxsize=4)
def window_of(spec: VolumeSpec) -> Window:
    """The template's brain on a grid."""
    found = template(spec.name)
    voxels = np.argwhere(found.brain)
    middle, half = (np.array(spec.shape) - 1) / 2, (max(spec.shape) - 1) / 2
    centred = torch.from_numpy((voxels - middle) / half).float()
    others = [[1, 2], [0, 2], [0, 1]]
    line = torch.arange(max(spec.shape)).float()
    times = torch.stack([(2 * line / (size - 1) - 1).clamp(max=1) for size in spec.shape])
    return Window(found.brain[found.kept], torch.from_numpy(voxels.T.copy()),
                  torch.stack([centred[:, pair].T for pair in others]), times)


def rows(image: Tensor, window: Window) -> np.ndarray:
    """Brain voxels (n, P) as rows of a store, float16 (n, n_kept): 0 outside the brain, and only there."""
    out = np.zeros((len(image), len(window.inside)), np.float16)
    out[:, window.inside] = torch.where(image.abs() < 1e-3, 1e-3, image).numpy()
    return out


def choice(uniform: Tensor, count: int) -> Tensor:
    return (uniform * count).long().clamp(max=count - 1)


def between(uniform: Tensor, low: float, high: float) -> Tensor:
    return low + (high - low) * uniform
