"""A pool of single-threaded processes that outlives the death of any of them.

``concurrent.futures`` gives up the whole pool when the kernel kills one process for its memory; here the item it was
working on is reported, a new process takes its place, and the others never notice.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from typing import Any

from headstart.errors import HeadstartError
from headstart.processes import end_with_parent, spawning

THREAD_LIMITS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
SINGLE_THREAD = dict.fromkeys(THREAD_LIMITS, "1")


class WorkerDied(HeadstartError):
    """The process working on an item ended without an answer."""


def run_each(function: Callable[[Any], Any], items: Iterable[Any], jobs: int) -> Generator[tuple[Any, Any], None, None]:
    """Yield (item, ``function(item)``) as they finish, in any order; an exception is yielded in place of a result.

    Items are taken from the iterable only as workers ask for them. Leaving the generator ends the processes.
    """
    queue = iter(items)
    workers: dict[Connection, _Worker] = {}
    try:
        for item in queue:
            worker = _Worker(function)
            workers[worker.pipe] = worker
            worker.give(item)
            if len(workers) == jobs:
                break
        while workers:
            for pipe in wait(list(workers)):
                worker = workers.pop(pipe)  # type: ignore[call-overload]
                yield worker.item, worker.answer()
                replacement = _next(worker, queue, function)
                if replacement is not None:
                    workers[replacement.pipe] = replacement
    finally:
        for worker in workers.values():
            worker.stop()


class _Worker:
    """One process and the item it has."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks and the store's files
        self.pipe, theirs = context.Pipe()
        self.item: Any = None
        self._process = context.Process(target=_serve, args=(function, theirs), daemon=True)
        # Libraries read the variables as they load, before any code of ours runs there.
        with spawning(), _environment(SINGLE_THREAD):
            self._process.start()
        theirs.close()

    @property
    def alive(self) -> bool:
        return not self.pipe.closed

    def give(self, item: Any) -> None:
        self.item = item
        self.pipe.send(item)

    def answer(self) -> Any:
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            self.stop()
            return WorkerDied(f"the process preparing it ended ({_cause(self._process.exitcode)})",
                              fix="With little memory, give fewer --jobs; then run the same command again.")

    def stop(self) -> None:
        self.pipe.close()
        self._process.terminate()
        self._process.join()


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _next(worker: _Worker, queue: Iterator[Any], function: Callable[[Any], Any]) -> _Worker | None:
    """The worker, or its replacement if it died, with the next item; None when there is no more to do."""
    for item in queue:
        successor = worker if worker.alive else _Worker(function)
        successor.give(item)
        return successor
    if worker.alive:
        worker.stop()
    return None


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return f"killed by {signal.Signals(-exitcode).name}, often for want of memory"
    return f"exit code {exitcode}"


def _serve(function: Callable[[Any], Any], pipe: Connection) -> None:
    """In the worker: answer until the other end is gone."""
    end_with_parent()
    while True:
        try:
            item = pipe.recv()
        except (EOFError, ConnectionError):
            return
        try:
            answer: Any = function(item)
        except Exception as error:
            answer = error
        try:
            pipe.send(answer)
        except (BrokenPipeError, ConnectionError):
            return
