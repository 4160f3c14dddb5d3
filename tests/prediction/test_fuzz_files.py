"""Damaged and hostile files through prepare, predict, weights import and the web page: an answer or a message.

No crash, no hang, no file elsewhere. The short form runs a few files of every kind; `make test-long` runs 480.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.backbones import build_backbone
from headstart.brains.bids import read_bids
from headstart.brains.prepare import prepare
from headstart.brains.volumes import volume_spec
from headstart.errors import HeadstartError
from headstart.prediction import open_model
from headstart.prediction.outputs import Place, predict_into
from headstart.prediction.server import Server
from headstart.tasks import DECLARED
from headstart.upstreams import load_into

sys.path.insert(0, str(Path(__file__).parents[1]))
from limits import limited_memory
from tiny_model import QUICK, familiar, scan_path, write_model, write_scans

FILES = 60 if os.environ.get("HEADSTART_LONG") == "1" else 4  # of each of eight kinds
SECONDS = 60.0  # of processor time, for one file
MEMORY = 2 * 2**30

Change = Callable[[bytearray, np.random.Generator], bytearray]


def flipped(content: bytearray, rng: np.random.Generator) -> bytearray:
    for place in rng.integers(0, len(content), rng.integers(1, 20)):
        content[place] = rng.integers(256)
    return content


def header_changed(content: bytearray, rng: np.random.Generator) -> bytearray:
    for place in rng.integers(0, min(352, len(content)), rng.integers(1, 6)):
        content[place] = rng.choice([0, 1, 127, 128, 255])
    return content


def cut(content: bytearray, rng: np.random.Generator) -> bytearray:
    return content[: rng.integers(len(content))]


def repeated(content: bytearray, rng: np.random.Generator) -> bytearray:
    start, stop = np.sort(rng.integers(0, len(content), 2))
    return content[:stop] + content[start:]


def blanked(content: bytearray, rng: np.random.Generator) -> bytearray:
    start, stop = np.sort(rng.integers(0, len(content), 2))
    content[start:stop] = bytes([rng.choice([0, 255, ord('"'), ord("9")])]) * (stop - start)
    return content


CHANGES: tuple[Change, ...] = (flipped, header_changed, cut, repeated, blanked)


def mutated(content: bytes, seed: int) -> bytes:
    """One to three changes, the same ones every time."""
    rng, out = np.random.default_rng(seed), bytearray(content)
    for _ in range(rng.integers(1, 4)):
        out = CHANGES[rng.integers(len(CHANGES))](out, rng) or bytearray(b"\0")
    return bytes(out)


@pytest.fixture(autouse=True, scope="module")
def bounded() -> Iterator[None]:
    """No file may take more than 2 GB on top of what the libraries hold."""
    with limited_memory(MEMORY):
        yield


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good scan (as .nii), a good model with features, and checkpoints, in one folder."""
    folder = tmp_path_factory.mktemp("fuzz")
    write_model(folder / "model", DECLARED["brain-age"], 1, familiar())
    write_scans(folder / "bids", 1)
    (folder / "bids" / "participants.tsv").write_text("participant_id\tage\tsex\nsub-00\t31\tF\n")
    network = build_backbone("cnn-small", volume_spec("4mm"))
    torch.save({"state_dict": network.state_dict()}, folder / "weights.pt")
    return folder


def survives(folder: Path, work: Callable[[], object], out: Path | None = None) -> None:
    """``work`` ends in time with a value or a message, and writes nowhere but in ``out``."""
    before, start = tree(folder, out), time.process_time()
    said = message(work)
    assert said is None or (said.strip() and "Traceback" not in said)
    assert time.process_time() - start < SECONDS
    assert tree(folder, out) == before


def message(work: Callable[[], object]) -> str | None:
    """What it says where it refuses; anything else that is raised fails the test."""
    try:
        work()
    except HeadstartError as error:
        return str(error)
    return None


def tree(folder: Path, out: Path | None) -> set[tuple[str, int]]:
    return {(str(path), path.stat().st_size) for path in folder.rglob("*")
            if path.is_file() and (out is None or out not in path.parents)}


def each(content: bytes, first_seed: int):
    """The mutated forms of a file."""
    return (mutated(content, first_seed + i) for i in range(FILES))


@pytest.mark.timeout(3600)
def test_scans(ground: Path) -> None:
    model, good = open_model(ground / "model"), scan_path(ground / "bids", "sub-00").read_bytes()
    out, scan = ground / "out", ground / "scan.nii.gz"
    for content in each(good, 1000):
        scan.write_bytes(content)
        survives(ground, lambda: predict_into(Place(out, out, "scan", "age"), model, scan, {}, "gradient"), out)


@pytest.mark.timeout(3600)
def test_data_sets(ground: Path, tmp_path: Path) -> None:
    """Every scan of a data set is damaged: the others go on, and each that is set aside has its reason."""
    good = scan_path(ground / "bids", "sub-00").read_bytes()
    for position, content in enumerate(each(good, 7000)):
        scan_path(tmp_path / "bids", f"sub-{position:03}").write_bytes(content)
    before = tree(tmp_path, tmp_path / "store")
    summary = prepare(read_bids([tmp_path / "bids"]), tmp_path / "store", QUICK, jobs=1, progress=False)
    assert summary.prepared + len(summary.failed) == FILES
    assert all(reason.strip() and "Traceback" not in reason for reason in summary.failed.values())
    assert tree(tmp_path, tmp_path / "store") == before


@pytest.mark.timeout(3600)
def test_web_page(ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = scan_path(ground / "bids", "sub-00").read_bytes()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = tree(ground, None)
    with Server(open_model(ground / "model")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for content in each(good, 8000):
            status, said = posted(server, content)
            assert status in (200, 422), said
            assert said["answer" if status == 200 else "error"]
        server.shutdown()
    assert list(tmp_path.iterdir()) == []
    assert tree(ground, None) == before


def posted(server: Server, content: bytes) -> tuple[int, dict[str, str]]:
    """What the page is told of an upload."""
    line = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10 * SECONDS)
    line.request("POST", "/predict", content)
    reply = line.getresponse()
    said = json.loads(reply.read())
    line.close()
    return reply.status, said


@pytest.mark.parametrize(("name", "seed"), [
    ("config.json", 2000), ("model.safetensors", 3000), ("features.safetensors", 4000)])
def test_model_folders(ground: Path, name: str, seed: int) -> None:
    path = ground / "model" / name
    good = path.read_bytes()
    try:
        for content in each(good, seed):
            path.write_bytes(content)
            survives(ground, lambda: open_model(ground / "model"))
    finally:
        path.write_bytes(good)


def test_tables(ground: Path) -> None:
    path = ground / "bids" / "participants.tsv"
    good = path.read_bytes()
    for content in each(good, 5000):
        path.write_bytes(content)
        survives(ground, lambda: read_bids([ground / "bids"]))
    path.write_bytes(good)


def test_checkpoints(ground: Path) -> None:
    spec, good = volume_spec("4mm"), (ground / "weights.pt").read_bytes()
    path = ground / "hurt.pt"
    for content in each(good, 6000):
        path.write_bytes(content)
        survives(ground, lambda: load_into(path, build_backbone("cnn-small", spec), "cnn-small", spec))


def test_the_damage_is_real(ground: Path) -> None:
    good = (ground / "model" / "model.safetensors").read_bytes()
    assert len({mutated(good, seed) for seed in range(50)} - {good}) == 50
