"""MedicalNet's 3D ResNets (Chen et al., arXiv 1904.00625), built from MONAI with the shortcuts that its files have."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.base import ConvolutionalBackbone, parameters_of

DEPTHS = {10: ("B", 512), 18: ("A", 512), 50: ("B", 2048)}  # kind of shortcut, features


class MedicalNet(ConvolutionalBackbone):
    """ResNet-10, -18 or -50 without its head; parameter names are MedicalNet's, and torchvision's.

    MedicalNet dilates layers 3 and 4 for segmentation; as in MONAI they are strided here, with the same weights.

    Args:
        depth: 10, 18 or 50.
        shortcut: ``A`` pads, ``B`` convolves; that of the published files by default.
    """

    def __init__(self, depth: int, shortcut: str | None = None) -> None:
        super().__init__()
        from monai.networks import nets

        published, self.num_features = DEPTHS[depth]
        net = getattr(nets, f"resnet{depth}")(spatial_dims=3, n_input_channels=1, shortcut_type=shortcut or published,
                                              bias_downsample=False, conv1_t_stride=2, feed_forward=False)
        self.conv1, self.bn1, self.maxpool = net.conv1, net.bn1, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4

    def forward_map(self, volumes: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(volumes))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        stem = parameters_of(self.conv1, self.bn1)
        return [stem, *(parameters_of(layer) for layer in (self.layer1, self.layer2, self.layer3, self.layer4))]
