"""Fixtures shared by all tests. In CI a test that should have run on real data or a real browser may not skip."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
LONG = os.environ.get("HEADSTART_LONG") == "1"


def skip(reason: str) -> None:
    """Skip, except where the project promises that nothing is skipped: in CI with the shared data at hand."""
    if os.environ.get("CI") == "true" and SHARED.is_dir():
        pytest.fail(f"must not be skipped in CI: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's own cache stays untouched; templates are computed once a session."""
    folder = Path(os.environ.setdefault("HEADSTART_CACHE", str(tmp_path_factory.mktemp("cache"))))
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with ds002748, ds000011, ixi10 (BIDS) and synthseg_label_maps."""
    folder = SHARED / "data"
    if not folder.is_dir():
        skip(f"no real scans: {folder} does not exist")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a real Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        skip("no Chromium on this machine (apt-get install chromium)")
    return str(path)


@pytest.fixture(scope="session")
def long() -> bool:
    """True in `make test-long`: the full number of kills, cases and simulations."""
    return LONG
