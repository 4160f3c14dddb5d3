"""What a training run is asked to do, and what it reports."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Mode = Literal["full", "frozen", "lora", "probe", "knn"]
"""What learns: ``full``, ``frozen``, ``lora``, ``probe`` or ``knn``; see ``headstart finetune --mode``."""
Precision = Literal["float32", "bfloat16"]
Optimizer = Literal["adamw", "muon"]


class TrainingPlan(BaseModel):
    """The choices of one training run; an immutable value.

    Attributes:
        mode: ``full`` trains everything; ``frozen`` trains norm and head on a backbone that stays as it is; ``lora``
            besides trains low-rank changes of a transformer's attention; ``probe`` solves for a linear head and
            ``knn`` looks up the nearest training scans, both on features that are computed once.
        learning_rate: peak rate of the head (and of everything, with ``layer_decay`` 1).
        weight_decay: on weights of linear and convolution layers only.
        batch_size: over all processes together.
        max_epochs: the most passes over the training scans.
        stop_after: epochs after which training ends, on the schedule of ``max_epochs``; for a refit without validation.
        patience: epochs without a better validation loss before training stops.
        warmup_fraction: of all steps, with a linearly rising rate; a cosine to zero follows.
        layer_decay: factor on the rate for each group of layers further from the output.
        clip_norm: largest norm of the gradient.
        augmentation: strength, relative to the defaults of ``Augmentation``; 0 turns it off.
        precision: of the products while training; weights, losses and predictions are float32 always. ``bfloat16``
            is 1.6 to 2 times as fast on CPUs with instructions for it (avx512_bf16); others, which would take seven to
            twelve times as long as in float32, stay with that; a GPU uses it anyway.
        optimizer: ``adamw``, or ``muon``, which learns more of each sample where there are thousands (``muon.py``).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Mode = "full"
    learning_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    batch_size: int = Field(16, ge=1)
    max_epochs: int = Field(60, ge=1)
    stop_after: int | None = Field(None, ge=1)
    patience: int = Field(15, ge=1)
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    layer_decay: float = Field(1.0, gt=0, le=1)
    clip_norm: float = Field(1.0, gt=0)
    augmentation: float = Field(1.0, ge=0)
    precision: Precision = "float32"
    optimizer: Optimizer = "adamw"

    @property
    def descends(self) -> bool:
        """Whether training follows gradients; otherwise learning rates and epochs mean nothing."""
        return self.mode not in ("probe", "knn")


@dataclass(frozen=True)
class Epoch:
    """One epoch: mean losses (no validation loss without validation scans), and the rate at its end.

    ``seconds`` went into steps; in ``waited`` more seconds the network waited for scans to be read and augmented.
    """

    train_loss: float
    validation_loss: float | None
    learning_rate: float
    seconds: float
    waited: float = 0.0


@dataclass(frozen=True)
class History:
    """How a training run went; ``best_epoch`` (from 0) is the one whose weights the model holds."""

    epochs: tuple[Epoch, ...]
    best_epoch: int
    scans_per_second: float

    @property
    def busy(self) -> float:
        """Share of the time in which the network was at work, and not waiting for scans."""
        seconds, waited = (sum(getattr(epoch, name) for epoch in self.epochs) for name in ("seconds", "waited"))
        return seconds / max(seconds + waited, 1e-9)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
