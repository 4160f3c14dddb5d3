"""A benchmark on a SLURM cluster, through submitit: array jobs may be preempted, run out of time or lose a node."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.benchmark.config import Slurm
from headstart.benchmark.engine import ATTEMPTS, COORDINATOR, Work, coordinating, do, give_up, remaining
from headstart.benchmark.plan import Plan, read_plan
from headstart.benchmark.results import cell_folder
from headstart.benchmark.shared import ensure_store, store_ready
from headstart.benchmark.status import is_held, live
from headstart.errors import HeadstartError
from headstart.files import read_json, write_json
from headstart.training import Preempted

LOGS, JOBS = "slurm", "jobs.json"
POLL_SECONDS = 5.0
# A warning may come while Python starts, which would die of it: it is ignored until there is someone to answer.
UNTIL_READY = """bash -c 'trap "" USR2; exec "$@"' headstart"""
ENDS_WITHIN_SECONDS = 600.0  # longer than the time of grace that any cluster gives
CUT_SHORT = {"NODE_FAIL", "PREEMPTED", "TIMEOUT"}  # the work is not to blame: it goes on, as often as after a warning
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
         "TIMEOUT", "GONE"}  # GONE: so long ended that the scheduler has forgotten it


@dataclass
class Batch:
    """Work that one job does, piece after piece; submitit runs it again, as it is, after a requeue.

    Attributes:
        stores: make the stores of these tasks first.
    """

    work: Sequence[Work] = ()
    stores: Sequence[tuple[Path, str]] = ()
    cpus: int = 1

    def __call__(self) -> None:
        import submitit

        os.environ["HEADSTART_LOG"] = str(submitit.JobEnvironment().paths.stdout)
        _use_threads(self.cpus)
        try:
            for folder, name in self.stores:
                plan = read_plan(folder)
                ensure_store(folder, plan, plan.task(name), self.cpus)
            for piece in self.work:
                do(piece)
        except Preempted as stop:
            _hand_over(stop)

    def checkpoint(self) -> Any:
        """Asked by submitit before it puts the job back into the queue: all progress is on disk."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _use_threads(cpus: int) -> None:
    import torch

    torch.set_num_threads(cpus)


def _hand_over(stop: Preempted) -> None:
    """Training has saved its state. A warning of the time limit is submitit's to answer: it requeues the job.

    SIGTERM means that the scheduler ends the job for reasons of its own (scancel, preemption), and knows what follows:
    a job that ends by itself in the time of grace has failed to SLURM, and is not requeued.
    """
    if stop.name in ("SIGUSR1", "SIGUSR2"):
        os.kill(os.getpid(), signal.SIGUSR2)
    time.sleep(ENDS_WITHIN_SECONDS)  # submitit's handler, or the scheduler, ends the process
    raise stop


# --- giving work out


@dataclass
class Sent:
    """Work that is with the scheduler: by job, and how often each piece was sent."""

    jobs: dict[str, list[str]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    attempts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, folder: Path) -> Sent:
        path = folder / COORDINATOR / JOBS
        if not path.exists():
            return cls()
        value = read_json(path)
        return cls(value["jobs"], value["logs"], Counter(value["attempts"]))

    def write(self, folder: Path) -> None:
        write_json(folder / COORDINATOR / JOBS, {"jobs": self.jobs, "logs": self.logs, "attempts": self.attempts})


def run_on_slurm(plan: Plan, folder: Path, slurm: Slurm, poll_seconds: float = POLL_SECONDS) -> None:
    """Do every cell that has not ended, as array jobs; jobs go on without this process, and are found again.

    Raises:
        Stopped: a stop signal came; the jobs go on.
        HeadstartError: there is no SLURM, it refuses the jobs, or someone cancelled them.
    """
    if shutil.which("sbatch") is None:
        raise HeadstartError("there is no SLURM on this machine (no sbatch)",
                             fix="Run this where jobs are submitted, or use --executor here.")
    folder = folder.resolve()
    with coordinating(plan, folder):
        _make_stores(plan, folder, slurm, poll_seconds)
        with live(folder) as tell:
            _Rounds(plan, folder, slurm, poll_seconds, tell).work_off()


def _make_stores(plan: Plan, folder: Path, slurm: Slurm, poll_seconds: float) -> None:
    """In one job: stores of the same scans are shared, and each is made by as many processes as a job has."""
    batch = Batch(stores=[(folder, task.name) for task in plan.tasks], cpus=slurm.cpus)
    if all(store_ready(folder, plan, task) for task in plan.tasks):
        return
    job, = submit([batch], folder, slurm, f"{plan.name}-data")
    while (state := states([job.job_id])[job.job_id]) not in ENDED:
        time.sleep(poll_seconds)
    if not all(store_ready(folder, plan, task) for task in plan.tasks):
        raise HeadstartError(f"the job that prepares the scans ended as {state}", path=job.paths.stderr,
                             fix="The file gives the reason; then run the same command again.")


@dataclass
class _Rounds:
    plan: Plan
    folder: Path
    slurm: Slurm
    poll_seconds: float
    tell: Callable[[], None]

    def work_off(self) -> None:
        """Send, wait, and send again what was cut off."""
        sent, cancelled = Sent.read(self.folder), set[str]()
        while todo := [work for work in remaining(self.plan, self.folder) if work.name not in cancelled]:
            now = states(list(sent.jobs))
            with_scheduler = {name for job, names in sent.jobs.items() if now[job] not in ENDED for name in names}
            idle = [work for work in todo if work.name not in with_scheduler and not self._held(work)]
            cancelled |= self._cancelled(sent, now, idle)
            self._send(sent, self._not_given_up(sent, now, [w for w in idle if w.name not in cancelled]))
            self.tell()
            time.sleep(self.poll_seconds)
        if cancelled:
            raise HeadstartError(f"{len(cancelled)} cells were cancelled in the scheduler", path=self.folder,
                                 fix="Run the same command again to do them after all.")

    def _held(self, work: Work) -> bool:
        """Someone is at it: a process that outlived its job, or one that was started by hand."""
        return work.kind == "cell" and is_held(cell_folder(self.folder, work.name))

    def _cancelled(self, sent: Sent, now: dict[str, str], idle: Sequence[Work]) -> set[str]:
        """Idle work whose last job someone cancelled; forgotten, so that the next call sends it again."""
        names = {name for job, own in sent.jobs.items() if now[job] == "CANCELLED" for name in own}
        found = names & {work.name for work in idle}
        if found:
            sent.jobs = {job: own for job, own in sent.jobs.items() if now[job] != "CANCELLED"}
            sent.attempts = Counter({name: n for name, n in sent.attempts.items() if name not in found})
            sent.write(self.folder)
        return found

    def _not_given_up(self, sent: Sent, now: dict[str, str], idle: Sequence[Work]) -> list[Work]:
        """What is to be sent; cells whose jobs died again and again are recorded as failures."""
        alive = []
        for work in idle:
            job = next((job for job in reversed(sent.jobs) if work.name in sent.jobs[job]), None)
            times = sent.attempts[work.name]
            if job is None or times < (self.slurm.restarts if now[job] in CUT_SHORT else ATTEMPTS):
                alive.append(work)
            else:
                self._give_up(sent, work, f"its job ended as {now[job]}, and was sent {times} times", sent.logs[job])
        return alive

    def _give_up(self, sent: Sent, work: Work, problem: str, log: str) -> None:
        if work.kind != "cell":
            raise HeadstartError(f"the floors of {work.name}: {problem}", path=log, fix="See that file.")
        give_up(self.folder, self.plan.cell(work.name), problem, log)
        del sent.attempts[work.name]  # after `retry` it begins anew
        sent.write(self.folder)

    def _send(self, sent: Sent, works: Sequence[Work]) -> None:
        """As one array; a piece that was sent before goes alone, so that it cannot take others down."""
        if not works:
            return
        fresh = [work for work in works if not sent.attempts[work.name]]
        size = self.slurm.cells_per_job
        groups = [fresh[start: start + size] for start in range(0, len(fresh), size)]
        groups += [[work] for work in works if sent.attempts[work.name]]
        batches = [Batch(group, cpus=self.slurm.cpus) for group in groups]
        for job, group in zip(submit(batches, self.folder, self.slurm, self.plan.name), groups, strict=True):
            sent.jobs[job.job_id] = [work.name for work in group]
            sent.logs[job.job_id] = str(job.paths.stderr)
            sent.attempts.update(work.name for work in group)
        sent.write(self.folder)


def submit(batches: Sequence[Batch], folder: Path, slurm: Slurm, name: str) -> list[Any]:
    """Submit one array job; submitit's jobs, in order.

    Raises:
        HeadstartError: the scheduler refuses, in its own words.
    """
    import submitit

    executor = submitit.AutoExecutor(folder / LOGS, cluster="slurm", slurm_max_num_timeout=slurm.restarts,
                                     slurm_python=f"{UNTIL_READY} {slurm.python or shlex.quote(sys.executable)}")
    options = {"requeue": True, **slurm.options}
    settings = {"slurm_partition": slurm.partition, "slurm_account": slurm.account, "mem_gb": slurm.memory_gb,
                "slurm_setup": list(slurm.setup) or None}
    executor.update_parameters(
        name=f"headstart-{name}", timeout_min=slurm.minutes, cpus_per_task=slurm.cpus,
        slurm_array_parallelism=slurm.at_once, slurm_signal_delay_s=slurm.warn_seconds,
        slurm_additional_parameters=options,
        **{key: value for key, value in settings.items() if value is not None})
    try:
        return executor.submit_array(batches)
    except (subprocess.CalledProcessError, submitit.core.utils.FailedJobError) as error:
        said = getattr(error, "stderr", None) or str(error)
        words = said.decode() if isinstance(said, bytes) else said
        raise HeadstartError(f"SLURM refuses the jobs: {' '.join(words.split())}",
                             fix="Mend the `slurm:` section of the configuration.") from error


def states(jobs: Sequence[str]) -> dict[str, str]:
    """What the scheduler says of each job (``12`` or ``12_3``); GONE where it says nothing any more.

    While the scheduler does not answer, every job counts as PENDING.
    """
    if not jobs:
        return {}
    asked = subprocess.run(["squeue", "--noheader", "--array", "--states=all", f"--user={getpass.getuser()}",
                            "--format=%i|%T"], capture_output=True, text=True, check=False)
    if asked.returncode:
        return dict.fromkeys(jobs, "PENDING")
    known = dict(line.strip().split("|") for line in asked.stdout.splitlines() if "|" in line)
    return {job: known.get(job, "GONE") for job in jobs}
