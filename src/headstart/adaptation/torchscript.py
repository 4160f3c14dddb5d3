"""The tensors of a TorchScript archive, without running it: its object tree is unpickled into inert nodes.

``torch.jit.load`` compiles and can run the code in the archive. Here the code is never opened. ``data.pkl`` is read by
an unpickler that can make four kinds of thing only: ordered dictionaries, lists, tensors over bytes in the archive,
and nodes that are bags of attributes.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.errors import HeadstartError

DTYPES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}


def is_torchscript(path: Path) -> bool:
    """True if a zip archive holds a TorchScript module rather than a plain pickle."""
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers by dotted name, as ``state_dict`` would call them.

    Raises:
        HeadstartError: the archive is damaged, or its object tree needs something that is not data.
    """
    with zipfile.ZipFile(path) as archive:
        try:
            name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
            root = _Unpickler(archive, name.removesuffix("data.pkl")).load()
        except HeadstartError as error:
            raise HeadstartError(error.problem, path=path, fix=error.fix) from error
        except Exception as error:  # a pickle can be broken in any way
            raise HeadstartError(f"is not a whole TorchScript archive ({error})", path=path,
                                 fix="Fetch the file again.") from error
    return dict(_walk(root, ""))


class _Node:
    """A module of the archive: a bag of attributes without behaviour."""

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _Unpickler(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, prefix: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{prefix}data.pkl")))
        self.archive, self.prefix = archive, prefix

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return _Node
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if module == "torch.jit._pickle":  # typed lists and type tags: their content is all that matters here
            return _content
        raise HeadstartError(f"asks for '{module}.{name}', which is not data; nothing was run",
                             fix="Ask its publisher for a safetensors file.")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, length = pid
        values = torch.frombuffer(bytearray(self.archive.read(f"{self.prefix}data/{key}")), dtype=dtype)
        if len(values) != length:
            raise ValueError(f"storage {key} holds {len(values)} numbers, not {length}")
        return values


def _content(value: Any, *_: Any) -> Any:
    return value


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


def _walk(node: Any, prefix: str) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for name, value in getattr(node, "attributes", {}).items():
        if isinstance(value, Tensor):
            found.append((prefix + name, value))
        elif isinstance(value, _Node):
            found += _walk(value, f"{prefix}{name}.")
    return found
