"""Where work runs: in this process, or in several on this machine.

Each worker computes with one thread, so that results do not depend on how many cores a machine has.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from headstart.errors import HeadstartError, Stopped

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # what clusters send before they take a node away


class Workers:
    """A pool of processes that is started when first needed and used until the ``with`` ends.

    Args:
        jobs: processes, each with one thread.
    """

    def __init__(self, jobs: int) -> None:
        self._stack = contextlib.ExitStack()
        self._jobs = jobs
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self._pool is not None and kind is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            _signal(self._pool, signal.SIGTERM)
        self._stack.close()

    def run(self, function: Callable[..., Any], calls: Iterable[tuple]) -> Iterator[Any]:
        """Yield ``function(*call)`` for each call as they finish, in any order; one failure ends the run.

        Raises:
            Stopped: a stop signal came; running calls were told and have saved what they had.
            HeadstartError: a call failed, or a worker was killed (out of memory, by hand).
        """
        calls = list(calls)
        pending = {self._started().submit(function, *call) for call in calls}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from map(_result, done)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(self._jobs, mp_context=context, initializer=_one_thread)
            self._pool = self._stack.enter_context(pool)
            self._stack.enter_context(_forwarding(pool))
        return self._pool


def _result(future: Future) -> Any:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise HeadstartError(
            "a worker process ended without a word (killed, or out of memory)",
            fix="Finished parts are kept: run the same command again, with fewer --jobs if memory is short.",
        ) from error


def _one_thread() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)


@contextlib.contextmanager
def _forwarding(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Pass stop signals on to the workers: a scheduler may signal only the process it started."""

    def forward(number: int, _frame: Any) -> None:
        _signal(pool, signal.Signals(number))
        raise Stopped(f"stopped by {signal.Signals(number).name}",
                      fix="Everything finished is saved; run the same command again to go on.")

    before = {number: signal.signal(number, forward) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(pool: ProcessPoolExecutor, number: signal.Signals) -> None:
    for pid in list(getattr(pool, "_processes", None) or ()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
