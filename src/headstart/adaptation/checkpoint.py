"""Checkpoints are read, never run: safetensors first, then PyTorch's own formats as data alone."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.adaptation.steps import State
from headstart.adaptation.torchscript import is_torchscript, read_torchscript
from headstart.errors import HeadstartError
from headstart.files import sha256_file

# Where training programs put the tensors inside what they save; the first that is there is taken.
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "teacher", "student",
            "model_state", "network_weights")
MAX_EXPANSION = 4  # PyTorch stores its archives uncompressed: a file that grows on reading was not written by it
SLACK_BYTES = 1 << 20
DAMAGED = "Fetch the file again; if it stays damaged, ask its publisher for a safetensors file."


def read_checkpoint(path: str | Path, *, sha256: str | None = None) -> State:
    """The tensors of a checkpoint, by the names in the file; nothing in the file is executed.

    Reads safetensors, PyTorch's zip and legacy formats (``weights_only``), and the tensors of TorchScript archives.

    Args:
        path: the file.
        sha256: the digest it must have, or the digest's first digits (8 or more) where no more was published.

    Raises:
        HeadstartError: the file is missing, damaged, too large inside, of another kind, has another digest, or asks to
            run code.
    """
    path = Path(path)
    if not path.is_file():
        raise HeadstartError("is not a file", path=path, fix="Give the path of a checkpoint.")
    if sha256 is not None:
        check_sha256(path, sha256)
    return _checked(path, _read(path))


def check_sha256(path: Path, expected: str) -> None:
    """HeadstartError unless the file's SHA-256 is ``expected``, or begins with it."""
    digest = sha256_file(path)
    if not digest.startswith(expected.lower()):
        raise HeadstartError(f"has SHA-256 {digest}, expected {expected}", path=path,
                             fix="It is damaged or is another file; delete it and fetch it again.")


def _read(path: Path) -> Any:
    with open(path, "rb") as file:
        head = file.read(9)
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head[:2] == b"PK":
        _check_archive(path)
        return read_torchscript(path) if is_torchscript(path) else _read_torch(path, mmap=True)
    if head[:1] == b"\x80":  # a pickle's first byte: the format before PyTorch 1.6
        return _read_torch(path, mmap=False)
    raise HeadstartError("is not a checkpoint (neither safetensors nor PyTorch)", path=path,
                         fix="Give a .safetensors, .pt, .pth, .bin or .ckpt file; an .npz must be converted first.")


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise HeadstartError(f"is not a whole safetensors file ({error})", path=path, fix=DAMAGED) from error


def _check_archive(path: Path) -> None:
    """Refuse archives that are cut short, damaged, or much larger inside than outside, before they are read."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            inside = sum(entry.file_size for entry in archive.infolist())
            if inside > MAX_EXPANSION * size + SLACK_BYTES:
                raise HeadstartError(f"unpacks from {size:,} to {inside:,} bytes, which no PyTorch file does",
                                     path=path, fix="Do not use this file.")
            damaged = archive.testzip()
    except HeadstartError:
        raise
    except Exception as error:  # zip and zlib have many ways to say that bytes are wrong
        raise HeadstartError(f"is not a whole archive ({error})", path=path, fix=DAMAGED) from error
    if damaged is not None:
        raise HeadstartError(f"is damaged (checksum of '{damaged}')", path=path, fix=DAMAGED)


def _read_torch(path: Path, *, mmap: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("WeightsUnpickler error:")[2].strip().partition("\n")[0] or "a damaged pickle"
        raise HeadstartError(f"holds more than tensors, or is damaged ({reason}); nothing was run", path=path,
                             fix="Ask its publisher for a safetensors file.") from error
    except Exception as error:  # a broken pickle can break the reader in any way
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise HeadstartError(f"is not a whole PyTorch file ({first})", path=path, fix=DAMAGED) from error


def _checked(path: Path, content: Any) -> State:
    state = _tensors(content)
    if state is None:
        found = ", ".join(map(str, list(content)[:8])) if isinstance(content, Mapping) else type(content).__name__
        raise HeadstartError(f"holds no state dict (found: {found})", path=path,
                             fix="Save `model.state_dict()` with safetensors and give that.")
    expanded = [key for key, tensor in state.items()
                if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()]
    if expanded:
        raise HeadstartError(f"claims more numbers than it stores ('{expanded[0]}')", path=path,
                             fix="Do not use this file.")
    return state


def _tensors(content: Any) -> State | None:
    """The state dict in what a file holds, or None."""
    if not isinstance(content, Mapping):
        return None
    inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    if inner is not None:
        return _tensors(inner)
    state = {str(key): tensor.detach() for key, tensor in content.items() if isinstance(tensor, Tensor)}
    return state if state and len(state) == len(content) else None
