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
    """Seconds a step of eight scans: both in float32, and ours and theirs with products in bfloat16 (``precision``)."""
    volumes = torch.rand(BATCH, 1, *SPEC.shape)
    models = {"headstart": build_model("vit-tiny", SPEC, 1), "MONAI": BrainModel(MonaiViT(), 1)}
    steps = {name: step(model, build_optimizer(model, TrainingPlan()), volumes) for name, model in models.items()}
    seconds = medians(steps | {f"{name}, bfloat16": in_bfloat16(one) for name, one in steps.items()}, repeats)
    note, name = f"batches of {BATCH}, {torch.get_num_threads()} threads, fused AdamW", "ViT-Tiny/8 training step, 3 mm"
    exact, fast = seconds.pop("headstart"), seconds.pop("headstart, bfloat16")
    return [Row(name, exact, {"MONAI": seconds["MONAI"]}, {"MONAI": 4.0}, note=note),
            Row(f"{name}, bfloat16", fast, seconds, note=note)]


def in_bfloat16(one_step: Callable[[], None]) -> Callable[[], None]:
    """The same step with its products in bfloat16; weights stay float32."""
    def cast() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            one_step()

    return cast


def step(model: nn.Module, optimizer: torch.optim.Optimizer, volumes: Tensor) -> Callable[[], None]:
    """One training step, ready to be called."""
    def one_step() -> None:
        optimizer.zero_grad()
        model(volumes).square().mean().backward()
        optimizer.step()

    return one_step
