"""Files are read, never run; what is wrong with one is said."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import random
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from headstart.adaptation import read_checkpoint
from headstart.errors import HeadstartError

STATE = {"a.weight": torch.arange(600.0).view(20, 30), "a.bias": torch.ones(3, dtype=torch.float16)}


def same(found: dict) -> bool:
    return set(found) == set(STATE) and all(torch.equal(found[key], STATE[key]) for key in STATE)


def write(path: Path, kind: str) -> Path:
    if kind == "safetensors":
        save_file(STATE, path)
    else:
        content = {"epoch": 3, "state_dict": STATE} if kind == "wrapped" else STATE
        torch.save(content, path, _use_new_zipfile_serialization=kind != "legacy")
    return path


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy", "wrapped"])
def test_every_format_gives_the_same_tensors(tmp_path: Path, kind: str) -> None:
    assert same(read_checkpoint(write(tmp_path / "weights", kind)))


class Evil:
    """Unpickling this runs a command."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self):
        return os.system, (f"touch {self.flag}",)


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, new: bool) -> None:
    flag, path = tmp_path / "ran", tmp_path / "evil.pt"
    torch.save({"state_dict": STATE, "extra": Evil(flag)}, path, _use_new_zipfile_serialization=new)
    with pytest.raises(HeadstartError, match="nothing was run") as caught:
        read_checkpoint(path)
    assert not flag.exists()
    assert str(path) in str(caught.value)
    torch.load(path, weights_only=False)  # the same file does run where it is trusted: the test can fail
    assert flag.exists()


def test_a_bare_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    flag, path = tmp_path / "ran", tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(Evil(flag), protocol=2))
    with pytest.raises(HeadstartError):
        read_checkpoint(path)
    assert not flag.exists()


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


def scripted(path: Path) -> dict:
    model = Small()
    torch.jit.script(model).save(path)
    return model.state_dict()


@pytest.mark.filterwarnings("ignore")
def test_torchscript_gives_its_tensors_without_being_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = scripted(tmp_path / "model.pt")
    monkeypatch.setattr(torch.jit, "load", None)
    found = read_checkpoint(tmp_path / "model.pt")
    assert set(found) == set(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.filterwarnings("ignore")
def test_torchscript_whose_pickle_runs_code_is_refused(tmp_path: Path) -> None:
    flag, path, evil = tmp_path / "ran", tmp_path / "model.pt", tmp_path / "evil.pt"
    scripted(path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(evil, "w") as out:
        for name in source.namelist():
            payload = pickle.dumps(Evil(flag), protocol=2)
            out.writestr(name, payload if name.endswith("/data.pkl") else source.read(name))
    with pytest.raises(HeadstartError, match="nothing was run"):
        read_checkpoint(evil)
    assert not flag.exists()


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.99])
def test_truncated_files_are_named(tmp_path: Path, kind: str, keep: float) -> None:
    path = write(tmp_path / "weights", kind)
    whole = path.read_bytes()
    path.write_bytes(whole[:int(keep * len(whole))])
    with pytest.raises(HeadstartError, match="weights"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy", "torchscript"])
def test_random_damage_is_refused_in_words_or_harmless(tmp_path: Path, kind: str, long: bool) -> None:
    path = tmp_path / "weights"
    if kind == "torchscript":
        scripted(path)
    else:
        write(path, kind)
    whole, damage = path.read_bytes(), random.Random(0)
    for _ in range(3000 if long else 100):
        content = bytearray(whole[:damage.randrange(len(whole))] if damage.random() < 0.2 else whole) or bytearray(1)
        for _ in range(damage.choice([1, 3, 20])):
            content[damage.randrange(len(content))] = damage.randrange(256)
        path.write_bytes(content)
        with contextlib.suppress(HeadstartError):  # any other exception fails
            read_checkpoint(path)


def test_a_corrupted_byte_in_an_archive_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "weights.pt", "zip")
    content = bytearray(path.read_bytes())
    at = content.find(STATE["a.weight"].numpy().tobytes()[400:440])
    content[at] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(HeadstartError, match="damaged"):
        read_checkpoint(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(200 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(HeadstartError, match="which no PyTorch file does"):
        read_checkpoint(path)


def test_a_tensor_that_claims_more_than_it_stores_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1).expand(10**9)}, tmp_path / "wide.pt")
    with pytest.raises(HeadstartError, match="more numbers than it stores"):
        read_checkpoint(tmp_path / "wide.pt")


def test_the_digest_is_checked_whole_or_by_its_first_digits(tmp_path: Path) -> None:
    path = write(tmp_path / "weights", "safetensors")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert same(read_checkpoint(path, sha256=digest))
    assert same(read_checkpoint(path, sha256=digest[:8]))
    with pytest.raises(HeadstartError, match="SHA-256"):
        read_checkpoint(path, sha256="0" * 64)


@pytest.mark.parametrize(("content", "message"), [
    (b"hello, this is text", "not a checkpoint"), (b"", "not a checkpoint"), (b"PK\x03\x04 no zip", "archive")])
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(HeadstartError, match=message):
        read_checkpoint(tmp_path / "file")


def test_a_file_without_a_state_dict_says_what_it_found(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"epoch": 3, "losses": [1.0]}, buffer)
    (tmp_path / "log.pt").write_bytes(buffer.getvalue())
    with pytest.raises(HeadstartError, match=r"no state dict \(found: epoch, losses\)"):
        read_checkpoint(tmp_path / "log.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match="is not a file"):
        read_checkpoint(tmp_path / "none.pt")
