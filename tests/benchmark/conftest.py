"""Benchmarks in tests are of toy brains, which need no simulator."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def tiny_store(toy_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """32 brains at three sites, where configurations find them."""
    monkeypatch.setenv("TINY_STORE", str(toy_store))
    return toy_store
