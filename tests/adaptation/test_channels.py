"""RGB becomes grey: the adapted layer computes the same, normalisation included."""

from __future__ import annotations

import torch
from torch import nn

from headstart.adaptation import GrayInput, Target

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalised(grey: torch.Tensor) -> torch.Tensor:
    shape = (1, 3, *[1] * (grey.ndim - 2))
    return (grey.expand(-1, 3, *grey.shape[2:]) - torch.tensor(MEAN).view(shape)) / torch.tensor(STD).view(shape)


@torch.no_grad()
def test_patch_embedding_reads_grey_as_the_source_reads_normalised_rgb() -> None:
    torch.manual_seed(0)
    source, own = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(1, 8, 4, stride=4)
    own.load_state_dict(GrayInput("weight", "bias", MEAN, STD)(source.state_dict(), Target.of(own)))
    image = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(own(image), source(normalised(image)), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_constant_goes_into_batchnorm_where_there_is_no_bias() -> None:
    torch.manual_seed(0)
    source = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1, bias=False), nn.BatchNorm3d(8)).eval()
    own = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1, bias=False), nn.BatchNorm3d(8)).eval()
    source[1].running_mean.normal_()
    own.load_state_dict(GrayInput("0.weight", "1.running_mean", MEAN, STD)(source.state_dict(), Target.of(own)))
    volume = torch.rand(1, 1, 6, 8, 10)
    inside = (..., slice(1, -1), slice(1, -1), slice(1, -1))  # where the kernel does not reach the padding
    torch.testing.assert_close(own(volume)[inside], source(normalised(volume))[inside], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_without_statistics_it_is_exact_up_to_the_border() -> None:
    torch.manual_seed(0)
    source, own = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(1, 8, 3, padding=1)
    own.load_state_dict(GrayInput("weight", "bias")(source.state_dict(), Target.of(own)))
    image = torch.rand(2, 1, 9, 9)
    torch.testing.assert_close(own(image), source(image.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-5)
