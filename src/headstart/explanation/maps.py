"""Maps of what moves an answer: smoothed gradients, occlusion, and where a transformer's attention flows.

They show what the network reacts to, not what causes a disease or ageing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.backbones.model import BrainModel
from headstart.backbones.vit import Attention, VisionTransformer
from headstart.brains.volumes import VolumeSpec
from headstart.errors import HeadstartError

COPIES, NOISE = 16, 0.10  # of SmoothGrad; noise relative to the scan's range, as its authors advise
CUBE_MM, STRIDE_MM = 24.0, 12.0
BATCH = 32


def explain(method: str, model: BrainModel, volume: Tensor, spec: VolumeSpec, output: int = 0) -> np.ndarray:
    """How much each place matters for one output of one scan.

    Args:
        method: ``gradient`` (SmoothGrad, arXiv 1706.03825), ``occlusion`` (arXiv 1311.2901) or ``attention`` (rollout,
            arXiv 2005.00928; vision transformers only).
        model: a finished model; it is put into evaluation mode.
        volume: (1, 1, X, Y, Z), as the model is given it.
        spec: its grid.
        output: index of the output: 0 of a regression, or the class.

    Returns:
        float32 (X, Y, Z), 0 outside the brain. ``gradient``: at least 0, change of the output for a change of a voxel's
        intensity. ``occlusion``: change of the output when the place is replaced by the brain's mean, in the output's
        unit; negative where the place raises it. ``attention``: at least 0, summing to 1.

    Raises:
        HeadstartError: there is no such method, or the backbone has no attention.
    """
    if method not in METHODS:
        raise HeadstartError(f"unknown kind of map '{method}'", fix=f"Choose one of: {', '.join(METHODS)}.")
    model.eval()
    found = METHODS[method](model, volume, spec, output)
    return np.where(volume[0, 0].numpy() != 0, found, 0).astype(np.float32)


def _gradient(model: BrainModel, volume: Tensor, spec: VolumeSpec, output: int) -> np.ndarray:
    """Mean magnitude of the gradient over noisy copies (SmoothGrad, arXiv 1706.03825), the same ones every time."""
    generator = torch.Generator().manual_seed(0)
    brain = volume != 0
    total, spread = torch.zeros_like(volume), NOISE * float(volume.max() - volume.min())
    for _ in range(COPIES):
        noisy = (volume + spread * torch.randn(volume.shape, generator=generator) * brain).requires_grad_()
        (gradient,) = torch.autograd.grad(model(noisy)[0, output], noisy)
        total += gradient.abs()
    return (total / COPIES)[0, 0].numpy()


def _occlusion(model: BrainModel, volume: Tensor, spec: VolumeSpec, output: int) -> np.ndarray:
    """Output with a cube at the brain's mean intensity, less the output as it is (Zeiler and Fergus, arXiv 1311.2901),
    averaged over the cubes that hold a voxel."""
    brain = volume[0, 0] != 0
    mean = volume[0, 0][brain].mean()
    total, count = torch.zeros(spec.shape), torch.zeros(spec.shape)
    cubes = [cube for cube in _cubes(spec) if brain[cube].any()]
    with torch.inference_mode():
        whole = model(volume)[0, output]
        for start in range(0, len(cubes), BATCH):
            part = cubes[start : start + BATCH]
            hidden = volume.repeat(len(part), 1, 1, 1, 1)
            for copy, cube in zip(hidden, part):
                copy[0][cube] = torch.where(brain[cube], mean, 0.0)
            for change, cube in zip(model(hidden)[:, output] - whole, part):
                total[cube] += change
                count[cube] += 1
    return (total / count.clamp(min=1)).numpy()


def _cubes(spec: VolumeSpec) -> list[tuple[slice, ...]]:
    """Overlapping cubes that cover the grid."""
    edge, stride = (max(1, round(mm / spec.spacing_mm)) for mm in (CUBE_MM, STRIDE_MM))
    starts = [[*range(0, max(size - edge, 0), stride), max(size - edge, 0)] for size in spec.shape]
    return [tuple(slice(a, a + edge) for a in (x, y, z)) for x in starts[0] for y in starts[1] for z in starts[2]]


def _attention(model: BrainModel, volume: Tensor, spec: VolumeSpec, output: int) -> np.ndarray:
    """Attention rollout (Abnar and Zuidema, arXiv 2005.00928) from the pooled tokens back to the patches."""
    backbone = model.backbone
    if not isinstance(backbone, VisionTransformer):
        raise HeadstartError("this model has no attention to look at", fix="Choose --explain gradient or occlusion.")
    flow: Tensor | None = None
    for weights in _attention_weights(backbone, volume):
        step = 0.5 * weights + 0.5 * torch.eye(len(weights))
        flow = step if flow is None else step @ flow
    assert flow is not None
    pooled = flow[backbone.prefix:].mean(0) if backbone.pool == "avg" else flow[0]
    spread = _on_grid(pooled[backbone.prefix:], backbone, spec) * (volume[0, 0] != 0)
    return (spread / spread.sum().clamp(min=1e-12)).numpy()


def _attention_weights(backbone: VisionTransformer, volume: Tensor) -> list[Tensor]:
    """Each block's attention (T, T), averaged over heads; rows sum to 1."""
    found: list[Tensor] = []

    def keep(module: Attention, arguments: tuple, _output: Tensor) -> None:
        x, rotation = (*arguments, None)[:2]
        n, length, width = x.shape
        q, k, _ = module.qkv(x).view(n, length, 3, module.heads, width // module.heads).permute(2, 0, 3, 1, 4)
        if rotation is not None:
            q, k = rotation(q), rotation(k)
        found.append((q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1).mean(1)[0])

    handles = [block.attn.register_forward_hook(keep) for block in backbone.blocks]  # type: ignore[union-attr,arg-type]
    try:
        with torch.inference_mode():
            backbone(volume)
    finally:
        for handle in handles:
            handle.remove()
    return [weights.clone() for weights in found]


def _on_grid(tokens: Tensor, backbone: VisionTransformer, spec: VolumeSpec) -> Tensor:
    """A number for each patch that holds brain, spread over voxels (X, Y, Z)."""
    patches = torch.zeros(int(np.prod(backbone.grid))).index_copy(0, backbone.tokens, tokens)
    return F.interpolate(patches.view(1, 1, *backbone.grid), size=spec.shape, mode="trilinear")[0, 0]


METHODS: dict[str, Callable[[BrainModel, Tensor, VolumeSpec, int], np.ndarray]] = {
    "gradient": _gradient, "occlusion": _occlusion, "attention": _attention}
"""Kinds of maps by name; see ``explain``."""
