"""EfficientNet-Lite0 in 3D: depthwise convolutions, ReLU6, no squeeze-and-excitation (Tan and Le, arXiv 1905.11946).

Parameter names are timm's (``tf_efficientnet_lite0``), and so are the padding ("same", as TensorFlow pads) and the
BatchNorm epsilon.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from headstart.backbones.base import ConvolutionalBackbone, parameters_of

STAGES = (  # repeats, kernel, stride, expansion, width
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
EPSILON = 1e-3


class EfficientNetLite0(ConvolutionalBackbone):
    """3.4 million parameters in 2D, 4.1 in 3D: only depthwise kernels gain a dimension."""

    num_features = 1280

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = _SameConv(1, 32, 3, stride=2), nn.BatchNorm3d(32, eps=EPSILON)
        self.blocks = nn.Sequential(*_stages(32))
        self.conv_head, self.bn2 = nn.Conv3d(320, 1280, 1, bias=False), nn.BatchNorm3d(1280, eps=EPSILON)

    def forward_map(self, volumes: Tensor) -> Tensor:
        x = self.blocks(F.relu6(self.bn1(self.conv_stem(volumes))))
        return F.relu6(self.bn2(self.conv_head(x)))

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [parameters_of(self.conv_stem, self.bn1), *(parameters_of(stage) for stage in self.blocks),
                parameters_of(self.conv_head, self.bn2)]


class _SameConv(nn.Conv3d):
    """Convolution padded as TensorFlow does: output is ceil(input / stride), the odd voxel of padding comes last."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[2:]]
        return super().forward(F.pad(x, [side for t in reversed(total) for side in (t // 2, t - t // 2)]))


class _Separable(nn.Module):
    """The first stage: depthwise, then pointwise."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw = _SameConv(inputs, inputs, kernel, stride=1, groups=inputs)
        self.bn1 = nn.BatchNorm3d(inputs, eps=EPSILON)
        self.conv_pw = nn.Conv3d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(outputs, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv_pw(F.relu6(self.bn1(self.conv_dw(x)))))


class _InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.conv_pw, self.bn1 = nn.Conv3d(inputs, width, 1, bias=False), nn.BatchNorm3d(width, eps=EPSILON)
        self.conv_dw = _SameConv(width, width, kernel, stride=stride, groups=width)
        self.bn2 = nn.BatchNorm3d(width, eps=EPSILON)
        self.conv_pwl, self.bn3 = nn.Conv3d(width, outputs, 1, bias=False), nn.BatchNorm3d(outputs, eps=EPSILON)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.bn1(self.conv_pw(x)))
        y = self.bn3(self.conv_pwl(F.relu6(self.bn2(self.conv_dw(y)))))
        return x + y if self.shortcut else y


def _stages(inputs: int) -> list[nn.Sequential]:
    stages = []
    for repeats, kernel, stride, expansion, width in STAGES:
        blocks = []
        for index in range(repeats):
            blocks.append(_Separable(inputs, width, kernel) if expansion == 1 else
                          _InvertedResidual(inputs, width, kernel, stride if index == 0 else 1, expansion))
            inputs = width
        stages.append(nn.Sequential(*blocks))
    return stages
