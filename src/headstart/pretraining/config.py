"""What a pre-training is asked to do: one immutable value, from a file and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from headstart.errors import HeadstartError
from headstart.training.plan import Optimizer, Precision

Source = Literal["synthetic-mri", "real-mri", "video", "natural-images"]
Objective = Literal["supervised", "masked", "contrastive"]
PROCEDURAL: Mapping[Source, str] = {"video": "procedural-video", "natural-images": "procedural-images"}


FEWEST_PROBED = 20  # half of them are learnt from, in folds


class PretrainConfig(BaseModel):
    """The choices of one pre-training; ``configs/pretrain-*.yaml`` are such values, and so are the options.

    Attributes:
        objective: all labels jointly; hidden patches; or telling two views of one sample from those of others.
        source: what is learnt from. Without ``data`` brains are simulated, and clips and pictures are rendered.
        backbone: as for finetune.
        data: a prepared store, needed for real MRI; of clips or pictures a folder ``class/file``, or a csv table.
        pool: how many brains, clips or pictures are made where no ``data`` is given; the most files that are used.
        generator, labelmaps: where the anatomy of simulated brains comes from.
        volume: the grid; that of ``data``, where this is a store.
        budget_samples: training samples in all, over as many epochs of the pool as that needs, or a part of it.
        shuffle_labels: each label goes to another sample: the control of what the images and training alone give.
        learning_rate, weight_decay, batch_size, warmup_fraction, augmentation, precision, optimizer: as in
            ``TrainingPlan``.
        flip: left and right are swapped at random.
        probe: how many held-out simulated brains a linear probe reads now and then, 20 or more; 0: none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Source = "synthetic-mri"
    objective: Objective = "supervised"
    backbone: str
    data: Path | None = None
    pool: int = Field(4000, ge=20)
    generator: Literal["anatomy", "labelmaps"] = "anatomy"
    labelmaps: Path | None = None
    volume: Literal["4mm", "3mm", "2mm", "1mm"] = "4mm"
    budget_samples: int = Field(20_000, ge=1)
    shuffle_labels: bool = False
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    batch_size: int = Field(32, ge=1)
    warmup_fraction: float = Field(0.1, ge=0, lt=1)
    augmentation: float = Field(1.0, ge=0)
    precision: Precision = "float32"
    optimizer: Optimizer = "adamw"
    flip: bool = True
    probe: int = Field(200, ge=0)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def check(self) -> PretrainConfig:
        """HeadstartError where one choice would do nothing to another."""
        if self.shuffle_labels and self.objective != "supervised":
            raise HeadstartError(f"shuffled labels change nothing in {self.objective} pre-training, which reads none",
                                 fix="Leave --shuffle-labels out, or use --objective supervised.")
        if self.labelmaps is not None and (self.source != "synthetic-mri" or self.data is not None):
            raise HeadstartError("label maps are for brains that are simulated, and here none are", path=self.labelmaps,
                                 fix="Leave --labelmaps out, or use --source synthetic-mri without --data.")
        if self.source == "real-mri" and self.data is None:
            raise HeadstartError("real MRI has to come from somewhere",
                                 fix="Give --data STORE (see headstart prepare).")
        if 0 < self.probe < FEWEST_PROBED:
            raise HeadstartError(f"a probe of {self.probe} brains reads nothing",
                                 fix=f"Give --probe {FEWEST_PROBED} or more, or 0 for none.")
        if self.objective == "contrastive" and self.batch_size < 2:
            raise HeadstartError("contrastive pre-training tells the samples of a batch apart, and one is alone",
                                 fix="Give --batch-size 2 or more.")
        return self


def read_config(path: Path | None, options: Mapping[str, Any]) -> PretrainConfig:
    """The configuration in a YAML file, with the options that were given in place of what it says.

    Args:
        path: of the file; None where all comes from the options.
        options: by field; None where the option was not given.

    Raises:
        HeadstartError: the file cannot be read, a value is missing, unknown or out of range, or two do not go together.
    """
    values = {**_read(path), **{name: value for name, value in options.items() if value is not None}}
    try:
        return PretrainConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        known = ", ".join(PretrainConfig.model_fields)
        raise HeadstartError(f"'{field}': {first['msg'].lower()}", path=path,
                             fix=f"Give --{field.replace('_', '-')}, or mend the file. Fields: {known}.") from error


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise HeadstartError(f"cannot be read as YAML ({error})", path=path,
                             fix="Give one of configs/pretrain-*.yaml, or a copy of it.") from error
    if not isinstance(found, dict):
        raise HeadstartError("holds no settings", path=path, fix="Write one `name: value` a line.")
    return found
