"""Pre-training that is stopped, killed or shared by processes ends where it would have ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from headstart.pretraining.config import PretrainConfig
from headstart.pretraining.curve import Curve
from headstart.pretraining.run import pretrain
from headstart.training import Preempted


def config_of(store: Path, **changes) -> PretrainConfig:
    return PretrainConfig(**{"backbone": "cnn-small", "data": store, "budget_samples": 62, "batch_size": 8, "probe": 0,
                             **changes})


@pytest.mark.parametrize("objective", ["supervised", "masked", "contrastive"])
def test_stopped_and_continued_it_ends_with_the_same_weights(
        objective: str, toy_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(toy_store, objective=objective)
    whole = pretrain(config, tmp_path / "whole", jobs=1)
    note, stopped = Curve.note, []

    def note_and_stop(self: Curve, step: int, value: float) -> None:
        note(self, step, value)
        if step == 4 and not stopped:  # heard at the end of the fifth step, the first of the second epoch
            stopped.append(step)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Curve, "note", note_and_stop)
    with pytest.raises(Preempted):
        pretrain(config, tmp_path / "parts", jobs=1)
    assert len(Curve(tmp_path / "parts" / "training" / "curve.jsonl").read()) == 5
    parts = pretrain(config, tmp_path / "parts", jobs=1)
    assert (tmp_path / "parts" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors").read_bytes()
    assert parts["curve"] == whole["curve"]
    assert parts["held_out"] == whole["held_out"]


def test_a_curve_survives_torn_lines_and_steps_that_are_told_twice(tmp_path: Path) -> None:
    curve = Curve(tmp_path / "training" / "curve.jsonl")
    assert curve.read() == {}
    for step in (1, 2, 3):
        curve.note(step, step / 2)
    with open(curve.path, "a") as file:
        file.write("\n[4, 1.")  # killed in the middle of a line
    for step in (3, 4):
        curve.note(step, step / 2)
    assert curve.read() == {1: 0.5, 2: 1.0, 3: 1.5, 4: 2.0}
    assert curve.averaged() == ([1, 2, 3, 4], [0.5, 1.0, 1.5, 2.0])


def test_killed_without_a_word_it_ends_with_the_same_weights(toy_store: Path, tmp_path: Path) -> None:
    """SIGKILL twice in the middle of training."""
    def call(out: Path) -> list[str]:
        return list(map(str, [
            sys.executable, "-m", "headstart.cli", "pretrain", "--backbone", "cnn-small", "--data", toy_store,
            "--budget-samples", 310, "--batch-size", 8, "--probe", 0, "--out", out]))

    curve, killed = Curve(tmp_path / "parts" / "training" / "curve.jsonl"), 0
    for lines in (3, 12):
        process = subprocess.Popen(call(tmp_path / "parts"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(curve.read()) < lines:
            time.sleep(0.005)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    assert killed == 2
    for name in ("parts", "whole"):
        done = subprocess.run(call(tmp_path / name), capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    parts, whole = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("parts", "whole"))
    assert parts == whole


@pytest.mark.parametrize(("objective", "backbone"), [
    ("masked", "cnn-small"), ("contrastive", "cnn-small"), ("supervised", "cnn-small"), ("supervised", "vit-mini")])
def test_two_processes_do_what_one_does(objective: str, backbone: str, toy_store: Path, tmp_path: Path) -> None:
    """The same batches, losses and weights, up to the order of sums; the shares of a batch are not all equal."""
    config = config_of(toy_store, objective=objective, backbone=backbone, batch_size=8, budget_samples=32)
    one = pretrain(config, tmp_path / "one", jobs=1)
    options = ["--backbone", backbone, "--data", toy_store, "--budget-samples", 32, "--batch-size", 8,
               "--probe", 0, "--objective", objective, "--out", tmp_path / "two"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "headstart.cli"]
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    done = subprocess.run([sys.executable, *launcher, "pretrain", *map(str, options)], capture_output=True, text=True,
                          env={**alone, "OMP_NUM_THREADS": "1"}, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("samples/s") == 1
    two = json.loads((tmp_path / "two" / "pretraining.json").read_text())
    assert two["curve"]["loss"] == pytest.approx(one["curve"]["loss"], rel=2e-4)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for key, tensor in ours.items():
        apart = torch.linalg.vector_norm(tensor - theirs[key]) / torch.linalg.vector_norm(tensor).clamp(min=1e-2)
        assert apart < 1e-3, key  # AdamW blows up what rounds differently where a gradient is nearly 0
