"""An experiment is one immutable value: equal digests, equal results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from headstart.errors import HeadstartError
from headstart.files import digest_json, read_json, write_json
from headstart.tasks import Task
from headstart.training import Mode, TrainingPlan

FILE = "experiment.json"


@dataclass(frozen=True)
class Request:
    """What the user asks for, before the data are looked at; each field is an option of ``headstart finetune``."""

    target: str | None = None
    task: str | None = None
    positive: str | None = None
    train_sites: tuple[str, ...] = ()
    test_sites: tuple[str, ...] = ()
    loso: bool = False
    backbone: str = "cnn-small"
    upstream: str | None = None  # the default start
    accept_licence: bool = False
    seeds: int = 3
    folds: int = 5
    epochs: int = 60
    mode: Mode = "full"
    layer_decay: float = 1.0
    learning_rates: tuple[float, ...] = (1e-3, 3e-4)
    split: Path | None = None


class Experiment(BaseModel):
    """All that determines a result.

    Attributes:
        contract: digest of the preprocessing contract.
        scans: digest of the scans' keys, subjects, sites, targets and prepared voxels.
        split: digest of the split.
        weights: what stands for the upstream's file: its published name, or a digest of its content.
        learning_rates: searched in every fold on its validation part.
        plan: the rest of the training's choices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[2] = 2  # 2: what is kept lies halfway between an aimed start and the end of training
    task: Task
    contract: str
    scans: str
    split: str
    backbone: str
    upstream: str
    weights: str
    accept_licence: bool
    learning_rates: tuple[float, ...]
    plan: TrainingPlan

    @property
    def digest(self) -> str:
        return digest_json(self.model_dump(mode="json"))

    def claim(self, out: Path) -> None:
        """Make ``out`` this experiment's folder.

        Raises:
            HeadstartError: it holds another experiment; the message names what differs.
        """
        path, mine = out / FILE, self.model_dump(mode="json")
        if not path.exists():
            write_json(path, mine)
            return
        other: dict[str, Any] = read_json(path)
        if other != mine:
            differing = sorted(key for key in mine if other.get(key) != mine[key])
            raise HeadstartError(f"holds another experiment (other {', '.join(differing)})", path=out,
                                 fix="Give another --out, or remove that folder.")
