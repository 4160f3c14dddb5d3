"""A finished model, found by name or folder: weights, task, contract, and what it knows of its own errors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from headstart.backbones.model import BrainModel
from headstart.calibration.familiarity import Familiarity
from headstart.errors import HeadstartError
from headstart.files import sha256_file
from headstart.modelfolder import CONFIG, WEIGHTS, ModelConfig, load_model, read_config, read_familiarity
from headstart.tasks import Task
from headstart.upstreams.fetch import starts_folder

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True, eq=False)
class FinishedModel:
    """A model that answers a question.

    Attributes:
        name: its shipped name, or its folder.
        sha256: of its weights.
        familiarity: None where the folder does not say what its training scans look like.
    """

    name: str
    folder: Path
    network: BrainModel
    config: ModelConfig
    task: Task
    sha256: str
    familiarity: Familiarity | None


def open_model(name: str | Path) -> FinishedModel:
    """The finished model called ``name``, or in the folder ``name``.

    Raises:
        HeadstartError: there is none, it is damaged, or it is a start that was never taught a task.
    """
    folder = find_model(name)
    task = _task(folder, read_config(folder))
    network, config = load_model(folder)
    return FinishedModel(str(name), folder, network, config, task, sha256_file(folder / WEIGHTS),
                         read_familiarity(folder))


def find_model(name: str | Path) -> Path:
    """The folder of a model: the one given, its ``model`` folder, or a shipped one (``name`` or ``name/variant``)."""
    folder = Path(name)
    for candidate in (folder, folder / "model"):
        if (candidate / CONFIG).is_file():
            return candidate
    if folder.is_dir():
        raise HeadstartError("is not a headstart model (no config.json)", path=folder,
                             fix="Give the folder that finetune wrote, or its `model` folder.")
    return _shipped(str(name))


def _shipped(name: str) -> Path:
    base = starts_folder() / name
    inside = _NAME.fullmatch(name) and ".." not in name and base.is_dir()
    found = sorted(path.parent for path in base.glob(f"*/{CONFIG}")) if inside else []
    if inside and (base / CONFIG).is_file():
        return base
    if len(found) == 1:
        return found[0]
    if found:
        raise HeadstartError(f"'{name}' comes in several variants",
                             fix=f"Give one of: {', '.join(f'{name}/{path.name}' for path in found)}.")
    raise HeadstartError(f"there is no model '{name}'", fix="Give the folder of a model that finetune wrote, or a "
                         f"shipped one: {', '.join(shipped_models()) or 'none is shipped with this version'}.")


def shipped_models() -> list[str]:
    """Names of the shipped folders that hold finished models, not starts."""
    names = []
    for path in sorted(starts_folder().glob(f"*/*/{CONFIG}")):
        try:
            if read_config(path.parent).task is not None:
                names.append(path.parent.parent.name)
        except HeadstartError:
            continue
    return list(dict.fromkeys(names))


def _task(folder: Path, config: ModelConfig) -> Task:
    task = config.task
    if task is None:
        raise HeadstartError("is a start for fine-tuning, not a finished model: it was never taught a task",
                             path=folder, fix=f"Run `headstart finetune ... --upstream {folder}` and give the model "
                             "that it writes.")
    fits = config.num_outputs == len(task.classes) if task.kind == "classification" else config.num_outputs >= 1
    if not fits:
        raise HeadstartError(f"gives {config.num_outputs} outputs where its task has {len(task.classes)} classes",
                             path=folder / CONFIG, fix="Copy the model folder again, whole.")
    return task
