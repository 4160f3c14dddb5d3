"""A 3D vision transformer that spends nothing on air.

Dosovitskiy et al., "An Image is Worth 16x16 Words" (arXiv 2010.11929), in three dimensions. Parameter names are timm's,
so that its checkpoints map one to one. Patches in which the template has no brain are dropped before they are embedded,
in training and inference alike: 121 of 150 tokens remain at 4 mm, 242 of 512 at 3 mm.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.base import Backbone, parameters_of
from headstart.backbones.rotary import Rotary, Rotation
from headstart.brains.volumes import VolumeSpec, template

SIZES = {  # depth, width, heads: timm's tiny, small, base and large; mini is half of tiny
    "vit-mini": (6, 192, 3),
    "vit-tiny": (12, 192, 3),
    "vit-small": (12, 384, 6),
    "vit-base": (12, 768, 12),
    "vit-large": (24, 1024, 16),
}


class VisionTransformer(Backbone):
    """Pre-norm transformer over the patches that hold brain.

    Args:
        spec: the grid; its ``patch`` gives the edge of a patch in voxels.
        depth, width, heads: number of blocks, embedding dimension, attention heads.
        pool: ``avg`` pools the patch tokens (the default); ``cls`` reads the class token, as imported weights may need.
        prefix: tokens before the patches: 1 is the class token; 0 for weights that have none (VideoMAE); 5 for a class
            token and four registers (DINOv2, arXiv 2309.16588).
        rotary: the kind of rotary positions, for weights that have them (DINOv3, V-JEPA 2); the learned ones, which
            are added, then begin at zero.
        epsilon: of every LayerNorm.

    Attributes:
        tokens: (T,) int64, the patches that hold brain, as indices into the grid of patches in C order.
    """

    tokens: Tensor

    def __init__(self, spec: VolumeSpec, depth: int, width: int, heads: int, pool: str = "avg",
                 prefix: int = 1, rotary: str | None = None, epsilon: float = 1e-6) -> None:
        super().__init__()
        if pool not in ("avg", "cls") or (pool == "cls" and prefix == 0):
            raise ValueError(f"pool is 'avg', or 'cls' where there is a class token, not {pool!r}")
        self.num_features, self.pool, self.prefix, self.patch = width, pool, prefix, spec.patch
        self.grid = tuple(size // spec.patch for size in spec.shape)
        self.register_buffer("tokens", torch.from_numpy(brain_tokens(spec)), persistent=False)
        self.cls_token = nn.Parameter(torch.zeros(1, prefix, width))
        self.rotary = Rotary(rotary, self.grid, width // heads, prefix) if rotary else None
        positions = sincos_positions(self.grid, width, prefix)
        self.pos_embed = nn.Parameter(torch.zeros_like(positions) if rotary else positions)
        self.patch_embed = PatchEmbed(spec.patch, width)
        self.blocks = nn.Sequential(*(Block(width, heads, epsilon) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.apply(_initialise)
        nn.init.normal_(self.cls_token, std=1e-6)

    @property
    def num_tokens(self) -> int:
        """How many patches hold brain."""
        return len(self.tokens)

    def patches(self, volumes: Tensor) -> Tensor:
        """Volumes (n, 1, X, Y, Z) to the voxels of the patches that hold brain, (n, T, patch**3)."""
        return cut_patches(volumes, self.patch).index_select(1, self.tokens)

    def embed(self, volumes: Tensor) -> Tensor:
        """Volumes (n, 1, X, Y, Z) to patch tokens with their positions, (n, T, width), without the class token."""
        return self.patch_embed(self.patches(volumes)) + self.pos_embed.index_select(1, self.tokens + self.prefix)

    def forward_tokens(self, volumes: Tensor, keep: Tensor | None = None) -> Tensor:
        """Encoded tokens, those before the patches first.

        Args:
            volumes: (n, 1, X, Y, Z).
            keep: (n, k) int64, which of the ``num_tokens`` tokens each sample keeps; all by default.

        Returns:
            (n, prefix + k, width), after the last normalisation.
        """
        tokens = self.embed(volumes)
        if keep is not None:
            tokens = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[-1]))
        first = (self.cls_token + self.pos_embed[:, :self.prefix]).expand(tokens.shape[0], -1, -1)
        x, rotation = torch.cat([first, tokens], dim=1), self._rotation(keep)
        for block in self.blocks:
            x = block(x, rotation)
        return self.norm(x)

    def _rotation(self, keep: Tensor | None) -> Rotation | None:
        """How the tokens turn in attention; None where positions are only added."""
        if self.rotary is None:
            return None
        return self.rotary(self.tokens if keep is None else self.tokens[keep])

    def forward_features(self, volumes: Tensor) -> Tensor:
        tokens = self.forward_tokens(volumes)
        return tokens[:, self.prefix:].mean(1) if self.pool == "avg" else tokens[:, 0]

    def layer_groups(self) -> list[list[nn.Parameter]]:
        first = parameters_of(self.cls_token, self.pos_embed, self.patch_embed)
        return [first, *(parameters_of(block) for block in self.blocks), parameters_of(self.norm)]


class PatchEmbed(nn.Module):
    """Linear embedding of patches that are already cut out; ``proj`` has the shape of timm's convolution."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(1, width, patch, stride=patch)

    def forward(self, patches: Tensor) -> Tensor:  # (n, T, patch**3) -> (n, T, width)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class Attention(nn.Module):
    """Multi-head self-attention over (n, T, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(x).view(n, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            q, k = rotation(q), rotation(k)
        mixed = F.scaled_dot_product_attention(q, k, v)  # (n, heads, T, width / heads)
        return self.proj(mixed.transpose(1, 2).reshape(n, length, width))


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each with normalisation before it and a residual around it."""

    def __init__(self, width: int, heads: int, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=epsilon)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=epsilon)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        x = x + self.attn(self.norm1(x), rotation)
        return x + self.mlp(self.norm2(x))


def cut_patches(volumes: Tensor, patch: int) -> Tensor:
    """Volumes (n, 1, X, Y, Z) to the voxels of all their patches in C order, (n, patches, patch**3)."""
    gx, gy, gz = (size // patch for size in volumes.shape[2:])
    blocks = volumes.reshape(-1, gx, patch, gy, patch, gz, patch).permute(0, 1, 3, 5, 2, 4, 6)
    return blocks.reshape(-1, gx * gy * gz, patch**3)


def brain_tokens(spec: VolumeSpec) -> np.ndarray:
    """Indices, in C order, of the patches in which the template has at least one voxel of brain."""
    gx, gy, gz = (size // spec.patch for size in spec.shape)
    blocks = template(spec.name).brain.reshape(gx, spec.patch, gy, spec.patch, gz, spec.patch)
    return np.flatnonzero(blocks.any(axis=(1, 3, 5)))


def sincos_positions(grid: tuple[int, ...], width: int, prefix: int = 1) -> Tensor:
    """Sine-cosine positions of ``prefix`` tokens (zeros) and of a grid of patches, (1, prefix + patches, width).

    A third of the width codes each axis, as MAE does in 2D (arXiv 2111.06377).
    """
    per_axis = width // len(grid)
    frequency = 10000.0 ** -(torch.arange(per_axis // 2, dtype=torch.float64) / (per_axis // 2))
    axes = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in grid), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequency for axis in axes]
    table = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)
    return F.pad(table, (0, width - table.shape[1], prefix, 0)).float()[None]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, PatchEmbed):  # a linear layer in disguise
        nn.init.xavier_uniform_(module.proj.weight.view(len(module.proj.weight), -1))
        nn.init.zeros_(cast(Tensor, module.proj.bias))
