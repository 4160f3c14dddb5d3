"""Benchmarks that are run, run again, killed at any time, and that meet a cell that cannot succeed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_benchmark import HEADSTART, TINY, environment, write_config, write_start

from headstart.benchmark import Benchmark, read
from headstart.benchmark.cells import run_cell
from headstart.benchmark.config import load_config
from headstart.benchmark.engine import do, remaining, run_here
from headstart.benchmark.floors import ensure_floors
from headstart.benchmark.plan import Cell, Plan
from headstart.benchmark.resolve import make_plan
from headstart.benchmark.results import CELL, PREDICTIONS, cell_folder
from headstart.benchmark.saliency import FILE as SALIENCY
from headstart.benchmark.saliency import read_saliency
from headstart.benchmark.shared import open_task, waiting_writer
from headstart.benchmark.status import look, retry, status_table
from headstart.benchmark_report import write


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADSTART_STARTS", str(write_start(tmp_path / "starts")))
    return tmp_path / "starts"


def planned(folder: Path, **changes) -> Plan:
    plan = make_plan(load_config(write_config(folder / "tiny.yaml", **changes)))
    plan.claim(folder / "out")
    return plan


def tables(folder: Path) -> dict[str, bytes]:
    """The predictions of every cell, to the byte."""
    return {path.parent.name: path.read_bytes() for path in folder.glob(f"cells/*/{PREDICTIONS}")}


def test_a_benchmark_runs_once_and_its_cells_are_comparable(tmp_path: Path, starts: Path) -> None:
    plan, out = planned(tmp_path), tmp_path / "out"
    run_here(plan, out, jobs=2)
    found = read(out)
    assert len(found.done) == len(plan.cells) == 6
    tested = [result.predictions.sorted() for result in found.cells]
    for table in tested:
        assert list(table.participant_id) == list(tested[0].participant_id)
        assert set(table.partition) == {"inside", "outside"}
    assert {floor for floor, _ in found.floors("brain-age")} >= {"constant", "voxels", "mask"}
    _maps_are_kept(found)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.is_file()}
    run_here(plan, out, jobs=2)
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.is_file()}
    assert {p for p in before if before[p] != after.get(p)} <= {out / "coordinator" / ".lock"}


def _maps_are_kept(found: Benchmark) -> None:
    """By the first seed's cells alone, of the same two people of the held-out site; zero outside their brains."""
    kept = {result.cell: looks for result in found.cells if (looks := read_saliency(result.folder / SALIENCY))}
    assert {cell.seed for cell in kept} == {0}
    assert len(kept) == 3
    assert len({looks.keys for looks in kept.values()}) == 1
    people = found.cells[0].predictions
    truth = [people.truth[people.keys.index(key)] for key in next(iter(kept.values())).keys]
    assert truth[0] < np.median(people.part("outside").truth) < truth[1]
    for looks in kept.values():
        assert looks.maps.max((1, 2, 3)).tolist() == [1, 1]
        assert not looks.maps[looks.brains == 0].any()


def test_a_cell_that_fails_is_recorded_and_the_others_go_on(tmp_path: Path, starts: Path) -> None:
    plan, out = planned(tmp_path), tmp_path / "out"
    weights = starts / "synthetic-mri" / "cnn-small-4mm" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    for cell in plan.cells:
        run_cell(out, plan, cell)
    found = read(out)
    assert {result.cell.upstream for result in found.failed} == {"synthetic-mri"}
    assert all("model.safetensors" in str(result.record.error) for result in found.failed)
    assert len(found.done) == 4
    assert "model.safetensors" in _text(status_table(look(out)))
    weights.write_bytes(whole)
    assert retry(out) == 2
    for work in remaining(plan, out):
        do(work)
    assert len(read(out).done) == 6


def test_a_task_whose_scans_cannot_be_used_does_not_stop_the_others(tmp_path: Path, starts: Path) -> None:
    few = {"task": "ad", "simulate": {"cohort": "ad", "n": 12, "sites": 2}, "outside_sites": ["sim-b"]}
    plan, out = planned(tmp_path, tasks=[few, TINY["tasks"][0]], test_parts=8), tmp_path / "out"
    run_here(plan, out, jobs=1)
    found = read(out)
    assert {result.cell.task for result in found.failed} == {"ad"}
    assert all("too few for 8 folds" in str(result.record.error) for result in found.failed)
    assert {result.cell.task for result in found.done} == {"brain-age"}
    assert not remaining(plan, out)
    assert "too few for 8 folds" in write(out).read_text(encoding="utf-8")
    retry(out)
    assert remaining(plan, out)[0].name == "ad"


def test_starts_that_are_not_here_are_left_out_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_STARTS", str(tmp_path / "none"))
    plan = planned(tmp_path)
    assert plan.upstreams == ("scratch",)
    assert "synthetic-mri in cnn-small is left out" in plan.notes[0]


def test_frozen_features_change_nothing(tmp_path: Path) -> None:
    """A probe on shared features says what the ordinary path through fit and predict says."""
    from headstart.benchmark.cells import _Attempt

    plan = planned(tmp_path, rows=[{"backbone": "cnn-small", "upstream": "scratch", "mode": "probe"}])
    attempt = _Attempt(tmp_path / "out", plan, plan.cells[0])
    shared = attempt._on_frozen_features(attempt._fold)["test"]
    ordinary = attempt._trainer.cross_validate(attempt._fold)["test"]
    np.testing.assert_allclose(shared, ordinary, rtol=1e-4)


def test_floors_learn_from_the_same_people(tmp_path: Path) -> None:
    plan = planned(tmp_path, train_sizes=[8, "full"])
    ensure_floors(tmp_path / "out", plan, plan.tasks[0])
    opened = open_task(tmp_path / "out", plan, plan.tasks[0])
    floors = read(tmp_path / "out").floors("brain-age")
    few, everyone, constant = floors["voxels", 8], floors["voxels", "full"], floors["constant", 8]
    assert few.same_rows(everyone)
    assert not np.allclose(few.prediction, everyone.prediction)
    trained = [np.median(opened.data.targets[np.concatenate(opened.training(8, seed)[:2])]) for seed in (0, 1)]
    assert sorted(set(constant.prediction)) == pytest.approx(sorted(set(trained)))


def test_a_cell_in_other_hands_is_left_alone(tmp_path: Path) -> None:
    plan = planned(tmp_path, rows=[{"backbone": "cnn-small", "upstream": "scratch"}])
    cell = plan.cells[0]
    with waiting_writer(cell_folder(tmp_path / "out", cell.digest)):
        assert look(tmp_path / "out").running == (cell,)
        assert run_cell(tmp_path / "out", plan, cell) is None
    assert look(tmp_path / "out").running == ()


def test_kills_at_any_time_lose_nothing_and_do_nothing_twice(tmp_path: Path, starts: Path, long: bool) -> None:
    """Workers and the benchmark itself are killed at random; the results are those of a quiet run, to the byte."""
    config = write_config(tmp_path / "tiny.yaml", training={"epochs": 6, "learning_rates": [0.001]})
    plan = make_plan(load_config(config))
    quiet, out = tmp_path / "quiet", tmp_path / "out"
    plan.claim(quiet)
    for cell in plan.cells:
        run_cell(quiet, plan, cell)
    rng, first_written = random.Random(0), dict[Path, int]()
    command = [*HEADSTART, "benchmark", "--config", str(config), "--out", str(out), "--workers", "2"]
    for round_ in range(20 if long else 2):
        _run_and_kill(command, starts, rng, whole=round_ % 2 == 1)
        _check_written_once(out, first_written)
    done = subprocess.run(command, env=environment(starts), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _check_written_once(out, first_written)
    assert tables(out) == tables(quiet)
    assert not list(out.rglob("*.headstart.tmp"))


def _run_and_kill(command: list[str], starts: Path, rng: random.Random, *, whole: bool) -> None:
    """Start it, and some time after its workers have begun kill one of them, or the process that leads them."""
    process = subprocess.Popen(command, env=environment(starts), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    workers = _wait_for_workers(process)
    time.sleep(rng.uniform(4, 9))
    victim = process.pid if whole or not workers else rng.choice(workers).pid
    with_children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    _kill(victim)
    if whole:
        process.wait()
        psutil.wait_procs(with_children, timeout=30)  # they end with their parent
    else:
        process.wait(timeout=300)


def _wait_for_workers(process: subprocess.Popen) -> list[psutil.Process]:
    for _ in range(600):
        if process.poll() is not None:
            return []
        workers = [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(_line(child))]
        if len(workers) == 2:
            return workers
        time.sleep(0.05)
    return []


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _check_written_once(out: Path, first_written: dict[Path, int]) -> None:
    for path in out.glob(f"cells/*/{CELL}"):
        assert first_written.setdefault(path, path.stat().st_mtime_ns) == path.stat().st_mtime_ns, path


def _text(renderable) -> str:
    from rich.console import Console

    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


def test_a_stop_signal_saves_and_the_same_command_goes_on(tmp_path: Path, starts: Path) -> None:
    config = write_config(tmp_path / "tiny.yaml", rows=[{"backbone": "cnn-small", "upstream": "scratch"}], seeds=1,
                          training={"epochs": 400, "patience": 400, "learning_rates": [0.001]})
    command = [*HEADSTART, "benchmark", "--config", str(config), "--out", str(tmp_path / "out"), "--workers", "1"]
    process = subprocess.Popen(command, env=environment(starts), stderr=subprocess.PIPE, text=True)
    cell: Cell = make_plan(load_config(config)).cells[0]
    training = cell_folder(tmp_path / "out", cell.digest) / "training"
    while process.poll() is None and not training.exists():
        time.sleep(0.1)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert list(training.rglob("training.pt")), "the state of training was saved"
