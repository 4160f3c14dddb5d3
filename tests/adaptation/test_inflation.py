"""2D becomes 3D: the two properties that inflation must have, on whole small networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from headstart.adaptation import Inflate, Target, transfer_weights

CHANNELS = 4


def network(dim: int, depth: int = 3, mode: str = "zeros") -> nn.Sequential:
    """Two convolutions with stride and pooling in the plane only; ``mode`` pads along depth and in the plane."""
    conv, norm, pool = (getattr(nn, f"{kind}{dim}d") for kind in ("Conv", "BatchNorm", "MaxPool"))
    lead: tuple[int, ...] = () if dim == 2 else (1,)
    size: tuple[int, ...] = () if dim == 2 else (depth,)
    padding: tuple[int, ...] = () if dim == 2 else (depth // 2,)
    return nn.Sequential(
        conv(1, CHANNELS, (*size, 5, 5), stride=(*lead, 2, 2), padding=(*padding, 2, 2), padding_mode=mode),
        norm(CHANNELS), nn.ReLU(), pool((*lead, 2, 2)),
        conv(CHANNELS, CHANNELS, (*size, 3, 3), padding=(*padding, 1, 1), padding_mode=mode), norm(CHANNELS), nn.ReLU(),
    ).eval()


def pair(method: str, mode: str = "zeros") -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    flat, deep = network(2, mode=mode), network(3, mode=mode)
    for norm in (layer for layer in flat if isinstance(layer, nn.BatchNorm2d)):
        norm.running_mean.uniform_(-1, 1), norm.running_var.uniform_(0.5, 2)
    transfer_weights(deep, flat.state_dict(), [Inflate(method)])
    return flat, deep


@torch.no_grad()
def test_centre_inflation_equals_the_2d_network_on_every_slice() -> None:
    flat, deep = pair("centre")
    volume = torch.randn(2, 1, 7, 16, 20)
    expected = torch.stack([flat(volume[:, :, x]) for x in range(7)], dim=2)
    torch.testing.assert_close(deep(volume), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_average_inflation_equals_the_2d_network_on_depth_constant_input() -> None:
    flat, deep = pair("average", mode="replicate")
    image = torch.randn(2, 1, 16, 20)
    volume = image[:, :, None].expand(-1, -1, 7, -1, -1)
    expected = flat(image)[:, :, None].expand(-1, -1, 7, -1, -1)
    torch.testing.assert_close(deep(volume), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", ["average", "centre"])
def test_inflation_keeps_the_sum_of_a_kernel_and_leaves_other_keys_alone(method: str) -> None:
    state = {"conv.weight": torch.randn(3, 2, 5, 5), "bias": torch.randn(3)}
    inflated = Inflate(method)(state, Target({"conv.weight": (3, 2, 5, 5, 5), "bias": (3,)}))
    torch.testing.assert_close(inflated["conv.weight"].sum(2), state["conv.weight"])
    assert inflated["bias"] is state["bias"]
    assert state["conv.weight"].ndim == 4  # the input is left alone
