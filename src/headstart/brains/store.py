"""A store: prepared scans as rows of one memory-mapped file, beside an index that is whole or absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from isal import isal_zlib

from headstart.brains.contract import Contract
from headstart.brains.store_format import (
    INDEX,
    RESTORE,
    VOXELS,
    StoredScan,
    pack,
    read_contract,
    read_index,
    row_bytes,
    unpack,
)
from headstart.brains.store_writer import StoreWriter
from headstart.brains.volumes import VolumeSpec
from headstart.errors import HeadstartError
from headstart.files import sha256_file

if TYPE_CHECKING:
    import torch

__all__ = ["Store", "StoreWriter", "StoredScan", "pack", "unpack"]


class Store:
    """A finished store, open for reading. Opening reads the index only; rows stay on disk until they are asked for.

    Attributes:
        path: its folder.
        contract: how its scans were prepared.
        scans: in row order; every method below takes indices into this tuple.
    """

    def __init__(self, path: Path, contract: Contract, scans: tuple[StoredScan, ...],
                 header: Mapping[str, Any]) -> None:
        self.path, self.contract, self.scans, self._header = path, contract, scans, header
        self._rows = np.array([stored.row for stored in scans], np.int64)
        self._crcs = np.array([stored.crc32 for stored in scans], np.uint32)

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open the store in folder ``path``.

        Raises:
            HeadstartError: there is none, it is unfinished, damaged, or from a newer version.
        """
        path = Path(path)
        contract = read_contract(path)
        if not (path / INDEX).exists():
            raise HeadstartError("is a store whose preparation has not finished", path=path,
                                 fix="Run the same prepare command again; it goes on where it stopped.")
        header, scans = read_index(path, contract)
        size, wanted = (path / VOXELS).stat().st_size, header["rows"] * row_bytes(contract.spec)
        if size < wanted:
            raise HeadstartError(f"has {size:,} bytes where {wanted:,} belong", path=path / VOXELS, fix=RESTORE)
        return cls(path, contract, scans, header)

    def __len__(self) -> int:
        return len(self.scans)

    @property
    def spec(self) -> VolumeSpec:
        return self.contract.spec

    def rows(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The scans' kept voxels, float16 (n, n_kept), each checked against its checksum as it is read."""
        wanted = np.asarray(indices, np.int64)
        out = np.empty((len(wanted), self._voxels.shape[1]), np.float16)
        for position, index in enumerate(wanted):
            out[position] = self._voxels[self._rows[index]]
            if isal_zlib.crc32(out[position]) != self._crcs[index]:
                raise self._damaged(int(index))
        return out

    def volumes(self, indices: Sequence[int] | np.ndarray) -> torch.Tensor:
        """The scans as float32 (n, 1, X, Y, Z), zero where the template has no brain near."""
        import torch

        return unpack(torch.from_numpy(self.rows(indices)), self.spec)

    def verify(self) -> None:
        """Read every byte and compare it with what was written.

        Raises:
            HeadstartError: it names the first file or scan that differs.
        """
        for name, sha256 in self._header["sha256_of"].items():
            if not (self.path / name).exists() or sha256_file(self.path / name) != sha256:
                raise HeadstartError("is not the file that was written", path=self.path / name, fix=RESTORE)
        for index in range(len(self)):
            self.rows([index])

    @cached_property
    def _voxels(self) -> np.ndarray:
        """All rows, mapped read-only (rows, n_kept); pages come and go with the system's cache."""
        shape = (self._header["rows"], row_bytes(self.spec) // 2)
        if not shape[0]:
            return np.empty(shape, np.float16)
        return np.memmap(self.path / VOXELS, np.float16, "r", shape=shape)

    def _damaged(self, index: int) -> HeadstartError:
        key = self.scans[index].scan.key
        return HeadstartError(f"is damaged: the voxels of {key} are not those that were written",
                              path=self.path / VOXELS, fix=RESTORE)
