"""MONAI's DenseNet121 without its head; parameter names stay MONAI's."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.base import ConvolutionalBackbone, parameters_of


class DenseNet121(ConvolutionalBackbone):
    """DenseNet-121 in 3D (Huang et al., arXiv 1608.06993)."""

    num_features = 1024

    def __init__(self) -> None:
        super().__init__()
        from monai.networks.nets import DenseNet121 as MonaiDenseNet121

        self.features = MonaiDenseNet121(spatial_dims=3, in_channels=1, out_channels=1).features

    def forward_map(self, volumes: Tensor) -> Tensor:
        return F.relu(self.features(volumes))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [group for part in self.features if (group := parameters_of(part))]
