"""RGB networks read one channel, with the source's normalisation folded into the first layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from headstart.adaptation.steps import State, Step, Target, fetch


@dataclass(frozen=True)
class GrayInput(Step):
    """Feed one grey channel in [0, 1] instead of three normalised ones.

    For a grey image g the source computes sum_c w_c * (g - mean_c) / std_c. That is one kernel, sum_c w_c / std_c, and
    one constant, which goes into a bias or, with its sign turned, into the running mean of the BatchNorm that follows.
    Exact wherever the kernel does not reach the zero padding: zero is mid-grey to the source, and black here.

    Args:
        weight: key of the first kernel, (out, 3, ...).
        constant: key that takes the constant: a ``bias``, or a ``running_mean``.
        mean: the source's normalisation, per channel, on the [0, 1] scale.
        std: likewise.
    """

    weight: str
    constant: str
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    exact: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "RGB to one channel"

    def __call__(self, state: State, target: Target) -> State:
        kernel = fetch(state, self.weight, self).double()
        mean, std = (_per_channel(values, kernel.ndim) for values in (self.mean, self.std))
        grey = (kernel / std).sum(1, keepdim=True)
        constant = -(kernel * mean / std).flatten(1).sum(1)
        sign = -1 if self.constant.endswith("running_mean") else 1
        old = fetch(state, self.constant, self)
        return {**state, self.weight: grey.to(state[self.weight].dtype),
                self.constant: (old.double() + sign * constant).to(old.dtype)}


def _per_channel(values: tuple[float, float, float], ndim: int) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, 3, *[1] * (ndim - 2))
