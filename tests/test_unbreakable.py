"""Killed, stopped or interrupted at any moment: the same command again ends in the same result, and nothing is left."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from tiny_study import environment, finetune, prepare, run, study, write_bids, write_store

pytestmark = pytest.mark.timeout(14400 if os.environ.get("HEADSTART_LONG") == "1" else 900)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("study") / "store")


@pytest.fixture(scope="module")
def whole(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The result that nothing disturbed, and the seconds it took."""
    out, began = tmp_path_factory.mktemp("whole") / "out", time.monotonic()
    done = run(finetune(store, out))
    assert done.returncode == 0, done.stderr
    return out, time.monotonic() - began


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """The command in a process group of its own, of which nothing is left at the end."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment(),
                          start_new_session=True) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that ``process`` gave work to."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.Error:  # it has just ended
        return []


def wait_until(condition: Any, seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.01)


def kill(process: subprocess.Popen[str], what: str) -> None:
    """SIGKILL to the whole group, the parent alone or one worker; what remains ends by itself, in words."""
    others = workers(process)
    if what == "worker" and others:
        with contextlib.suppress(psutil.NoSuchProcess):
            random.choice(others).kill()
        assert "Traceback" not in process.communicate(timeout=120)[1]
        return
    (os.kill if what == "parent" else os.killpg)(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(map(alive, others)), 15)


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_and_repeat(command: list[str], folder: Path, seconds: float, kills: int) -> Iterator[None]:
    """Kill the command at ``kills`` random moments, each time starting it again; yield whenever it got through.

    The next one starts from nothing after that.
    """
    moments, done, whole = random.Random(0), 0, 0
    for what in cycle(("group", "worker", "parent")):
        with running(command) as process:
            try:
                process.wait(moments.uniform(0.2, seconds))
            except subprocess.TimeoutExpired:
                kill(process, what)
                done += 1
        if done >= kills:
            assert (last := run(command)).returncode == 0, last.stderr
        if process.returncode == 0 or done >= kills:
            whole += 1
            print(f"{command[3]}: {done} kills, {whole} runs that got through")
            yield
            shutil.rmtree(folder)
        if done >= kills:
            return


def test_finetune_killed_at_random_moments(store: Path, whole: tuple[Path, float], tmp_path: Path, long: bool) -> None:
    out = tmp_path / "out"
    for _ in kill_and_repeat(finetune(store, out), out, whole[1], 60 if long else 3):
        assert study(out) == study(whole[0])


def test_prepare_killed_at_random_moments(tmp_path: Path, long: bool) -> None:
    bids, began = write_bids(tmp_path / "bids"), time.monotonic()
    assert run(prepare(bids, tmp_path / "whole")).returncode == 0
    seconds = time.monotonic() - began
    for _ in kill_and_repeat(prepare(bids, tmp_path / "killed"), tmp_path / "killed", seconds, 30 if long else 2):
        assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())
            if path.name not in (".lock", "timings.tsv", "qc.html")}


def test_report_killed_at_random_moments(whole: tuple[Path, float], tmp_path: Path, long: bool) -> None:
    out, report = tmp_path / "out", [*finetune(Path(), Path())[:3], "report", str(tmp_path / "out")]
    shutil.copytree(whole[0], out)
    began = time.monotonic()
    assert run(report).returncode == 0
    seconds, wanted = time.monotonic() - began, (out / "report.html").read_bytes()
    moments, killed = random.Random(1), 0
    while killed < (10 if long else 1):
        with running(report) as process:
            try:
                process.wait(moments.uniform(0.1, seconds))
            except subprocess.TimeoutExpired:
                kill(process, "group")
                killed += 1
        assert (out / "report.html").read_bytes() == wanted
    print(f"report: {killed} kills")
    assert run(report).returncode == 0
    assert study(out) == study(whole[0])


@pytest.mark.parametrize(("number", "everyone", "code"), [
    (signal.SIGUSR1, False, 75), (signal.SIGUSR2, True, 75), (signal.SIGTERM, False, 75), (signal.SIGINT, True, 130)])
def test_a_stop_saves_says_how_to_go_on_and_changes_nothing(
        store: Path, whole: tuple[Path, float], tmp_path: Path, number: signal.Signals, everyone: bool,
        code: int) -> None:
    """A scheduler signals the parent or everyone; Ctrl-C reaches everyone."""
    command = finetune(store, tmp_path / "out")
    with running(command) as process:
        wait_until(lambda: any((tmp_path / "out").glob("cells/*/*/training.pt")) or process.poll() is not None)
        (os.killpg if everyone else os.kill)(process.pid, number)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1].endswith("run the same command again to go on.")
    assert not any((tmp_path / "out").rglob("*.tmp"))
    assert run(command).returncode == 0
    assert study(tmp_path / "out") == study(whole[0])


def test_a_stop_in_the_middle_of_training_saves_the_state(store: Path, tmp_path: Path) -> None:
    command = finetune(store, tmp_path / "out", "--epochs", "100", "--learning-rates", "0.001,0.0003", "--jobs", "1")
    with running(command) as process:
        wait_until(lambda: any((tmp_path / "out").glob("cells/*/0.0003")))  # for 16 epochs at least
        process.send_signal(signal.SIGUSR1)
        process.wait(60)
    assert process.returncode == 75
    state, = (tmp_path / "out").glob("cells/*/0.0003/training.pt")
    assert torch.load(state, weights_only=True)["finished"] is False


def test_a_second_process_on_the_same_output_says_who_holds_it(store: Path, tmp_path: Path) -> None:
    command = finetune(store, tmp_path / "out", "--epochs", "1000")
    with running(command) as first:
        wait_until((tmp_path / "out" / "experiment.json").exists)
        second = run(command)
    assert second.returncode == 1
    assert f"is in use by process {first.pid}" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1
