"""BatchNorm statistics for brains: those of photographs or of another scanner's intensities do not fit them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def reestimate_batchnorm(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Replace every BatchNorm's running statistics by the mean over ``batches`` (AdaBN, arXiv 1603.04779).

    Weights, and every other layer's mode, stay as they are; without BatchNorm or batches nothing happens.

    Args:
        model: the network; it is called on each batch.
        batches: volumes (n, 1, X, Y, Z), of the training set only.

    Returns:
        How many layers were re-estimated.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    kept = [(layer.training, layer.momentum) for layer in layers]
    try:
        for index, batch in enumerate(batches):
            for layer in layers:
                if index == 0:
                    layer.reset_running_stats()
                layer.train()
                layer.momentum = None  # a plain average over batches
            model(batch)
    finally:
        for layer, (training, momentum) in zip(layers, kept, strict=True):
            layer.train(training)
            layer.momentum = momentum
    return len(layers)
