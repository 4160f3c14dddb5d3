"""Every tutorial is run, on real scans, and prints what it shows."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tutorials import blocks, run, run_page

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all pages are run, one after the other: a few people of each data set."""
    made = tmp_path_factory.mktemp("tutorials")
    few(real_data / "ds002748", made / "ds002748", [f"sub-{number}" for number in range(48, 56)])
    few(real_data / "ds000011", made / "ds000011", ["sub-01"])
    few(real_data / "ixi10", made / "my-lab", [f"sub-IXI0{number}" for number in (12, 13, 14, 15, 34)])
    few(real_data / "ds002748", made / "other-site", ["sub-70", "sub-71"])
    broken = next((made / "my-lab" / "sub-IXI034" / "anat").glob("*.nii.gz"))
    broken.write_bytes(broken.read_bytes()[:200_000])
    return made


def few(source: Path, target: Path, people: list[str]) -> None:
    """A data set of some people of another."""
    target.mkdir()
    shutil.copy(source / "dataset_description.json", target)
    header, *rows = (source / "participants.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [row for row in rows if row.split("\t")[0] in people]
    (target / "participants.tsv").write_text("".join([header, *kept]), encoding="utf-8")
    for person in people:
        shutil.copytree(source / person, target / person)


@pytest.fixture(scope="module")
def store(folder: Path) -> None:
    """What the second tutorial leaves to those after it, also where a test is run alone."""
    if not (folder / "store").exists():
        run(next(block for block in blocks("my-bids") if "headstart prepare" in block.text), folder)


@pytest.fixture
def slurm(long: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In the long form a real SLURM of one node; otherwise the page's commands for it are left out."""
    if not long:
        yield
        return
    subprocess.run([ROOT / "scripts" / "start-slurm", tmp_path], check=True)
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    yield
    subprocess.run([ROOT / "scripts" / "stop-slurm", tmp_path], check=True)


def test_ten_minutes(folder: Path) -> None:
    run_page("ten-minutes", folder)


def test_my_bids(folder: Path) -> None:
    run_page("my-bids", folder)


def test_checkpoint(folder: Path, store: None) -> None:
    run_page("checkpoint", folder)


def test_slurm(folder: Path, store: None, slurm: None) -> None:
    run_page("slurm", folder)


def test_extend(folder: Path) -> None:
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    run_page("extend", folder)
    shutil.rmtree(folder / "src")
