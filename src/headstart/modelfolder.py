"""A model as a folder: weights, what they are, and the preprocessing they need. Nothing of it runs code on loading."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headstart.brains.contract import Contract
from headstart.calibration.familiarity import Familiarity
from headstart.calibration.uncertainty import Calibration
from headstart.errors import HeadstartError
from headstart.files import atomic_write, read_json, write_json
from headstart.tasks import Task

if TYPE_CHECKING:
    from headstart.backbones.model import BrainModel

WEIGHTS, CONFIG, CARD, FEATURES = "model.safetensors", "config.json", "README.md", "features.safetensors"


class ModelConfig(BaseModel):
    """``config.json`` of a model folder.

    Attributes:
        contract: preprocessing that a scan must have gone through; inference runs it or refuses.
        seen: data sets (and upstream cohorts) whose scans shaped the weights: the overlap ledger; None: not known.
        domain: what its start learnt from (of a start: itself): one of the catalogue's domains, ``procedural-video``,
            ``procedural-images`` or ``control``; None: from scratch, or not known.
        outputs: of a start: what each output was taught to say (``age``, ``sex``, ``log_grey`` …).
        licence: of the weights that training started from: it binds this model too; None: not known.
        scores: the honest estimate made when the model was trained, by partition and metric.
        calibration: intervals and temperature; None: predictions have neither.
    """

    model_config = ConfigDict(extra="forbid")

    format: Literal["headstart-model-1"] = "headstart-model-1"
    backbone: str
    num_outputs: int = Field(ge=1, le=10_000)
    task: Task | None = None
    contract: Contract
    upstream: str = "scratch"
    seen: list[str] | None = Field(default_factory=list)
    domain: str | None = None
    outputs: list[str] = Field(default_factory=list)
    licence: str | None = "Apache-2.0"
    simulated: bool = False
    made_with: dict[str, Any] = Field(default_factory=dict)
    scores: dict[str, dict[str, Any]] = Field(default_factory=dict)
    calibration: Calibration | None = None


def save_model(folder: str | Path, model: BrainModel, config: ModelConfig, card: str,
               familiarity: Familiarity | None = None) -> Path:
    """Write weights (safetensors), ``config.json`` and the model card; each file is whole or absent.

    Args:
        folder: made where it does not exist.
        model: weights and what they standardise targets by.
        config: what ``config.json`` will hold.
        card: text of the model card (``README.md``).
        familiarity: what the features of its training scans look like, where that is known.
    """
    from safetensors.torch import save

    folder = Path(folder)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_write(folder / WEIGHTS, "wb") as file:
        file.write(save(state, metadata={"format": "pt"}))
    if familiarity is not None:
        familiarity.write(folder / FEATURES)
    with atomic_write(folder / CARD) as file:
        file.write(card)
    write_json(folder / CONFIG, config.model_dump(mode="json"))  # last: a folder with a config is complete
    return folder


def read_config(folder: str | Path) -> ModelConfig:
    """The checked ``config.json`` of a model folder."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise HeadstartError("is not a headstart model (no config.json)", path=folder,
                             fix="Give the `model` folder that finetune or pretrain wrote.")
    try:
        return ModelConfig.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        raise HeadstartError(f"is not a valid model config ({'.'.join(map(str, first['loc']))}: {first['msg']})",
                             path=path, fix="It was made by another version, or is damaged.") from error


def load_model(folder: str | Path) -> tuple[BrainModel, ModelConfig]:
    """The finished model, in evaluation mode, and its config. Every key must fit.

    Raises:
        HeadstartError: a file is missing or damaged, or weights and config do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from headstart.backbones import build_model

    folder = Path(folder)
    config = read_config(folder)
    model = build_model(config.backbone, config.contract.spec, config.num_outputs)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise HeadstartError(f"cannot be loaded ({str(error).splitlines()[0]})", path=folder / WEIGHTS,
                             fix="Copy the model folder again, whole.") from error
    return model.eval(), config


def read_familiarity(folder: str | Path) -> Familiarity | None:
    """What the features of the model's training scans look like; None where the folder does not say."""
    path = Path(folder) / FEATURES
    return Familiarity.read(path) if path.is_file() else None
