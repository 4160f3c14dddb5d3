"""Fixtures shared by all tests. In CI a test that should have run on real data or a real browser may not skip."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
LONG = os.environ.get("HEADSTART_LONG") == "1"
# Files that take a minute or more begin first, so that no worker is left with one of them at the end.
SLOW = ["test_unbreakable.py", "test_slurm.py", "test_engine.py", "test_tutorials.py", "test_training.py",
        "test_cli.py", "test_experiment.py", "test_weights_commands.py", "test_labelmaps.py", "test_prepare.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: SLOW.index(item.path.name) if item.path.name in SLOW else len(SLOW))


def skip(reason: str) -> None:
    """Skip, except where the project promises that nothing is skipped: in CI with the shared data at hand."""
    if os.environ.get("CI") == "true" and SHARED.is_dir():
        pytest.fail(f"must not be skipped in CI: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's own cache stays untouched; templates are computed once a session, whatever worker needs them."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return Path(os.environ.setdefault("HEADSTART_CACHE", str(shared / "cache")))


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As in the workers that results are compared with; and threads would wait for those that tests start."""
    torch.set_num_threads(1)


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


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """That Chromium, running; one at a time, as playwright wants it."""
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def long() -> bool:
    """True in `make test-long`: the full number of kills, cases and simulations."""
    return LONG


@pytest.fixture(scope="session")
def toy_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 brains of three sites whose grey matter darkens with age: what a network can learn in seconds."""
    from headstart.brains.cohort import Scan
    from headstart.brains.contract import Contract
    from headstart.brains.store import StoreWriter, pack
    from headstart.brains.volumes import template

    path, contract, target = tmp_path_factory.mktemp("toy-store"), Contract(volume="4mm"), template("4mm")
    rng = np.random.default_rng(0)
    scans, rows = [], []
    for i in range(32):
        age, site = rng.uniform(20, 80), "abc"[i % 3]
        brain = target.t1 - 0.006 * (age - 50) * target.grey + 0.02 * rng.standard_normal(target.t1.shape)
        rows.append(pack(np.where(target.brain, brain, 0).astype(np.float32), contract.spec))
        scans.append(Scan("toy", f"sub-{i:02}", "", Path(f"sub-{i:02}.nii"), site, age_years=float(age),
                          sex="FM"[i // 3 % 2], subject=f"toy/sub-{i:02}", simulated=True,
                          columns={"diagnosis": "AD" if age > 50 else "CN", "grey_rel": f"{900 - 3 * age:.1f}"}))
    scans.append(Scan("toy", "sub-99", "", Path("sub-99.nii"), "a", subject="toy/sub-99", simulated=True))
    rows.append(rows[0])
    with StoreWriter(path, contract) as writer:
        writer.append_many(scans, np.stack(rows))
    return path
