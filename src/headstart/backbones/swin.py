"""Transformers with shifted windows (Liu et al., arXiv 2103.14030) on brains, in the forms whose weights are published.

Both are other people's own modules: MONAI's encoder of Swin UNETR, and torchvision's Video Swin (arXiv 2106.13230).
"""

from __future__ import annotations

from torch import Tensor, nn

from headstart.backbones.base import ConvolutionalBackbone, parameters_of


class SwinUnetrEncoder(ConvolutionalBackbone):
    """The encoder of Swin UNETR (arXiv 2201.01266) with patches of 2³ voxels; parameter names are Swin UNETR's.

    Args:
        width: channels after the patch embedding; 48 in all published weights.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        from monai.networks.nets.swin_unetr import SwinTransformer

        self.num_features = 16 * width
        self.swinViT = SwinTransformer(
            in_chans=1, embed_dim=width, window_size=(7,) * 3, patch_size=(2,) * 3, depths=(2,) * 4,
            num_heads=(3, 6, 12, 24), spatial_dims=3)

    def forward_map(self, volumes: Tensor) -> Tensor:
        return self.swinViT(volumes)[-1]

    def layer_groups(self) -> list[list[nn.Parameter]]:
        net = self.swinViT
        return [parameters_of(part) for part in (net.patch_embed, net.layers1, net.layers2, net.layers3, net.layers4)]


class VideoSwin(ConvolutionalBackbone):
    """Swin3D-T without its classifier; parameter names are torchvision's. Time becomes X, height Y and width Z."""

    num_features = 768

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models.video import swin3d_t
        from torchvision.ops import StochasticDepth

        net = swin3d_t(weights=None)
        for layer in (layer for layer in net.modules() if isinstance(layer, StochasticDepth)):
            layer.p = 0.0  # its draws would come from the global generator, and no run could be resumed to the bit
        self.patch_embed, self.features, self.norm = net.patch_embed, net.features, net.norm
        first = self.patch_embed.proj
        self.patch_embed.proj = nn.Conv3d(1, first.out_channels, first.kernel_size, first.stride)
        nn.init.trunc_normal_(self.patch_embed.proj.weight, std=0.02)
        nn.init.zeros_(self.patch_embed.proj.bias)

    def forward_map(self, volumes: Tensor) -> Tensor:
        return self.norm(self.features(self.patch_embed(volumes))).permute(0, 4, 1, 2, 3)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [parameters_of(part) for part in (self.patch_embed, *self.features, self.norm)]
