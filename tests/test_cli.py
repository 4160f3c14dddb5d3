"""The command line refuses what it cannot do in one message: which file, what is wrong, what to do. No traceback."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from headstart.brains.contract import Contract
from headstart.brains.store import StoreWriter
from tiny_study import HEADSTART, finetune, prepare, run, write_bids, write_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("study") / "store")


def refused(command: list[str], *words: str, code: int = 1, preexec: Callable[[], None] | None = None) -> None:
    """The command ends with ``code`` and one message that holds all ``words``."""
    done = run(command, preexec)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("headstart: ")]
    assert len(said) == 1, done.stderr
    for word in words:
        assert word in said[0]


@pytest.mark.parametrize(("arguments", "words"), [
    (["--target", "iq", "--task", ""], ["'iq'", "age, group, same, sex, site"]),
    (["--task", "headache"], ["unknown task 'headache'", "brain-age, ad, pd, sex"]),
    (["--task", "ad"], ["diagnosis"]),
    (["--backbone", "vit-giant"], ["vit-giant", "vit-tiny", "cnn-small"]),
    (["--upstream", "imagnet"], ["imagnet"]),
    (["--mode", "lora"], ["transformers", "vit backbone"]),
    (["--upstream", "imagenet-mae-base", "--backbone", "vit-base"], ["CC BY-NC 4.0", "--accept-licence"]),
    (["--upstream", "imagenet-vit-tiny"], ["imagenet-vit-tiny"]),
    (["--train-sites", "A", "--test-sites", "C"], ["no scan is from site 'C'", "Sites: A, B"]),
    (["--test-sites", "A,B"], ["site"]),
    (["--folds", "40"], ["fold"]),
    (["--split", "/nowhere/split.tsv"], ["/nowhere/split.tsv"]),
], ids=lambda value: " ".join(value[:2]) if value[0].startswith("--") else "")
def test_a_request_that_does_not_fit_the_data(store: Path, tmp_path: Path, arguments: list[str],
                                              words: list[str]) -> None:
    command = [part for part in finetune(store, tmp_path / "out", *arguments) if part]
    if "--target" in arguments:
        command = [part for part in command if part not in ("--task", "brain-age")]
    refused(command, *words)


@pytest.mark.parametrize("arguments", [["--target", "iq"], ["--task", "brain-age", "--backbone", "vit-giant"],
                                       ["--task", "brain-age", "--upstream", "imagnet"],
                                       ["--task", "brain-age", "--mode", "lora"],
                                       ["--task", "brain-age", "--test-sites", "C"],
                                       ["--task", "brain-age", "--folds", "5"]], ids=lambda words: words[-2])
def test_a_request_that_cannot_be_met_is_refused_before_any_scan_is_prepared(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    bids = write_bids(tmp_path / "bids")
    refused([*HEADSTART, "finetune", str(bids), "--out", str(tmp_path / "out"), *arguments],
            "LoRA" if "lora" in arguments else arguments[-1])
    assert not (tmp_path / "cache" / "stores").exists()


def test_one_class_only(store: Path, tmp_path: Path) -> None:
    command = finetune(store, tmp_path / "out", "--target", "same", task="")
    refused([part for part in command if part not in ("--task", "")], "'same'", "one")


def test_three_subjects_only(tmp_path: Path) -> None:
    three = write_store(tmp_path / "store", [20.0, 40.0, 60.0])
    command = finetune(three, tmp_path / "out", "--folds", "5")
    refused(command, "3 subjects")


def test_a_folder_that_is_no_store_and_one_that_is_unfinished(tmp_path: Path) -> None:
    refused(finetune(tmp_path / "nothing", tmp_path / "out"), str(tmp_path / "nothing"), "is not a store")
    writer = StoreWriter(tmp_path / "half", Contract())
    with pytest.raises(KeyboardInterrupt), writer:
        raise KeyboardInterrupt
    refused(finetune(tmp_path / "half", tmp_path / "out"), "has not finished", "Run the same prepare command again")


def test_a_store_of_a_newer_version(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    contract = tmp_path / "store" / "contract.json"
    contract.write_text(contract.read_text().replace('"version": 1', '"version": 9', 1))
    refused(finetune(tmp_path / "store", tmp_path / "out"), "contract.json", "newer headstart")


def test_one_flipped_byte_is_found_while_training(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    voxels = tmp_path / "store" / "voxels.f16"
    content = bytearray(voxels.read_bytes())
    content[len(content) // 2] ^= 1
    voxels.write_bytes(content)
    refused(finetune(tmp_path / "store", tmp_path / "out"), "voxels.f16", "is damaged", "toy/sub-06")


def test_a_store_from_other_settings(store: Path, tmp_path: Path) -> None:
    command = prepare(write_bids(tmp_path / "bids", 1), store, "--volume", "2mm")
    refused(command, str(store), "volume is 4mm, not 2mm", "another --store")


def test_an_output_that_holds_another_experiment(store: Path, tmp_path: Path) -> None:
    (tmp_path / "experiment.json").write_text(json.dumps({"version": 1, "backbone": "other"}))
    refused(finetune(store, tmp_path), str(tmp_path), "holds another experiment", "backbone", "another --out")


def test_an_output_that_is_a_file(store: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    refused(finetune(store, tmp_path / "out"), str(tmp_path / "out"), "cannot be written")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("arguments", [["prepare"], ["finetune", "--target", "age"]], ids=["prepare", "finetune"])
def test_a_folder_that_is_no_bids(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "pictures").mkdir()
    more = ["--store", str(tmp_path / "store")] if arguments == ["prepare"] else ["--out", str(tmp_path / "out")]
    command, *options = arguments
    refused([*HEADSTART, command, str(tmp_path / "pictures"), *options, *more], str(tmp_path / "pictures"))
    refused([*HEADSTART, command, str(tmp_path / "absent"), *options, *more], str(tmp_path / "absent"))


def test_a_report_of_nothing(tmp_path: Path) -> None:
    refused([*HEADSTART, "report", str(tmp_path)], str(tmp_path), "holds no finished run", "Run finetune into it")


@pytest.mark.parametrize("room", [100, 100_000], ids=["none", "little"])
def test_a_full_disk(store: Path, tmp_path: Path, room: int) -> None:
    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as a full disk: writing fails, nobody is killed
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    refused(finetune(store, tmp_path / "out"), str(tmp_path / "out"), "cannot be written", "Free some disk space",
            preexec=little_room)


def test_a_full_disk_while_preparing(tmp_path: Path) -> None:
    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    refused(prepare(write_bids(tmp_path / "bids", 1), tmp_path / "store"), str(tmp_path / "store"), "cannot be written",
            "Free some disk space", preexec=little_room)


AS_NOBODY = """
import os
import headstart.experiment
from headstart.cli import main
if os.getuid() == 0:  # root ignores permissions; afterwards the interpreter's own files may be out of reach
    os.setuid(65534)
main()
"""


def test_no_permission_to_write(store: Path, tmp_path: Path) -> None:
    (locked := tmp_path / "locked").mkdir(mode=0o555)
    command = finetune(store, locked / "out")
    refused([sys.executable, "-c", AS_NOBODY, *command[len(HEADSTART):]], str(locked / "out"),
            "cannot be written (Permission denied)")
