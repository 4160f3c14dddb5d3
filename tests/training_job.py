"""A small training job in a process of its own, so that tests can kill, signal and multiply it.

Usage: python training_job.py FOLDER RESULT [pause in seconds per batch] [augmentation]
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from headstart.errors import HeadstartError
from headstart.training import Regression, TrainingPlan, fit

SHAPE = (40, 48, 40)
SPLIT = np.arange(22), np.arange(22, 30)
PLAN = TrainingPlan(max_epochs=5, batch_size=8, learning_rate=1e-3, augmentation=0)


class Blobs:
    """Volumes whose mean brightness is the target, a little noise, made anew at each read."""

    def __init__(self, count: int = 30, pause: float = 0.0) -> None:
        self.targets = np.linspace(20, 80, count).astype(np.float32)
        self.pause = pause

    def volumes(self, indices: np.ndarray) -> Tensor:
        time.sleep(self.pause)
        return torch.stack([self._volume(int(index)) for index in indices])

    def _volume(self, index: int) -> Tensor:
        noise = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(index))
        return 0.1 * noise + float(self.targets[index]) / 100


class TinyNet(nn.Module):
    """Two layers with GroupNorm and dropout, and the target's scale as BrainModel has it."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 4, 8, stride=8)
        self.norm = nn.GroupNorm(2, 4)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, 1)
        self.register_buffer("target_mean", torch.zeros(1))
        self.register_buffer("target_scale", torch.ones(1))

    def forward(self, volumes: Tensor) -> Tensor:
        x = self.conv(volumes)
        pooled = torch.cat([x.mean((2, 3, 4)), self.norm(x).relu().mean((2, 3, 4))], 1)
        return self.head(self.dropout(pooled)) * self.target_scale + self.target_mean

    def set_target_scale(self, mean: Tensor, scale: Tensor) -> None:
        self.target_mean.copy_(mean)
        self.target_scale.copy_(scale)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return [list(part.parameters()) for part in (self.conv, self.norm, self.head)]


def tiny_net(dropout: float = 0.1) -> TinyNet:
    torch.manual_seed(0)
    return TinyNet(dropout)


def main(folder: str, result: str, pause: str = "0", augmentation: str = "0") -> None:
    torch.set_num_threads(1)
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 or "SAME_AS_SEVERAL" in os.environ
    model = tiny_net(dropout=0.0 if several else 0.1)
    plan = PLAN.model_copy(update={"augmentation": float(augmentation)})
    history = fit(model, Regression(), Blobs(pause=float(pause)), *SPLIT, plan, seed=3, folder=Path(folder),
                  checkpoint_seconds=0.0)
    if int(os.environ.get("RANK", "0")) == 0:
        torch.save(model.state_dict(), result + ".pt")
        losses = [[epoch.train_loss, epoch.validation_loss] for epoch in history.epochs]
        Path(result).write_text(json.dumps(losses), encoding="utf-8")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except HeadstartError as error:
        print(error, file=sys.stderr)
        sys.exit(75 if type(error).__name__ == "Preempted" else 1)
