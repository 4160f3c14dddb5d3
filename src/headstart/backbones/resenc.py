"""The residual encoder of nnU-Net's ResEnc presets (Isensee et al., arXiv 2404.09556), as OpenMind pre-trained it.

Parameter names are those of the package dynamic-network-architectures, from which the published files come.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.base import ConvolutionalBackbone, parameters_of

WIDTHS, BLOCKS = (32, 64, 128, 256, 320, 320), (1, 3, 4, 6, 6, 6)  # ResEnc-L


class ResidualEncoder(ConvolutionalBackbone):
    """A stem at full resolution and stages of residual blocks, each but the first at half the resolution before.

    Volumes are padded with air to what the strides divide: the shortcuts pool, and must not lose a row.

    Args:
        widths, blocks: channels and number of blocks of each stage.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS, blocks: tuple[int, ...] = BLOCKS) -> None:
        super().__init__()
        self.num_features, self.multiple = widths[-1], 2 ** (len(widths) - 1)
        self.stem = Stage("convs", [ConvNorm(1, widths[0])])
        self.stages = nn.Sequential(*(
            Stage("blocks", [ResidualBlock(before if first else width, width, 2 if first and stage else 1)
                             for first in (True, *(False,) * (count - 1))])
            for stage, (before, width, count) in enumerate(zip((widths[0], *widths), widths, blocks, strict=False))))

    def forward_map(self, volumes: Tensor) -> Tensor:
        missing = [-size % self.multiple for size in reversed(volumes.shape[2:])]
        return self.stages(self.stem(F.pad(volumes, [part for size in missing for part in (0, size)])))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [parameters_of(part) for part in (self.stem, *self.stages)]


class Stage(nn.Module):
    """Layers one after the other under a name of their publisher's."""

    def __init__(self, name: str, layers: list[nn.Module]) -> None:
        super().__init__()
        self.add_module(name, nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        for layers in self.children():
            x = layers(x)
        return x


class ConvNorm(nn.Module):
    """Convolution and instance normalisation, then LeakyReLU unless ``active`` is false."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, bias: bool = True,
                 active: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, kernel, stride, kernel // 2, bias=bias)
        self.norm = nn.InstanceNorm3d(outputs, affine=True)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return F.leaky_relu_(x) if self.active else x


class ResidualBlock(nn.Module):
    """Two convolutions; the shortcut pools where they stride and projects where they widen (ResNet-D, 1812.01187)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, stride=stride)
        self.conv2 = ConvNorm(outputs, outputs, active=False)
        pool = [nn.AvgPool3d(stride)] if stride > 1 else []
        project = [ConvNorm(inputs, outputs, 1, bias=False, active=False)] if inputs != outputs else []
        self.skip = nn.Sequential(*pool, *project)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu_(self.conv2(self.conv1(x)) + self.skip(x))
