"""Published files come once, whole, and checked; afterwards no network is needed."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import headstart
from headstart.adaptation.checkpoint import check_sha256
from headstart.errors import HeadstartError
from headstart.files import atomic_write, cache_dir, one_writer, read_json, sha256_file, write_json
from headstart.upstreams.base import Hub, Manual, Package, Shipped, Upstream, Url

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60.0
OFFLINE = ("HEADSTART_OFFLINE", "HF_HUB_OFFLINE")  # either, set to anything but 0, forbids the network
Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all


def locate(upstream: Upstream, *, backbone: str | None = None, volume: str | None = None,
           accept_licence: bool = False, progress: Progress | None = None) -> Path:
    """The file (or, of a shipped start, the model folder) of an upstream; fetched if it is not here yet.

    Args:
        upstream: the record.
        backbone, volume: pick the file of a shipped start.
        accept_licence: the user has read a licence that forbids commercial use, and accepts it.
        progress: told of every chunk.

    Raises:
        HeadstartError: the licence is not accepted, the network fails or is forbidden, or the file is not the one
            published.
    """
    source = upstream.source
    if upstream.commercial is not True and not isinstance(source, Shipped):
        _accepted(upstream, accept_licence)
    if isinstance(source, Package):
        return _packaged(source)
    if isinstance(source, Shipped):
        return _shipped(upstream.name, source, backbone, volume)
    if isinstance(source, Manual):
        raise HeadstartError(f"'{upstream.name}' cannot be fetched by a program",
                             fix=f"Get the file from {source.page} and run "
                             f"`headstart weights import FILE --as {upstream.name}`.")
    if source is None:
        raise HeadstartError(f"'{upstream.name}' has no file", fix="Choose another upstream.")
    return _fetched(upstream.name, source, progress)


def is_here(upstream: Upstream) -> bool:
    """Whether the file can be used without the network."""
    source = upstream.source
    if isinstance(source, Url | Hub):
        return (_folder(upstream.name) / "receipt.json").is_file()
    if isinstance(source, Package):
        with contextlib.suppress(HeadstartError):
            return _packaged(source).is_file()
        return False
    return source is None or (isinstance(source, Shipped) and (starts_folder() / source.folder).is_dir())


def starts_folder() -> Path:
    """Where shipped starts lie: ``$HEADSTART_STARTS``, or inside the package."""
    return Path(os.environ.get("HEADSTART_STARTS") or Path(headstart.__file__).parent / "starts")


def _accepted(upstream: Upstream, now: bool) -> None:
    """Remember an acceptance, so that it is asked for once."""
    note = _folder(upstream.name) / "licence-accepted.json"
    if now:
        write_json(note, {"upstream": upstream.name, "licence": upstream.licence})
    elif not note.is_file():
        terms = "not for commercial use" if upstream.commercial is False else "read its terms"
        raise HeadstartError(f"'{upstream.name}' is licensed {upstream.licence}: {terms}",
                             fix="If that suits you, repeat the command with --accept-licence.")


def _packaged(source: Package) -> Path:
    try:
        path = Path(str(metadata.distribution(source.distribution).locate_file(source.filename)))
    except metadata.PackageNotFoundError:
        raise HeadstartError(f"needs the package '{source.distribution}'",
                             fix=f"Run `pip install {source.distribution}`.") from None
    if not path.is_file():
        raise HeadstartError("is missing from its package", path=path,
                             fix=f"Run `pip install --force-reinstall {source.distribution}`.")
    return path


def _shipped(name: str, source: Shipped, backbone: str | None, volume: str | None) -> Path:
    folder = starts_folder() / source.folder / f"{backbone}-{volume}"
    if not (folder / "config.json").is_file():
        there = sorted(path.name for path in folder.parent.glob("*-*")) if folder.parent.is_dir() else []
        raise HeadstartError(f"no start '{name}' is shipped for backbone '{backbone}' at '{volume}'", path=folder,
                             fix=f"There are: {', '.join(there) or 'none'}. Make one with `headstart pretrain`, and "
                             "give its model folder as --upstream.")
    return folder


def _folder(name: str) -> Path:
    return cache_dir() / "weights" / name


def _fetched(name: str, source: Url | Hub, progress: Progress | None) -> Path:
    folder = _folder(name)
    path, receipt = folder / source.url.rsplit("/", 1)[-1], folder / "receipt.json"
    if receipt.is_file() and path.is_file():
        return path
    _may_use_network(name)
    with one_writer(folder):
        part = folder / f"{path.name}.part"
        _download(source.url, part, progress)
        _check_whole(part, source.sha256)
        os.replace(part, path)
        Path(f"{part}.etag").unlink(missing_ok=True)
        write_json(receipt, {"url": source.url, "sha256": sha256_file(path), "published_sha256": source.sha256,
                             "bytes": path.stat().st_size})
    return path


def expected_sha256(upstream: Upstream) -> str | None:
    """The digest to check before use: the publisher's, or the one recorded at the first fetch."""
    receipt = _folder(upstream.name) / "receipt.json"
    if isinstance(upstream.source, Url | Hub) and receipt.is_file():
        return read_json(receipt).get("sha256")
    return getattr(upstream.source, "sha256", None)


def _may_use_network(name: str) -> None:
    for variable in OFFLINE:
        if os.environ.get(variable, "0") not in ("", "0"):
            raise HeadstartError(f"'{name}' is not in the cache and {variable} forbids the network",
                                 fix=f"Run `headstart weights fetch {name}` where there is a network, or copy "
                                 f"{_folder(name)} from there.")


def _check_whole(part: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    try:
        check_sha256(part, sha256)
    except HeadstartError:
        part.unlink()  # a resumed download must not start from wrong bytes
        raise


def _download(url: str, part: Path, progress: Progress | None) -> None:
    """Fetch ``url`` into ``part``, going on where an earlier try ended if the file behind it is still the same."""
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
        raise HeadstartError(f"cannot be fetched ({error.code} {error.reason})", path=url,
                             fix="It may have moved; fetch it by hand and use `headstart weights import`.") from error
    except (OSError, http.client.HTTPException) as error:
        raise HeadstartError(f"cannot be fetched ({getattr(error, 'reason', error)})", path=url,
                             fix="Run the same command again: it goes on where this one ended.") from error
    if total is not None and part.stat().st_size != total:
        raise HeadstartError(f"broke off after {part.stat().st_size:,} of {total:,} bytes", path=url,
                             fix="Run the same command again: it goes on from there.")


def _open(url: str, part: Path) -> Any:
    """The response, from where ``part`` ends; ``If-Range`` makes the server start over if the file has changed."""
    request = urllib.request.Request(url, headers={"User-Agent": "headstart"})
    tag = Path(f"{part}.etag")
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
    tag, etag = Path(f"{part}.etag"), response.headers.get("ETag")
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


def forget(upstream: Upstream) -> None:
    """Remove an upstream's fetched file and its receipts from the cache."""
    shutil.rmtree(_folder(upstream.name), ignore_errors=True)
