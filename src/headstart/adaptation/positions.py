"""Position embeddings on another grid: 2D or (T, H, W) tables become (X, Y, Z).

The axes map as they stand: T to X, H to Y, W to Z. A 2D network reads sagittal slices; X, left to right, is its depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt, prod
from typing import ClassVar

import torch
from torch import Tensor

from headstart.adaptation.interpolation import resize
from headstart.adaptation.steps import State, Step, Target, fetch
from headstart.errors import HeadstartError

AXES = "T to X, H to Y, W to Z"


@dataclass(frozen=True)
class ResizePositions(Step):
    """Resample learned positions to the network's grid; tokens before the patches keep theirs.

    Args:
        source: the grid in the file, (T, H, W) or (H, W); None where it is square and in the plane.
        key: (1, P + patches, width), in C order of the grid.
        prefix: P, the tokens before the patches that have a row in the file.
    """

    source: tuple[int, ...] | None = None
    key: str = "pos_embed"
    prefix: int = 1
    exact: ClassVar[bool] = False

    @property
    def name(self) -> str:
        grid = "square" if self.source is None else "×".join(map(str, self.source))
        return f"positions from a {grid} grid"

    def __call__(self, state: State, target: Target) -> State:
        positions = fetch(state, self.key, self)
        grid, rows = self._grid(target), target.shape(self.key)[1]
        first, patches = positions[:, :self.prefix], positions[0, self.prefix:]
        table = resize_positions(patches.reshape(*self._source(len(patches)), -1), grid)
        resized = torch.cat([_padded(first, rows - prod(grid)), table.reshape(1, prod(grid), -1)], dim=1)
        return {**state, self.key: positions if torch.equal(resized, positions) else resized}

    def _grid(self, target: Target) -> tuple[int, ...]:
        if target.grid is None:
            raise HeadstartError("the network has no grid of patches", fix="Choose a ViT backbone for these weights.")
        return target.grid

    def _source(self, patches: int) -> tuple[int, ...]:
        source = self.source or (isqrt(patches), isqrt(patches))
        if prod(source) != patches:
            raise HeadstartError(f"'{self.key}' holds {patches} positions, which is not {'×'.join(map(str, source))}",
                                 fix="Check that the file is the one this recipe is for.")
        return source


def _padded(first: Tensor, rows: int) -> Tensor:
    """Rows of the tokens before the patches; a token that has none in the source stands at zero."""
    missing = torch.zeros(1, max(rows - first.shape[1], 0), first.shape[2], dtype=first.dtype)
    return torch.cat([first, missing], dim=1)


def resize_positions(table: Tensor, grid: tuple[int, ...]) -> Tensor:
    """A table (H, W, width) or (T, H, W, width) on the grid (X, Y, Z), (X, Y, Z, width).

    A 2D table says nothing of depth. It gets the mean profile of its rows along depth, centred: depths can be told
    apart, by vectors that the source knows, and the mean over depth is the source's own table.
    """
    if table.ndim == 4:
        return resize(table, dict(enumerate(grid)))
    plane = resize(table, {0: grid[1], 1: grid[2]})
    profile = resize(table.mean(1), {0: grid[0]})  # (X, width)
    return plane[None] + (profile - profile.mean(0))[:, None, None]


@dataclass(frozen=True)
class JoinSpaceTimePositions(Step):
    """Separate positions of time and of the plane, which MAE-ST adds up (arXiv 2205.09113), become one table.

    Args:
        time: key of the positions in time, (1, T, width).
        plane: in the plane, (1, H*W, width).
        first: of the class token, (1, 1, width).
        key: where the sum goes, (1, 1 + T*H*W, width).
    """

    time: str = "pos_embed_temporal"
    plane: str = "pos_embed_spatial"
    first: str = "pos_embed_class"
    key: str = "pos_embed"
    exact: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "join positions of time and plane"

    def __call__(self, state: State, target: Target) -> State:
        time, plane, first = (fetch(state, key, self) for key in (self.time, self.plane, self.first))
        table = (time[:, :, None] + plane[:, None]).flatten(1, 2)
        rest = {key: tensor for key, tensor in state.items() if key not in (self.time, self.plane, self.first)}
        return {**rest, self.key: torch.cat([first, table], dim=1)}


@dataclass(frozen=True)
class AddSinusoidPositions(Step):
    """Write out the fixed sinusoids that VideoMAE computes and does not save (arXiv 2203.12602).

    Args:
        grid: (T, H, W) of the source; the sinusoid runs over its flattened index.
        key: where the table goes, (1, T*H*W, width).
        like: a tensor whose first dimension is the width.
    """

    grid: tuple[int, ...]
    key: str = "pos_embed"
    like: str = "patch_embed.proj.weight"
    exact: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "fixed sinusoid positions"

    def __call__(self, state: State, target: Target) -> State:
        width = len(fetch(state, self.like, self))
        return {**state, self.key: sinusoid_table(prod(self.grid), width)[None]}


def sinusoid_table(length: int, width: int) -> Tensor:
    """Interleaved sines and cosines of the index, (length, width) float32 (Vaswani et al., arXiv 1706.03762)."""
    rate = 10000.0 ** (-2 * torch.arange(width // 2, dtype=torch.float64) / width)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).reshape(length, width).float()
