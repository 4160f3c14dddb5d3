"""Benchmarks on a real one-node SLURM: a quiet run, a job that runs out of time, a lost node, a cancelled job.

These take minutes, because a scheduler does; everything that is slow about benchmarks is in this file.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from tiny_benchmark import HEADSTART, write_config

from headstart.benchmark import read
from headstart.benchmark.cells import run_cell
from headstart.benchmark.config import load_config
from headstart.benchmark.floors import ensure_floors
from headstart.benchmark.plan import Plan
from headstart.benchmark.resolve import make_plan
from headstart.benchmark.results import CELL, PREDICTIONS, cell_folder
from headstart.benchmark.status import look

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
EPOCHS = 300  # of the job that is preempted: half a minute each time before it could end
SCRATCH_ROW = [{"backbone": "cnn-small", "upstream": "scratch"}]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running SLURM; its folder."""
    if shutil.which("slurmctld", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        absent = "no SLURM on this machine (apt-get install slurm-wlm munge)"
        pytest.fail(absent) if os.environ.get("CI") == "true" else pytest.skip(absent)
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([SCRIPTS / "start-slurm", folder], check=True)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    yield folder
    wait_for(lambda: not subprocess.run(["squeue", "--noheader"], capture_output=True, check=True).stdout, 30)
    subprocess.run([SCRIPTS / "stop-slurm", folder], check=True)
    del os.environ["SLURM_CONF"]


@pytest.fixture
def start() -> Iterator[Callable[[Path, Path], subprocess.Popen]]:
    """Start a benchmark on the cluster; what still runs at the end of the test is ended."""
    begun: list[subprocess.Popen] = []

    def begin(config: Path, out: Path) -> subprocess.Popen:
        command = [*HEADSTART, "benchmark", "--config", str(config), "--out", str(out), "--executor", "slurm"]
        begun.append(subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE,
                                      text=True))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()
    subprocess.run(["scancel", "--me"], check=True)


def wait_for(what: Callable[[], object], seconds: float) -> None:
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, f"waited {seconds:.0f} s in vain"
        time.sleep(0.5)


def test_array_jobs_do_every_cell_with_the_options_of_the_configuration(slurm: Path, start: Callable,
                                                                         tmp_path: Path) -> None:
    config, out = write_config(tmp_path / "tiny.yaml", rows=SCRATCH_ROW, slurm={
        "minutes": 5, "cells_per_job": 2, "cpus": 1, "at_once": 1, "partition": "main", "account": "lab",
        "options": {"comment": "a-test", "gres": "toy:1"}}), tmp_path / "out"
    process = start(config, out)
    wait_for(lambda: (out / "coordinator" / "jobs.json").exists(), 60)
    shown = scheduler_says(running_cell_job(out))
    assert {"Partition=main", "Account=lab", "Comment=a-test", "TresPerNode=gres:toy:1", "TimeLimit=00:05:00",
            "CPUs/Task=1", "ArrayTaskThrottle=1", "Requeue=1"} <= set(shown.split())
    said = process.communicate(timeout=200)[1]
    found = read(out)
    assert len(found.done) == 2, said
    assert {floor for floor, _ in found.floors("brain-age")} >= {"constant", "voxels"}
    assert all(Path(str(result.record.log)).is_file() for result in found.done)
    again, before = start(config, out), times(out)
    assert again.wait(timeout=60) == 0
    assert times(out) == before, "nothing is sent or done a second time"


def times(out: Path) -> dict[Path, int]:
    """When the records, and the list of jobs that were sent, were written."""
    return {path: path.stat().st_mtime_ns for path in out.rglob("*.json")}


def test_an_unknown_partition_is_refused_in_the_schedulers_words(slurm: Path, start: Callable, tmp_path: Path) -> None:
    config = write_config(tmp_path / "tiny.yaml", rows=SCRATCH_ROW, slurm={"partition": "nowhere"})
    process = start(config, tmp_path / "out")
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "invalid partition" in said


def test_time_out_lost_node_and_cancelling_keep_progress(slurm: Path, start: Callable, tmp_path: Path) -> None:
    """A cell that would train for hours: its job runs out of its minute, loses its node, and is cancelled at last."""
    config = write_config(tmp_path / "tiny.yaml", rows=SCRATCH_ROW, seeds=1,
                          training={"epochs": 20_000, "patience": 20_000, "learning_rates": [0.001]},
                          slurm={"minutes": 1, "warn_seconds": 10, "cpus": 1})
    out, cell = tmp_path / "out", make_plan(load_config(config)).cells[0]
    coordinator = start(config, out)
    training = cell_folder(out, cell.digest) / "training"

    wait_for(lambda: saved_epoch(training) > 0, 240)  # warned of the time limit, it has saved where it was
    timed_out = saved_epoch(training)
    job = running_cell_job(out)
    wait_for(lambda: restarts(job) == 1 and look(out).running, 120)
    assert str(look(out).running[0]) == str(cell)

    power_cut(slurm, out)
    wait_for(lambda: restarts(job) == 2, 90)  # the node does not answer: its job goes back into the queue
    subprocess.run([SCRIPTS / "start-slurm", slurm], check=True)
    wait_for(lambda: look(out).running, 120)

    time.sleep(8)  # it trains again
    subprocess.run(["scancel", job.split("_")[0]], check=True)
    said = coordinator.communicate(timeout=60)[1]
    assert coordinator.returncode == 1
    assert "1 cells were cancelled in the scheduler" in said
    assert saved_epoch(training) >= timed_out, "what was learned before the time-out was not lost"
    assert read(out).missing == (cell,)


@pytest.mark.skipif(os.environ.get("HEADSTART_LONG") != "1", reason="minutes on a busy machine")
def test_preemption_changes_no_result(slurm: Path, start: Callable, tmp_path: Path) -> None:
    """In mid-training a job is warned (USR1), then gives way to an urgent one (TERM); both times it begins again."""
    config = write_config(tmp_path / "tiny.yaml", rows=SCRATCH_ROW, seeds=1, slurm={"minutes": 15, "cpus": 1},
                          training={"epochs": EPOCHS, "patience": EPOCHS, "learning_rates": [0.001]})
    out, plan = tmp_path / "out", make_plan(load_config(config))
    plan.claim(out)
    ensure_floors(out, plan, plan.tasks[0])
    coordinator = start(config, out)
    undisturbed = predictions_of_a_quiet_run(plan, tmp_path / "quiet")
    training = cell_folder(out, plan.cells[0].digest) / "training"

    wait_for(training.exists, 120)
    job = running_cell_job(out)
    subprocess.run(["scancel", "--signal=USR1", job], check=True)
    wait_for(lambda: saved_epoch(training) > 0, 60)
    warned = saved_epoch(training)
    wait_for(lambda: restarts(job) == 1 and look(out).running, 120)

    time.sleep(4)  # it trains again
    subprocess.run(["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=true"], check=True)
    wait_for(lambda: saved_epoch(training) > warned, 60)
    assert not (training.parent / CELL).exists(), "it was preempted before its end"
    wait_for(lambda: restarts(job) == 2, 60)
    said = coordinator.communicate(timeout=240)[1]
    assert coordinator.returncode == 0, said
    assert (training.parent / PREDICTIONS).read_bytes() == undisturbed


def predictions_of_a_quiet_run(plan: Plan, folder: Path) -> bytes:
    """Of the first cell, by one thread, as in its job."""
    threads = torch.get_num_threads()
    plan.claim(folder)
    try:
        torch.set_num_threads(1)
        run_cell(folder, plan, plan.cells[0])
    finally:
        torch.set_num_threads(threads)
    return (cell_folder(folder, plan.cells[0].digest) / PREDICTIONS).read_bytes()


def saved_epoch(training: Path) -> int:
    """How far the saved state of the only training is; 0 without one."""
    for path in training.rglob("training.pt"):
        return torch.load(path, weights_only=True)["progress"]["epoch"]
    return 0


def running_cell_job(out: Path) -> str:
    import json

    jobs = json.loads((out / "coordinator" / "jobs.json").read_text())["jobs"]
    digests = {cell.digest for cell in read(out).plan.cells}
    return next(job for job, names in jobs.items() if digests & set(names))


def restarts(job: str) -> int:
    found = [word.split("=")[1] for word in scheduler_says(job).split() if word.startswith("Restarts=")]
    return int(found[0]) if found else -1


def scheduler_says(job: str) -> str:
    return subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=False).stdout


def power_cut(slurm: Path, out: Path) -> None:
    """Kill the node's daemon and all that runs of this benchmark."""
    daemon = psutil.Process(int((slurm / "slurmd.pid").read_text()))
    jobs = [process for process in psutil.process_iter(["cmdline"])
            if "submitit.core._submit" in (process.info["cmdline"] or []) and str(out / "slurm") in
            process.info["cmdline"]]
    steps = {parent for process in jobs for parent in process.parents() if parent.name().startswith("slurmstepd")}
    for process in [daemon, *steps, *jobs]:
        process.kill()
