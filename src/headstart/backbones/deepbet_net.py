"""The encoder of deepbet's brain extraction network (Fisch et al., arXiv 2308.07003): a 3D LinkNet's four stages.

Parameter names are the published file's. InstanceNorm has no weights in it.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from headstart.backbones.base import ConvolutionalBackbone, parameters_of

WIDTHS = (16, 32, 64, 128)


class DeepbetEncoder(ConvolutionalBackbone):
    """A ResNet-18 of a quarter of the width, with InstanceNorm, in 3D."""

    num_features = WIDTHS[-1]

    def __init__(self) -> None:
        super().__init__()
        self.init = nn.Sequential(nn.Conv3d(1, WIDTHS[0], 7, stride=2, padding=3, bias=False),
                                  nn.InstanceNorm3d(WIDTHS[0]), nn.ReLU(), nn.MaxPool3d(3, stride=2, padding=1))
        self.down0 = _Down(WIDTHS[0], WIDTHS[0], stride=1)
        self.down1, self.down2, self.down3 = (
            _Down(inputs, outputs, stride=2) for inputs, outputs in pairwise(WIDTHS))

    def forward_map(self, volumes: Tensor) -> Tensor:
        return self.down3(self.down2(self.down1(self.down0(self.init(volumes)))))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [parameters_of(part) for part in (self.init, self.down0, self.down1, self.down2, self.down3)]


class _Down(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.block1, self.block2 = _Block(inputs, outputs, stride), _Block(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.block2(self.block1(x))


class _Block(nn.Module):
    """Two convolutions and a shortcut, which is a pointwise convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.InstanceNorm3d(outputs), nn.ReLU(),
            nn.Conv3d(outputs, outputs, 3, padding=1, bias=False), nn.InstanceNorm3d(outputs))
        self.downsample = nn.Identity() if stride == 1 else nn.Sequential(
            nn.Conv3d(inputs, outputs, 1, stride=stride, bias=False), nn.InstanceNorm3d(outputs))
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.double_conv(x) + self.downsample(x))
