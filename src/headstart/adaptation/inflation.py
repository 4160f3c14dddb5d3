"""2D kernels become 3D: Carreira and Zisserman, "Quo Vadis, Action Recognition?" (arXiv 1705.07750)."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar, Literal

import torch
from torch import Tensor

from headstart.adaptation.steps import State, Step, Target

Method = Literal["average", "centre"]


@dataclass(frozen=True)
class Inflate(Step):
    """Give 2D kernels the depth that the 3D network has; depth is the first spatial axis, X.

    ``average`` spreads a kernel evenly over depth: on input that does not change along depth the 3D network equals the
    2D one. ``centre`` puts it in the middle slice: where depth stride and pooling are 1, the 3D network equals the 2D
    one on every slice.

    Args:
        method: how the depth is filled.
        keys: pattern of the kernels meant; by default all 4-D weights whose counterpart has 5 dimensions.
    """

    method: Method = "average"
    keys: str = "*"
    exact: ClassVar[bool] = False

    @property
    def name(self) -> str:
        return f"2D to 3D ({self.method})"

    def __call__(self, state: State, target: Target) -> State:
        return {key: self._inflate(tensor, target.shapes[key][2]) if self._applies(key, tensor, target) else tensor
                for key, tensor in state.items()}

    def _applies(self, key: str, tensor: Tensor, target: Target) -> bool:
        return tensor.ndim == 4 and len(target.shapes.get(key, ())) == 5 and fnmatchcase(key, self.keys)

    def _inflate(self, kernel: Tensor, depth: int) -> Tensor:
        return inflate(kernel, depth, self.method)


def inflate(kernel: Tensor, depth: int, method: Method) -> Tensor:
    """A kernel (out, in, H, W) with ``depth`` slices, (out, in, depth, H, W)."""
    if method == "average":
        return (kernel / depth)[:, :, None].expand(-1, -1, depth, -1, -1).contiguous()
    inflated = torch.zeros(*kernel.shape[:2], depth, *kernel.shape[2:], dtype=kernel.dtype)
    inflated[:, :, depth // 2] = kernel
    return inflated
