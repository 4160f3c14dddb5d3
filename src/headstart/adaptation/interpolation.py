"""Linear resampling along any axes, as explicit matrices: one operator for kernels, positions and their inverses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F


@lru_cache(maxsize=64)
def resize_matrix(old: int, new: int) -> Tensor:
    """The (new, old) float64 matrix that resamples a signal linearly, averaging before it shrinks.

    Rows sum to one; ``old == new`` gives the identity.
    """
    identity = torch.eye(old, dtype=torch.float64)[None, None]  # columns are unit signals
    return F.interpolate(identity, size=(new, old), mode="bilinear", align_corners=False, antialias=True)[0, 0]


def apply_along(tensor: Tensor, matrices: Mapping[int, Tensor]) -> Tensor:
    """Multiply ``tensor`` by a matrix along each axis named; the result has the tensor's own dtype."""
    out = tensor.double()
    for axis, matrix in matrices.items():
        out = torch.tensordot(matrix, out, dims=([1], [axis])).movedim(0, axis)
    return out.to(tensor.dtype).contiguous()


def resize(tensor: Tensor, sizes: Mapping[int, int]) -> Tensor:
    """Resample ``tensor`` linearly to ``sizes`` along the axes named; axes that already fit are left alone."""
    changed = {axis: resize_matrix(tensor.shape[axis], size) for axis, size in sizes.items()
               if tensor.shape[axis] != size}
    return apply_along(tensor, changed) if changed else tensor
