"""Pictures from image files as pseudo-volumes: what a slow camera sees of one picture, stacked along an axis.

The picture is the ground of a procedural scene without objects: it drifts, turns and zooms a little with depth, which
runs along X, Y or Z. So a 3D network learns from it without inflation.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from headstart.brains.volumes import VolumeSpec
from headstart.errors import HeadstartError
from headstart.pretraining.procedural.scenes import Window, between, layer, pose, window_of
from headstart.pretraining.procedural.textures import SIZE


def read_picture(path: Path, spec: VolumeSpec, rng: np.random.Generator) -> Tensor:
    """What each brain voxel shows, (P,) float32 in [0, 1]; ``rng`` moves the camera.

    Raises:
        HeadstartError: the file cannot be decoded.
    """
    window, axis = window_of(spec), int(rng.integers(3))
    sprite = torch.from_numpy(_grey(path)).T.flip(1)  # x to the right, y up
    both = torch.stack([sprite, torch.ones_like(sprite)])
    seen = layer(both, _camera(rng, window, axis), window.frame[axis], window.place[axis], ground=True)
    return seen[0]


def _grey(path: Path) -> np.ndarray:
    """The middle square of a picture, (SIZE, SIZE) float32."""
    try:
        with Image.open(path) as image:
            edge = min(image.size)
            left, top = ((size - edge) // 2 for size in image.size)
            square = _eight_bits(image).resize((SIZE, SIZE), Image.Resampling.BOX if edge > SIZE else
                                               Image.Resampling.BICUBIC, (left, top, left + edge, top + edge))
            return np.asarray(square, np.float32) / 255
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise HeadstartError(f"cannot be decoded ({error})", path=path, fix="Remove it, or convert it.") from error


def _eight_bits(image: Image.Image) -> Image.Image:
    """In grey; of 16 bits the upper 8, which Pillow would cut off."""
    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray((np.asarray(image).astype(np.float64) / 257).clip(0, 255).round().astype(np.uint8))
    return image.convert("L")


def _camera(rng: np.random.Generator, window: Window, axis: int) -> Tensor:
    """(frames, 6)"""
    u, depth = torch.from_numpy(rng.random(7)).float(), window.times[axis]
    scale = between(u[0], 0.8, 1.1) * torch.exp(between(u[1], -0.2, 0.2) * depth)
    x, y = (between(u[i], -0.15, 0.15) + between(u[i + 2], -0.2, 0.2) * depth for i in (2, 3))
    return pose(scale, scale, between(u[6], -0.4, 0.4) * depth, x, y)
