"""The quality page of a store."""

from __future__ import annotations

from pathlib import Path


def write_qc(store_path: str | Path) -> Path:
    return Path(store_path) / "qc.html"
