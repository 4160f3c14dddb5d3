"""Without a network: predictions run end to end on an empty cache, and what is missing is named with its place."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from headstart.tasks import DECLARED
from tiny_model import write_model, write_scans
from tiny_study import HEADSTART

# Every Python process refuses to look up a name or to connect beyond this machine's own files, and says that it tried.
NO_NETWORK = '''
import os, sys

def refuse(event, arguments):
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(arguments[1], tuple)):
        with open(os.environ["NETWORK_USED"], "a") as file:
            file.write(f"{event} {arguments}\\n")
        raise OSError("there is no network")

sys.addaudithook(refuse)
'''


@pytest.fixture
def offline(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine without a network, where headstart has never run."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NO_NETWORK)
    path = os.pathsep.join(filter(None, [str(tmp_path / "site"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "NETWORK_USED": str(tmp_path / "network"), "OMP_NUM_THREADS": "1",
            "HEADSTART_CACHE": str(tmp_path / "cache")}


def headstart(environment: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*HEADSTART, *map(str, arguments)], env=environment, capture_output=True, text=True)


def tried(environment: dict[str, str]) -> str:
    """What was asked of the network."""
    path = Path(environment["NETWORK_USED"])
    return path.read_text() if path.exists() else ""


def test_the_network_is_really_gone(offline: dict[str, str]) -> None:
    done = headstart(offline, "weights", "fetch", "imagenet-resnet18")
    assert done.returncode == 1
    assert "there is no network" in done.stderr
    assert "download.pytorch.org" in tried(offline)


def test_predictions_need_none(offline: dict[str, str], tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", DECLARED["brain-age"], 1)
    bids = write_scans(tmp_path / "bids", 1)
    done = headstart(offline, "predict", bids, tmp_path / "out", "participant", "--model", model, "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "participants.tsv").read_text().count("\tok\t") == 1
    assert tried(offline) == ""


def test_a_whole_head_needs_none(offline: dict[str, str], tmp_path: Path, real_data: Path, long: bool) -> None:
    """deepbet's weights and the template's atlas come with their packages."""
    if not long:
        pytest.skip("brain extraction takes many seconds; in make test-long")
    scan = sorted((real_data / "ixi10").rglob("*_T1w.nii.gz"))[0]
    done = headstart(offline, "--offline", "predict", scan, "--model", "brain-age-synthetic")
    assert done.returncode == 0, done.stderr
    assert tried(offline) == ""


@pytest.mark.parametrize(("arguments", "words"), [
    (["--offline", "weights", "fetch", "imagenet-resnet18"], ["cache/weights/imagenet-resnet18", "weights fetch"]),
    (["data", "fetch", "ds000011", "--offline", "--out", "sets"], ["sets", "'ds000011' is not here", "data fetch"]),
], ids=["weights", "data"])
def test_what_is_missing_is_named(offline: dict[str, str], tmp_path: Path, arguments: list[str],
                                  words: list[str]) -> None:
    done = subprocess.run([*HEADSTART, *arguments], env=offline, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    for word in ["HEADSTART_OFFLINE forbids the network", *words]:
        assert word in done.stderr
    assert tried(offline) == ""
