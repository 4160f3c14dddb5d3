"""SFCN, the simple fully convolutional network of Peng et al. (Medical Image Analysis 2021, arXiv 1912.08050).

Won the PAC 2019 brain-age challenge with 3 million parameters. Parameter names are the authors'.
"""

from __future__ import annotations

from torch import Tensor, nn

from headstart.backbones.base import ConvolutionalBackbone, parameters_of

WIDTHS = (32, 64, 128, 256, 256)


class SFCN(ConvolutionalBackbone):
    """Five convolutions, each normalised, pooled and rectified, then a pointwise one, then the mean over space."""

    num_features = 64

    def __init__(self) -> None:
        super().__init__()
        inputs = (1, *WIDTHS)
        self.feature_extractor = nn.Sequential()
        for index, width in enumerate(WIDTHS):
            self.feature_extractor.add_module(f"conv_{index}", _block(inputs[index], width))
        self.feature_extractor.add_module(f"conv_{len(WIDTHS)}", nn.Sequential(
            nn.Conv3d(WIDTHS[-1], self.num_features, 1), nn.BatchNorm3d(self.num_features), nn.ReLU()))

    def forward_map(self, volumes: Tensor) -> Tensor:
        return self.feature_extractor(volumes)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [parameters_of(block) for block in self.feature_extractor]


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(inputs, outputs, 3, padding=1), nn.BatchNorm3d(outputs), nn.MaxPool3d(2), nn.ReLU())
