"""The files of a store, and the types their lines hold.

    contract.json   how the scans were prepared
    plan.json       which scan owns which row, fixed before work begins
    voxels.f16      rows of float16, one a scan: the template's ``kept`` voxels in C order
    index.jsonl     a checksummed header, then one line a finished scan, by row
    failed.tsv      scans that were set aside, and why
    timings.tsv     seconds by step, for information
    qc.html         the quality page
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from headstart.brains.cohort import Scan
from headstart.brains.contract import Contract
from headstart.brains.facts import Facts
from headstart.brains.volumes import VolumeSpec, template
from headstart.errors import HeadstartError
from headstart.files import read_json, write_json

if TYPE_CHECKING:
    import torch

FORMAT, VERSION = "headstart-store", 1
CONTRACT, PLAN, VOXELS, INDEX, FAILED = "contract.json", "plan.json", "voxels.f16", "index.jsonl", "failed.tsv"
TIMINGS, QC = "timings.tsv", "qc.html"
RESTORE = "Run prepare into a new folder, or restore this one from a copy."


@dataclass(frozen=True, slots=True)
class Source:
    """What tells whether a scan's file changed since it was prepared."""

    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredScan:
    """A line of the index: the scan, where its row is, what its bytes sum to, what was measured.

    ``facts`` and ``source`` are None where a scan was simulated straight into the store.
    """

    scan: Scan
    row: int
    crc32: int
    facts: Facts | None
    source: Source | None

    def to_json(self) -> dict[str, Any]:
        source = self.source and {name: getattr(self.source, name) for name in Source.__slots__}
        return {"row": self.row, "crc32": self.crc32, "scan": self.scan.to_json(),
                "facts": self.facts and self.facts.to_json(), "source": source}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StoredScan:
        facts, source = value["facts"], value["source"]
        return cls(Scan.from_json(value["scan"]), value["row"], value["crc32"],
                   facts and Facts.from_json(facts), source and Source(**source))


def row_bytes(spec: VolumeSpec) -> int:
    """Bytes a scan takes in ``voxels.f16``."""
    return 2 * int(template(spec.name).kept.sum())


def pack(volume: np.ndarray, spec: VolumeSpec) -> np.ndarray:
    """A volume (..., X, Y, Z) as the kept voxels a row holds: float16 (..., n_kept)."""
    return volume[..., template(spec.name).kept].astype(np.float16)


def unpack(rows: torch.Tensor, spec: VolumeSpec) -> torch.Tensor:
    """Rows (n, n_kept) as volumes, float32 (n, 1, X, Y, Z)."""
    import torch

    kept = torch.from_numpy(np.flatnonzero(template(spec.name).kept))
    flat = torch.zeros(len(rows), int(np.prod(spec.shape)))
    return flat.index_copy_(1, kept, rows.float()).view(len(rows), 1, *spec.shape)


def read_contract(path: Path) -> Contract:
    """The contract of the store in ``path``.

    Raises:
        HeadstartError: there is no store, or one that this version cannot read.
    """
    if not (path / CONTRACT).exists():
        raise HeadstartError("is not a store", path=path, fix="Give the folder that `headstart prepare --store` wrote.")
    value = read_json(path / CONTRACT)
    check_version(value, path / CONTRACT)
    try:
        return Contract.model_validate(value["contract"])
    except (ValidationError, KeyError) as error:
        raise HeadstartError("does not describe a preparation that this version knows", path=path / CONTRACT,
                             fix=RESTORE) from error


def write_contract(path: Path, contract: Contract) -> None:
    write_json(path / CONTRACT, {"format": FORMAT, "version": VERSION, "contract": contract.model_dump()})


def check_version(value: Any, path: Path) -> None:
    """Refuse what is not a store's file, or was written by a newer version."""
    if not isinstance(value, dict) or value.get("format") != FORMAT or not isinstance(value.get("version"), int):
        raise HeadstartError("is not part of a store", path=path, fix=RESTORE)
    if value["version"] > VERSION:
        raise HeadstartError(f"is from a newer headstart (store version {value['version']}, this one reads {VERSION})",
                             path=path, fix="Upgrade headstart, or prepare the scans again with this version.")


def encode_index(header: dict[str, Any], scans: Sequence[StoredScan]) -> bytes:
    """The index file: the header carries the SHA-256 of everything else in the file."""
    body = b"".join(dumps(stored.to_json()) + b"\n" for stored in scans)
    header = {"format": FORMAT, "version": VERSION, **header}
    return dumps({**header, "sha256": _index_sha256(header, body)}) + b"\n" + body


def read_index(path: Path, contract: Contract) -> tuple[dict[str, Any], tuple[StoredScan, ...]]:
    """Header and scans of a finished store, after checking version, checksum and contract."""
    first, _, body = (path / INDEX).read_bytes().partition(b"\n")
    try:
        header = json.loads(first)
    except ValueError as error:
        raise HeadstartError(f"is damaged ({error})", path=path / INDEX, fix=RESTORE) from error
    check_version(header, path / INDEX)
    if header.pop("sha256", None) != _index_sha256(header, body):
        raise HeadstartError("is damaged: its checksum does not match", path=path / INDEX, fix=RESTORE)
    if header["contract"] != contract.digest:
        raise HeadstartError("was changed after the scans were prepared", path=path / CONTRACT, fix=RESTORE)
    return header, tuple(StoredScan.from_json(json.loads(line)) for line in body.splitlines())


def _index_sha256(header: Mapping[str, Any], body: bytes) -> str:
    return hashlib.sha256(dumps(header) + b"\n" + body).hexdigest()


def dumps(value: Any) -> bytes:
    """JSON on one line, without spaces."""
    return json.dumps(value, separators=(",", ":")).encode()
