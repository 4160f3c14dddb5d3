"""Which part of a model learns: all of it, its norm and head, or these and low-rank changes of the attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from torch import nn

from headstart.backbones.model import BrainModel
from headstart.training.lora import low_rank
from headstart.training.plan import Mode


@contextmanager
def learning_part(model: nn.Module, mode: Mode, seed: int) -> Iterator[None]:
    """Within, only what ``mode`` trains has gradients; afterwards the model is plain again."""
    if mode == "full":
        yield
        return
    backbone = cast(BrainModel, model).backbone
    with _frozen(backbone):
        if mode == "lora":
            with low_rank(backbone, seed):
                yield
        else:
            yield


@contextmanager
def _frozen(backbone: nn.Module) -> Iterator[None]:
    backbone.requires_grad_(False)
    try:
        yield
    finally:
        backbone.requires_grad_(True)


def training_mode(model: nn.Module) -> None:
    """``model.train()``, except for parts in which nothing learns: their BatchNorm statistics stay as well."""
    model.train()
    for part in model.modules():
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            part.eval()
