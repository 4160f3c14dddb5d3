"""Where work runs: in this process, or in several on this machine.

Each worker computes with one thread, so that results do not depend on how many cores a machine has.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import connection
from typing import Any

from headstart.errors import HeadstartError, Stopped
from headstart.processes import end_with_parent, spawning, stop_signals

GRACE_SECONDS = 20.0  # to save in, when told to stop; clusters usually give 30


class Workers:
    """A pool of processes that is started when first needed and used until the ``with`` ends.

    Leaving it by an error or a stop signal tells the processes to save what they have, and waits for them.

    Args:
        jobs: processes, each with one thread.
    """

    def __init__(self, jobs: int) -> None:
        self._stack = contextlib.ExitStack()
        self._jobs = jobs
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        self._stack.enter_context(stop_signals(self._tell))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        with self._stack:
            if self._pool is not None:
                if kind is not None:
                    self._end()
                self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, function: Callable[..., Any], calls: Iterable[tuple]) -> Iterator[Any]:
        """Yield ``function(*call)`` for each call as they finish, in any order; one failure ends the run.

        A process never holds more than the call it works on, so that a stop is not followed by one more call.

        Raises:
            Stopped: a stop signal came; running calls were told and have saved what they had.
            HeadstartError: a call failed, or a worker was killed (out of memory, by hand).
        """
        waiting = iter(calls)
        pending = self._submit(function, islice(waiting, self._jobs))
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            results = [_result(future) for future in done]
            pending |= self._submit(function, islice(waiting, len(done)))
            yield from results

    def _submit(self, function: Callable[..., Any], calls: Iterable[tuple]) -> set[Future]:
        with spawning():
            if self._pool is None:
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(self._jobs, mp_context=context, initializer=_begin)
            return {self._pool.submit(_call, function, *call) for call in calls}

    def _end(self) -> None:
        """Let the processes save; one that waits for a lock that another took to its grave would wait for ever."""
        processes = dict(getattr(self._pool, "_processes", None) or {})
        self._tell(signal.SIGTERM)
        ends = time.monotonic() + GRACE_SECONDS
        for process in processes.values():
            connection.wait([process.sentinel], max(0.0, ends - time.monotonic()))
        self._tell(signal.SIGKILL)

    def _tell(self, number: signal.Signals) -> None:
        """Pass a signal on: a scheduler may have told only the process that it started."""
        for pid in list(getattr(self._pool, "_processes", None) or ()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _result(future: Future) -> Any:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise HeadstartError(
            "a worker process ended without a word (killed, or out of memory)",
            fix="Finished parts are kept: run the same command again, with fewer --jobs if memory is short.",
        ) from error


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """In a worker: after a stop there is no next call to wait for."""
    try:
        return function(*arguments)
    except Stopped:
        os._exit(1)


def _begin() -> None:
    """In a worker, before its first call."""
    end_with_parent()
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)
