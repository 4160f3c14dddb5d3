"""A training step of ViT-Tiny/8 at 3 mm (forward, backward, AdamW) against MONAI's ``ViT`` of the same size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.common import Row, medians
from headstart.backbones import build_model
from headstart.backbones.base import Backbone, parameters_of
from headstart.backbones.model import BrainModel
from headstart.brains.volumes import volume_spec
from headstart.training.optimisation import build_optimizer
from headstart.training.plan import TrainingPlan

BATCH, SPEC = 8, volume_spec("3mm")


class MonaiViT(Backbone):
    """MONAI's ViT of the size of ``vit-tiny``, its tokens averaged."""

    num_features = 192

    def __init__(self) -> None:
        super().__init__()
        from monai.networks.nets import ViT

        self.vit = ViT(1, SPEC.shape, 8, hidden_size=192, mlp_dim=768, num_layers=12, num_heads=3)

    def forward_features(self, volumes: Tensor) -> Tensor:
        return self.vit(volumes)[0].mean(1)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [parameters_of(self.vit)]


def run(repeats: int = 7) -> list[Row]:
    """One row: seconds a step of eight scans."""
    volumes = torch.rand(BATCH, 1, *SPEC.shape)
    ours, theirs = build_model("vit-tiny", SPEC, 1), BrainModel(MonaiViT(), 1)
    work = {
        "headstart": step(ours, build_optimizer(ours, TrainingPlan()), volumes),
        "MONAI": step(theirs, build_optimizer(theirs, TrainingPlan()), volumes),
    }
    seconds = medians(work, repeats)
    return [Row("ViT-Tiny/8 training step, 3 mm", seconds["headstart"], {"MONAI": seconds["MONAI"]}, {"MONAI": 4.0},
                note=f"batches of {BATCH}, {torch.get_num_threads()} threads, fused AdamW on both sides")]


def step(model: nn.Module, optimizer: torch.optim.Optimizer, volumes: Tensor) -> Callable[[], None]:
    """One training step, ready to be called."""
    def one_step() -> None:
        optimizer.zero_grad()
        model(volumes).square().mean().backward()
        optimizer.step()

    return one_step
