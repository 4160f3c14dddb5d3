"""Masked pre-training: what is hidden of a brain has to be told from the rest.

He et al., "Masked Autoencoders Are Scalable Vision Learners" (arXiv 2111.06377): a transformer's encoder meets the
visible patches only, a small decoder fills in the others, and each patch is a target in its own mean and deviation. Of
the patches only those that hold brain exist, and of their voxels only those of brain are asked for. A convolutional
network sees the volume with blocks blanked, and a light head reconstructs them from its last map (dense masking; fewer
blocks are hidden, as in SparK, arXiv 2301.03580).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.base import Backbone, ConvolutionalBackbone, parameters_of
from headstart.backbones.vit import Block, VisionTransformer, brain_tokens, cut_patches, sincos_positions
from headstart.brains.volumes import VolumeSpec
from headstart.errors import HeadstartError
from headstart.training import Batch, Terms

HIDDEN_TRANSFORMER, HIDDEN_CONVOLUTIONAL = 0.75, 0.6
DECODER_BLOCKS, DECODER_HEAD, DECODER_MAP = 2, 32, 128  # blocks; width of a head, and of the convolutional head
FLAT = 1e-3  # variance below which a patch has nothing to tell


class MaskedTransformer(nn.Module):
    """A vision transformer's encoder, and a decoder of half its width and two blocks.

    Args:
        backbone: the encoder.
        spec: its grid.
    """

    hidden = HIDDEN_TRANSFORMER
    positions: Tensor

    def __init__(self, backbone: VisionTransformer, spec: VolumeSpec) -> None:
        super().__init__()
        width = backbone.num_features // 2 // DECODER_HEAD * DECODER_HEAD
        self.backbone, self.prefix, self.num_tokens = backbone, backbone.prefix, backbone.num_tokens
        self.narrow = nn.Linear(backbone.num_features, width)
        self.unknown = nn.Parameter(0.02 * torch.randn(1, 1, width))
        positions = sincos_positions(backbone.grid, width, prefix=0)[:, backbone.tokens]
        self.register_buffer("positions", positions, persistent=False)
        self.blocks = nn.Sequential(*(Block(width, width // DECODER_HEAD) for _ in range(DECODER_BLOCKS)))
        self.norm, self.voxels = nn.LayerNorm(width), nn.Linear(width, spec.patch**3)

    def forward(self, volumes: Tensor, order: Tensor, visible: int) -> Tensor:
        """What the hidden patches look like, (n, T - visible, patch**3).

        Args:
            volumes: (n, 1, X, Y, Z).
            order: (n, T) int64, a permutation of the tokens for each sample; the first ``visible`` are seen.
        """
        seen = self.narrow(self.backbone.forward_tokens(volumes, order[:, :visible])[:, self.prefix:])
        blank = self.unknown.to(seen.dtype).expand(len(seen), order.shape[1] - visible, -1)
        x = torch.cat([seen, blank], 1) + self.positions[0, order]
        return self.voxels(self.norm(self.blocks(x)[:, visible:]))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        own = parameters_of(self.narrow, self.unknown, self.blocks, self.norm, self.voxels)
        return [*self.backbone.layer_groups(), own]


class MaskedConvolutions(nn.Module):
    """A convolutional backbone that sees blocks blanked, and a light head from its last map to patches.

    Args:
        backbone: the encoder.
        spec: its grid, whose patches are hidden and reconstructed.
    """

    hidden = HIDDEN_CONVOLUTIONAL
    tokens: Tensor

    def __init__(self, backbone: ConvolutionalBackbone, spec: VolumeSpec) -> None:
        super().__init__()
        self.backbone, self.patch = backbone, spec.patch
        self.grid = tuple(size // spec.patch for size in spec.shape)
        self.register_buffer("tokens", torch.from_numpy(brain_tokens(spec)), persistent=False)
        self.num_tokens = len(self.tokens)
        self.narrow = nn.Conv3d(backbone.num_features, DECODER_MAP, 1)
        self.mix = nn.Sequential(nn.Conv3d(DECODER_MAP, DECODER_MAP, 3, padding=1), nn.GELU())
        self.voxels = nn.Linear(DECODER_MAP, spec.patch**3)

    def forward(self, volumes: Tensor, order: Tensor, visible: int) -> Tensor:
        """As ``MaskedTransformer.forward``."""
        features = self.narrow(self.backbone.forward_map(volumes * self.window(order, visible)))
        grid = self.mix(F.interpolate(features, size=self.grid, mode="trilinear", align_corners=False))
        at_tokens = grid.flatten(2).index_select(2, self.tokens).transpose(1, 2)  # (n, T, DECODER_MAP)
        return self.voxels(chosen(at_tokens, order[:, visible:]))

    def window(self, order: Tensor, visible: int) -> Tensor:
        """(n, 1, X, Y, Z): 0 in hidden patches, else 1."""
        patches = torch.ones(len(order), int(np.prod(self.grid)), device=order.device)
        patches.scatter_(1, self.tokens[order[:, visible:]], 0)
        blocks = patches.view(-1, 1, *self.grid)
        return F.interpolate(blocks, scale_factor=self.patch, mode="nearest")

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [*self.backbone.layer_groups(), parameters_of(self.narrow, self.mix, self.voxels)]


def masked_model(backbone: Backbone, spec: VolumeSpec) -> MaskedTransformer | MaskedConvolutions:
    """The reconstructing network around ``backbone``."""
    if isinstance(backbone, VisionTransformer):
        return MaskedTransformer(backbone, spec)
    if isinstance(backbone, ConvolutionalBackbone):
        return MaskedConvolutions(backbone, spec)
    raise HeadstartError("masked pre-training does not know this kind of backbone", fix="Use --objective supervised.")


class Masked:
    """Squared error on the hidden patches' brain voxels, each patch in its own mean and deviation.

    Args:
        spec: the grid.
    """

    def __init__(self, spec: VolumeSpec) -> None:
        self.patch, self.tokens = spec.patch, torch.from_numpy(brain_tokens(spec))

    def prepare(self, model: nn.Module, targets: np.ndarray) -> None:
        """Nothing depends on the targets."""

    def __call__(self, model: nn.Module, batch: Batch) -> Terms:
        device = batch.volumes.device
        order = orders(batch.seeds, len(self.tokens)).to(device)
        visible = len(self.tokens) - round(cast(float, model.hidden) * len(self.tokens))
        said = model(batch.volumes, order, visible).float()
        patches = cut_patches(batch.volumes, self.patch)
        truth, brain = normalised(chosen(patches, self.tokens.to(device)[order[:, visible:]]))
        error = ((said - truth).square() * brain).sum((1, 2))
        return Terms(error / brain.sum((1, 2)).clamp(min=1), torch.ones_like(error))


def normalised(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Patches (n, t, v) with mean 0 and deviation 1 of their brain, and what of them is brain (0 or 1)."""
    brain = (patches != 0).float()
    count = brain.sum(2, keepdim=True).clamp(min=1)
    centred = (patches - patches.sum(2, keepdim=True) / count) * brain
    variance = centred.square().sum(2, keepdim=True) / count
    return centred / (variance + FLAT).sqrt(), brain


def orders(seeds: Sequence[int] | np.ndarray, count: int) -> Tensor:
    """A permutation of ``count`` tokens for each seed, (n, count) int64."""
    drawn = [np.random.Generator(np.random.Philox(key=[int(seed), 1])).permutation(count) for seed in seeds]
    return torch.from_numpy(np.stack(drawn))


def chosen(values: Tensor, which: Tensor) -> Tensor:
    """Of ``values`` (n, T, v) those at ``which`` (n, t): (n, t, v)."""
    return values.gather(1, which[..., None].expand(-1, -1, values.shape[-1]))
