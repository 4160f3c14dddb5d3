"""The same input gives the same features as the publisher's own package, before any approximating step.

What the tests of transformers and of convolutional networks share.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from headstart.adaptation import GrayInput, Step
from headstart.brains.volumes import volume_spec

SPEC = volume_spec("4mm")
PROVEN: set[str] = set()


def proves(*recipes: str) -> Callable:
    """Mark a test as the proof of recipes; test_parity.py compares with the catalogue's claims."""
    PROVEN.update(recipes)
    return lambda test: test


@torch.no_grad()
def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random values everywhere: no bias is zero, no scale is one, no running mean is forgotten."""
    torch.manual_seed(seed)
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn_like(value) * (0.1 * value.std() if value.ndim > 3 else 0.1)  # deep kernels stay tame
            value.copy_(torch.rand_like(value) + 0.5 if "running_var" in key else value + noise)
    return model.eval()


def close(found: Tensor, expected: Tensor) -> None:
    """Equal to 1e-4 of the features' own spread."""
    spread = expected.std()
    assert spread > 1e-4  # equal constants would prove nothing
    torch.testing.assert_close(found / spread, expected / spread, atol=1e-4, rtol=0)


def coloured(grey: Tensor, steps: tuple[Step, ...]) -> Tensor:
    """What the source would be given for a grey image: three channels, normalised by its statistics."""
    step = next(step for step in steps if isinstance(step, GrayInput))
    shape = (1, 3, *[1] * (grey.ndim - 2))
    mean, std = torch.tensor(step.mean).view(shape), torch.tensor(step.std).view(shape)
    return (grey.expand(-1, 3, *grey.shape[2:]) - mean) / std
