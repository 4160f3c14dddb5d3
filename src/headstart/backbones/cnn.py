"""A small 3D CNN that trains on a laptop: five convolutions with GroupNorm, so that batch size does not matter."""

from __future__ import annotations

from torch import Tensor, nn

from headstart.backbones.base import ConvolutionalBackbone, parameters_of

WIDTHS = (32, 48, 64, 96, 128)


class SmallCNN(ConvolutionalBackbone):
    """Convolution, GroupNorm, ReLU, halving: five times, then the mean over space."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.num_features = widths[-1]
        inputs = (1, *widths[:-1])
        self.blocks = nn.Sequential(*(_block(a, b) for a, b in zip(inputs, widths, strict=True)))

    def forward_map(self, volumes: Tensor) -> Tensor:
        return self.blocks(volumes)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [parameters_of(block) for block in self.blocks]


def _block(inputs: int, outputs: int) -> nn.Sequential:
    stride = 2
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(8, outputs),
        nn.ReLU(inplace=True),
    )
