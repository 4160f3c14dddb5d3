"""What every backbone offers: pooled features of a brain, and its parameters in order of depth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

from torch import Tensor, nn


class Backbone(nn.Module, ABC):
    """A 3D network without a head.

    Attributes:
        num_features: width of the pooled feature vector.
    """

    num_features: int

    @abstractmethod
    def forward_features(self, volumes: Tensor) -> Tensor:
        """Volumes (n, 1, X, Y, Z) to pooled features (n, num_features)."""

    @abstractmethod
    def layer_groups(self) -> list[list[nn.Parameter]]:
        """All parameters, each once, grouped from input to output: what layer-wise learning rates decay along."""

    def forward(self, volumes: Tensor) -> Tensor:
        """As ``forward_features``."""
        return self.forward_features(volumes)


class ConvolutionalBackbone(Backbone):
    """A backbone whose pooled features are the mean over space of a map of features."""

    @abstractmethod
    def forward_map(self, volumes: Tensor) -> Tensor:
        """Volumes (n, 1, X, Y, Z) to features where they are, (n, num_features, x, y, z)."""

    def forward_features(self, volumes: Tensor) -> Tensor:
        return self.forward_map(volumes).mean(dim=(2, 3, 4))


def parameters_of(*parts: nn.Module | nn.Parameter) -> list[nn.Parameter]:
    """The parameters of modules and bare parameters, flattened."""
    def flatten(part: nn.Module | nn.Parameter) -> Iterable[nn.Parameter]:
        return (part,) if isinstance(part, nn.Parameter) else part.parameters()

    return [parameter for part in parts for parameter in flatten(part)]
