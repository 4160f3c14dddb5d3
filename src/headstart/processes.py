"""Processes that stop when told to, and never outlive the one that started them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import Any

from headstart.errors import Stopped

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # what clusters send before they take a node away
GO_ON = "Finished parts are kept: run the same command again to go on."


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def stop_signals(tell: Callable[[signal.Signals], None] = lambda _: None) -> Iterator[None]:
    """Raise ``Stopped`` where a signal asks for a stop, after ``tell`` has passed it on; as before at the end.

    Only a process's main thread may do so; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _frame: Any) -> None:
        tell(signal.Signals(number))
        raise Stopped(f"stopped by {signal.Signals(number).name}", fix=GO_ON)

    before = {number: signal.signal(number, stop) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def spawning() -> Iterator[None]:
    """Processes spawned in here never see Ctrl-C, not even while they start: it is their parent's to answer."""
    with _blocked(signal.SIGUSR1, signal.SIGUSR2):  # Python's helper process would die of them, and then complain
        resource_tracker.ensure_running()
    with _blocked(signal.SIGINT):
        yield


@contextlib.contextmanager
def _blocked(*numbers: signal.Signals) -> Iterator[None]:
    """Signals come later to this process, and never to those that it starts meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """In a worker: end at once when the parent does, even by SIGKILL; nobody would take its answer."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_outlive, args=(parent,), daemon=True, name="end-with-parent").start()


def _outlive(parent: Any) -> None:
    parent.join()
    os._exit(1)
