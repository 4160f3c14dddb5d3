"""MONAI's DenseNet121 and ResNet-18 without their heads; parameter names stay MONAI's (and so MedicalNet's)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.base import Backbone, parameters_of


class DenseNet121(Backbone):
    """DenseNet-121 in 3D (Huang et al., arXiv 1608.06993)."""

    num_features = 1024

    def __init__(self) -> None:
        super().__init__()
        from monai.networks.nets import DenseNet121 as MonaiDenseNet121

        self.features = MonaiDenseNet121(spatial_dims=3, in_channels=1, out_channels=1).features

    def forward_features(self, volumes: Tensor) -> Tensor:
        return F.relu(self.features(volumes)).mean(dim=(2, 3, 4))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [group for part in self.features if (group := parameters_of(part))]


class ResNet18(Backbone):
    """ResNet-18 in 3D, shaped as MedicalNet's (Chen et al., arXiv 1904.00625): shortcut B, no class layer."""

    num_features = 512

    def __init__(self) -> None:
        super().__init__()
        from monai.networks.nets import resnet18

        net = resnet18(spatial_dims=3, n_input_channels=1, shortcut_type="B", conv1_t_stride=2, feed_forward=False)
        self.conv1, self.bn1, self.maxpool = net.conv1, net.bn1, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4

    def forward_features(self, volumes: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(volumes))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean(dim=(2, 3, 4))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        stem = parameters_of(self.conv1, self.bn1)
        return [stem, *(parameters_of(layer) for layer in (self.layer1, self.layer2, self.layer3, self.layer4))]
