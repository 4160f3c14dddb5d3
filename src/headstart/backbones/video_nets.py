"""The video ResNets of Tran et al. (arXiv 1711.11248) on brains: torchvision's own modules with a one-channel stem.

Time becomes X (left to right), height Y and width Z; the stem keeps every sagittal slice and halves Y and Z.
"""

from __future__ import annotations

from torch import Tensor, nn

from headstart.backbones.base import ConvolutionalBackbone, parameters_of

NAMES = {"r3d-18": "r3d_18", "mc3-18": "mc3_18", "r2plus1d-18": "r2plus1d_18"}


class VideoResNet(ConvolutionalBackbone):
    """R3D-18, MC3-18 or R(2+1)D-18 without its classifier; parameter names are torchvision's.

    Args:
        name: one of ``NAMES``.
    """

    num_features = 512

    def __init__(self, name: str) -> None:
        super().__init__()
        from torchvision.models import video

        net = getattr(video, NAMES[name])(weights=None)
        self.stem, self.layer1, self.layer2, self.layer3, self.layer4 = (
            net.stem, net.layer1, net.layer2, net.layer3, net.layer4)
        first = self.stem[0]
        self.stem[0] = nn.Conv3d(1, first.out_channels, first.kernel_size, first.stride, first.padding, bias=False)
        nn.init.kaiming_normal_(self.stem[0].weight, mode="fan_out", nonlinearity="relu")

    def forward_map(self, volumes: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.stem(volumes)))
        return self.layer4(self.layer3(x))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [parameters_of(part) for part in (self.stem, self.layer1, self.layer2, self.layer3, self.layer4)]
