"""Kernels of another size: plain linear resampling, and the pseudo-inverse of FlexiViT (arXiv 2212.08013)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from headstart.adaptation.interpolation import apply_along, resize, resize_matrix
from headstart.adaptation.steps import State, Step, Target, fetch

Method = Literal["pseudo-inverse", "linear"]


@dataclass(frozen=True)
class ResizeKernel(Step):
    """Bring a patch (or tubelet) kernel to the size that the network has, along every spatial axis.

    Args:
        key: the kernel, (out, in, *size).
        method: ``pseudo-inverse`` makes the response to a resized patch equal the response to the patch itself,
            exactly when enlarging and in the least-squares sense when shrinking; ``linear`` resamples the kernel
            and scales it by the change of volume, so that the response to a constant stays about the same.
    """

    key: str = "patch_embed.proj.weight"
    method: Method = "pseudo-inverse"
    exact: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return f"kernel resize ({self.method})"

    def __call__(self, state: State, target: Target) -> State:
        kernel, size = fetch(state, self.key, self), target.shape(self.key)[2:]
        if tuple(kernel.shape[2:]) == size:
            return dict(state)
        return {**state, self.key: resize_kernel(kernel, size, self.method)}


def resize_kernel(kernel: Tensor, size: tuple[int, ...], method: Method) -> Tensor:
    """A kernel (out, in, *old) resized to (out, in, *size)."""
    axes = {axis: new for axis, new in enumerate(size, start=2) if kernel.shape[axis] != new}
    if method == "linear":
        return resize(kernel, axes) * (prod(kernel.shape[2:]) / prod(size))
    # <w', B x> = <w, x> for every patch x asks for w' = pinv(B^T) w; B is separable, and so is its pseudo-inverse.
    return apply_along(kernel, {axis: torch.linalg.pinv(resize_matrix(kernel.shape[axis], new).T)
                                for axis, new in axes.items()})
