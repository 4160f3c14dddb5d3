"""The formats a model leaves in; each is one function, and none is left unchecked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from headstart.errors import HeadstartError
from headstart.export.onnx_graph import write_onnx
from headstart.files import atomic_write
from headstart.modelfolder import CARD, CONFIG, FEATURES, WEIGHTS, load_model

ATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


def export_model(folder: Path, to: str, out: Path) -> Path:
    """Write the finished model in ``folder`` as ``to`` (see ``FORMATS``) to ``out``.

    Returns:
        The file, or for a hub the folder, that was written.

    Raises:
        HeadstartError: the model is damaged, ``out`` is taken, a package is missing, or what was written does not say
            what the model says.
    """
    if to not in FORMATS:
        raise HeadstartError(f"unknown format '{to}'", fix=f"Choose one of: {', '.join(FORMATS)}.")
    if out.exists():
        raise HeadstartError("exists already", path=out, fix="Give another --out, or remove it.")
    return FORMATS[to](folder, out)


def _onnx(folder: Path, out: Path) -> Path:
    model, config = load_model(folder)
    return write_onnx(model, config, out)


def _safetensors(folder: Path, out: Path) -> Path:
    """Weights in one file, with ``config.json`` as its metadata."""
    from safetensors.torch import save

    model, config = load_model(folder)
    metadata = {"format": "pt", "headstart": json.dumps(config.model_dump(mode="json"), sort_keys=True)}
    with atomic_write(out, "wb") as file:
        file.write(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, metadata=metadata))
    return out


def _hub_folder(folder: Path, out: Path) -> Path:
    """A copy with what hubs expect beside it; nothing is uploaded."""
    load_model(folder)
    out.mkdir(parents=True)
    for name in (WEIGHTS, FEATURES, CARD, CONFIG):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    with atomic_write(out / ".gitattributes") as file:
        file.write(ATTRIBUTES)
    return out


FORMATS: dict[str, Callable[[Path, Path], Path]] = {
    "onnx": _onnx, "safetensors": _safetensors, "hub-folder": _hub_folder}
"""Formats by name: from a model folder and a target path to what was written."""
SUFFIX = {"onnx": ".onnx", "safetensors": ".safetensors", "hub-folder": "-hub"}
