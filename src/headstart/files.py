"""Files that are whole or absent: atomic writes, digests, one writer per folder, the cache folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from headstart.errors import BusyError, HeadstartError

TEMPORARY = ".headstart.tmp"  # what a file is called until it is whole ends in this
LEFTOVERS = [f"{depth}.*{TEMPORARY}" for depth in ("", "*/", "*/*/", "*/*/*/")]  # no folder of ours is deeper


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """Open a temporary neighbour of ``path``; it takes the name only once it is whole and on disk.

    Raises:
        HeadstartError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=TEMPORARY, dir=path.parent)
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise HeadstartError(
            f"cannot be written ({error.strerror or error})", path=path,
            fix="Free some disk space or choose a folder you may write to, then run the same command again.",
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, sort_keys=False, ensure_ascii=False)
        file.write("\n")


def read_json(path: str | Path) -> Any:
    """Read JSON; a missing or broken file is a HeadstartError that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HeadstartError("is missing", path=path) from error
    except (OSError, ValueError, RecursionError) as error:
        raise HeadstartError(f"is not readable as JSON ({error})", path=path) from error


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any, length: int = 12) -> str:
    """A short digest of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


@contextlib.contextmanager
def one_writer(folder: str | Path) -> Iterator[None]:
    """Hold ``folder`` for this process; the lock goes with the process, however it ends.

    Half-written files of a holder that was killed are removed first.

    Raises:
        BusyError: another living process holds it; the message says which.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise HeadstartError(f"cannot be written ({error.strerror})", path=folder,
                             fix="Choose a folder you may write to.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read(200).strip() or "another process"
            raise BusyError(f"is in use by {holder}", path=folder,
                            fix="Wait for it to end, or give another output folder.") from None
        with contextlib.suppress(OSError):  # on a full disk the holder's name is what we can do without
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        _remove_leftovers(folder)
        yield


def _remove_leftovers(folder: Path) -> None:
    for pattern in LEFTOVERS:
        for leftover in folder.glob(pattern):
            leftover.unlink(missing_ok=True)


def cache_dir() -> Path:
    """Where derived data may be kept: ``$HEADSTART_CACHE`` or the platform's user cache folder."""
    from platformdirs import user_cache_path

    return Path(os.environ.get("HEADSTART_CACHE") or user_cache_path("headstart"))
