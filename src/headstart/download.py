"""Files from the network: resumed where an earlier try ended, never a mixture of two versions."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headstart.errors import HeadstartError
from headstart.files import atomic_write
from headstart.names import OFFLINE

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60.0
FORBIDDING = (OFFLINE, "HF_HUB_OFFLINE")  # either, set to anything but 0, forbids the network
Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all


def forbidden() -> str | None:
    """The environment variable that forbids the network, if one does."""
    return next((name for name in FORBIDDING if os.environ.get(name, "0") not in ("", "0")), None)


def check_address(url: str) -> None:
    """HeadstartError unless ``url`` is an address that something can be fetched from."""
    try:
        parts = urllib.parse.urlsplit(url)
        good = " " not in url and parts.scheme in ("http", "https", "ftp", "file")
        good = good and (parts.scheme == "file" or parts.netloc != "")
    except ValueError:  # brackets that stand for no IPv6 address
        good = False
    if not good:
        raise HeadstartError("is no address to fetch from", path=url, fix="Give one that begins with https://.")


def download(url: str, part: Path, progress: Progress | None = None, *, moved: str) -> None:
    """Fetch ``url`` into ``part``, going on where an earlier try ended if the file behind it is still the same.

    Args:
        part: the unfinished file; its tag is kept beside it until ``finish``.
        progress: told of every chunk.
        moved: what to do where the server has no such file, as a sentence.

    Raises:
        HeadstartError: it is no address, the server refuses, or the connection breaks; the same call goes on.
    """
    check_address(url)
    try:
        with _open(url, part) as response:
            resumed = response.status == http.client.PARTIAL_CONTENT
            start = part.stat().st_size if resumed else 0
            length = response.headers.get("Content-Length")
            total = start + int(length) if length else None
            _remember(part, response)
            with open(part, "ab" if resumed else "wb") as file:
                _copy(response, file, start, total, progress)
    except urllib.error.HTTPError as error:
        raise HeadstartError(f"cannot be fetched ({error.code} {error.reason})", path=url, fix=moved) from error
    except (OSError, http.client.HTTPException) as error:
        raise HeadstartError(f"cannot be fetched ({getattr(error, 'reason', error)})", path=url,
                             fix="Run the same command again: it goes on where this one ended.") from error
    if total is not None and part.stat().st_size != total:
        raise HeadstartError(f"broke off after {part.stat().st_size:,} of {total:,} bytes", path=url,
                             fix="Run the same command again: it goes on from there.")


def finish(part: Path, path: Path) -> None:
    """Give a whole and checked download its name."""
    os.replace(part, path)
    _tag(part).unlink(missing_ok=True)


def discard(part: Path) -> None:
    """Remove a download that is not what was published: a resumed one must not start from wrong bytes."""
    part.unlink()
    _tag(part).unlink(missing_ok=True)


def _tag(part: Path) -> Path:
    return Path(f"{part}.etag")


def _open(url: str, part: Path) -> Any:
    """The response, from where ``part`` ends; ``If-Range`` makes the server start over if the file has changed."""
    request = urllib.request.Request(url, headers={"User-Agent": "headstart"})
    tag = _tag(part)
    if part.is_file() and part.stat().st_size and tag.is_file():
        request.add_header("Range", f"bytes={part.stat().st_size}-")
        request.add_header("If-Range", tag.read_text())
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        part.unlink()  # complete, or longer than the file: begin again
        return _open(url, part)


def _remember(part: Path, response: Any) -> None:
    """Keep the file's tag beside it: without one, a broken download starts over rather than mix two versions."""
    tag, etag = _tag(part), response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        with atomic_write(tag) as file:
            file.write(etag)
    else:
        tag.unlink(missing_ok=True)


def _copy(response: Any, file: Any, done: int, total: int | None, progress: Progress | None) -> None:
    while chunk := response.read(CHUNK_BYTES):
        file.write(chunk)
        done += len(chunk)
        if progress is not None:
            progress(done, total)
