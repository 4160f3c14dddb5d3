"""Preparation of a whole cohort: many scans, several processes, one store."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from headstart.brains.cohort import Cohort, Scan
from headstart.brains.contract import Contract
from headstart.brains.facts import Facts
from headstart.brains.progress import progress_bar
from headstart.brains.qc import write_qc
from headstart.brains.scan import Prepared, prepare_scan
from headstart.brains.store import StoreWriter, pack
from headstart.brains.workers import run_each
from headstart.errors import HeadstartError
from headstart.processes import stop_signals

__all__ = ["Prepared", "Summary", "prepare", "prepare_scan"]


@dataclass(frozen=True)
class Summary:
    """How many scans were prepared now, had been prepared before, and could not be (with the reason, by key)."""

    prepared: int
    skipped: int
    failed: dict[str, str]

    def __str__(self) -> str:
        return f"{self.prepared} scans prepared, {self.skipped} already there, {len(self.failed)} set aside"


def prepare(cohort: Cohort, store_path: str | Path, contract: Contract, *, jobs: int = 2,
            progress: bool = True, cohort_alone: bool = False) -> Summary:
    """Prepare every scan of ``cohort`` into the store at ``store_path``, and write its QC page.

    Scans that the store already holds, unchanged, are skipped, but for what the tables say of them now; one that fails
    is set aside with its reason and tried again by the next run. Stopped or killed, the same call goes on where it
    was, and ends in the same bytes.

    Args:
        cohort: the scans; rows of a new store follow their order.
        store_path: folder of the store.
        contract: how to prepare; a store holds one contract.
        jobs: processes, each with one thread.
        progress: show a bar, or lines where the output is not a terminal.
        cohort_alone: scans that an earlier call brought and ``cohort`` does not have leave the store.

    Raises:
        HeadstartError: the store cannot be written or has another contract.
        Stopped: SIGTERM, SIGUSR1 or SIGUSR2 came; the same call goes on.
    """
    with stop_signals(), StoreWriter(store_path, contract, cohort.scans, plan_alone=cohort_alone) as writer:
        todo = [scan for scan in cohort if not writer.finished(scan)]
        failed = _prepare_each(todo, writer, contract, jobs, progress)
    write_qc(store_path)
    return Summary(len(todo) - len(failed), len(cohort) - len(todo), failed)


def _prepare_each(todo: Sequence[Scan], writer: StoreWriter, contract: Contract, jobs: int,
                  progress: bool) -> dict[str, str]:
    failed = {}
    work = partial(_prepare_row, contract=contract)
    with progress_bar("Preparing", len(todo), progress) as advance, \
            contextlib.closing(run_each(work, todo, jobs)) as answers:
        for scan, answer in answers:
            if isinstance(answer, Exception):
                failed[str(scan.key)] = _reason(answer)
                writer.fail(scan, failed[str(scan.key)])
            else:
                row, facts, seconds = answer
                writer.append(scan, row, facts)
                writer.time(scan, seconds)
            advance()
    return failed


def _prepare_row(scan: Scan, contract: Contract) -> tuple[np.ndarray, Facts, dict[str, float]]:
    """In a worker: only the kept voxels travel back."""
    prepared = prepare_scan(scan.path, contract)
    return pack(prepared.volume, contract.spec), prepared.facts, prepared.seconds


def _reason(error: Exception) -> str:
    if isinstance(error, HeadstartError):
        return " ".join(filter(None, [error.problem + ".", error.fix]))
    return f"unexpected {type(error).__name__}: {error}"
