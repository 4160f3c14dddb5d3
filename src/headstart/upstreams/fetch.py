"""Published files come once, whole, and checked; afterwards no network is needed."""

from __future__ import annotations

import contextlib
import os
import shutil
from importlib import metadata
from pathlib import Path

import headstart
from headstart.adaptation.checkpoint import check_sha256
from headstart.download import Progress, discard, download, finish, forbidden
from headstart.errors import HeadstartError
from headstart.files import cache_dir, one_writer, read_json, sha256_file, write_json
from headstart.upstreams.base import Hub, Manual, Package, Shipped, Upstream, Url

MOVED = "It may have moved; fetch it by hand and use `headstart weights import`."


def locate(upstream: Upstream, *, backbone: str | None = None, volume: str | None = None,
           accept_licence: bool = False, progress: Progress | None = None) -> Path:
    """The file (or, of a shipped start, the model folder) of an upstream; fetched if it is not here yet.

    Args:
        upstream: the record.
        backbone: with ``volume`` picks the file of a shipped start.
        volume: name of the grid.
        accept_licence: the user has read a licence that forbids commercial use, and accepts it.
        progress: told of every chunk.

    Raises:
        HeadstartError: the licence is not accepted, the network fails or is forbidden, or the file is not the one
            published.
    """
    source = upstream.source
    if upstream.commercial is not True and not isinstance(source, Shipped):
        accepted(upstream, accept_licence)
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


def variants(source: Shipped) -> list[str]:
    """Of a shipped start: each ``<backbone>-<volume>`` that is there."""
    return sorted(path.parent.name for path in (starts_folder() / source.folder).glob("*-*/config.json"))


def default_start(backbone: str, volume: str) -> str:
    """The start that is used when none is named: ``synthetic-mri`` where it is shipped, else ``scratch``."""
    shipped = starts_folder() / "synthetic-mri" / f"{backbone}-{volume}" / "config.json"
    return "synthetic-mri" if shipped.is_file() else "scratch"


def accepted(upstream: Upstream, now: bool) -> None:
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
        there = variants(source)
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
    _may_use_network(name, folder)
    with one_writer(folder):
        part = folder / f"{path.name}.part"
        download(source.url, part, progress, moved=MOVED)
        _check_whole(part, source.sha256)
        finish(part, path)
        write_json(receipt, {"url": source.url, "sha256": sha256_file(path), "published_sha256": source.sha256,
                             "bytes": path.stat().st_size})
    return path


def expected_sha256(upstream: Upstream) -> str | None:
    """The digest to check before use: the publisher's, or the one recorded at the first fetch."""
    receipt = _folder(upstream.name) / "receipt.json"
    if isinstance(upstream.source, Url | Hub) and receipt.is_file():
        return read_json(receipt).get("sha256")
    return getattr(upstream.source, "sha256", None)


def _may_use_network(name: str, folder: Path) -> None:
    if variable := forbidden():
        raise HeadstartError(f"'{name}' is not in the cache and {variable} forbids the network", path=folder,
                             fix=f"Run `headstart weights fetch {name}` where there is a network, and copy that "
                             f"machine's folder weights/{name} of its cache to {folder}.")


def _check_whole(part: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    try:
        check_sha256(part, sha256)
    except HeadstartError:
        discard(part)
        raise


def forget(upstream: Upstream) -> None:
    """Remove an upstream's fetched file and its receipts from the cache."""
    shutil.rmtree(_folder(upstream.name), ignore_errors=True)
