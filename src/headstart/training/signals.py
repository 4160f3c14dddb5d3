"""Stop signals become a flag, so that a run can stop between two batches with its work saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from headstart.errors import Stopped
from headstart.processes import STOP_SIGNALS


class Preempted(Stopped):
    """The run was asked to stop, has saved its state, and will continue from it."""

    def __init__(self, name: str, path=None) -> None:
        self.name = name
        super().__init__(f"stopped by {name}; everything is saved" if path else f"stopped by {name}", path=path,
                         fix="Run the same command again to continue.")

    def __reduce__(self):
        return type(self), (self.name, self.path)


@dataclass
class StopRequest:
    """Which signal arrived, if any."""

    name: str = ""


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note SIGUSR1, SIGUSR2 and SIGTERM instead of dying of them; what was set before returns at the end.

    Only a process's main thread may do so; elsewhere nothing is noted.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: object) -> None:
        request.name = signal.Signals(number).name

    before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
