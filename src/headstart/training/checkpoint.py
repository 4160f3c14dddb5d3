"""A run's state on disk: whole or absent, loadable without running code."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from headstart.errors import HeadstartError
from headstart.files import atomic_write

NAME = "training.pt"


def save_checkpoint(folder: Path, fingerprint: str, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, text, lists, dicts) to ``folder`` atomically."""
    save_tensors(folder / NAME, {"fingerprint": fingerprint, **state})


def save_tensors(path: Path, value: Any) -> None:
    """``torch.save`` that leaves the whole file or none, and reports a full disk as what it is."""
    buffer = io.BytesIO()  # torch wraps a file's errors into its own, without words
    torch.save(value, buffer)
    with atomic_write(path, "wb") as file:
        file.write(buffer.getbuffer())


def load_checkpoint(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """The state that ``save_checkpoint`` left in ``folder``, or None.

    Raises:
        HeadstartError: the file is damaged, or belongs to a run with another plan, seed, data or model.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        raise HeadstartError("is damaged", path=path, fix="Remove it; training will start afresh.") from error
    if state.get("fingerprint") != fingerprint:
        raise HeadstartError("belongs to a run with other settings, data or weights", path=path,
                             fix="Give another output folder, or remove this file to start afresh.")
    return state
