"""Data sets come over the network file by file: resumed, checked, and laid out as BIDS at the end."""

from __future__ import annotations

import gzip
import hashlib
import re
import time
import urllib.parse
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from headstart.datasets import ixi, openneuro
from headstart.datasets.catalogue import Dataset, RemoteFile
from headstart.download import Progress, check_address, discard, download, finish, forbidden
from headstart.errors import HeadstartError
from headstart.files import atomic_write, one_writer, read_json, sha256_file, write_json

RECEIPT = "fetched.json"  # what came, with size and digest; while it agrees with the folder there is nothing to do
BEGUN = ".fetching"  # the data set's name, until the receipt is there
PARTS = ".download"
NOBODYS = re.compile(r"\.DS_Store|\._.*|Thumbs\.db|desktop\.ini|\.lock")  # what systems leave in folders by themselves
SAID_EVERY_S = 10.0
HEADER_BYTES = (348, 540)  # of NIfTI-1 and NIfTI-2: the number that each begins with
Say = Callable[[str], None]


def fetch(dataset: Dataset, out: str | Path, *, mirror: str | None = None, say: Say = lambda _: None) -> Path:
    """Bring ``dataset`` to the folder ``out``; stopped, the same call goes on.

    Args:
        mirror: an address to use for the publisher's, with the same paths below it.
        say: told of every file as it begins, and about every ten seconds how much of it is here.

    Returns:
        The BIDS folder (of label maps: the folder of the maps).

    Raises:
        HeadstartError: the network fails or is forbidden, a file is not the one published, or the set cannot be
            fetched by a program.
    """
    out = Path(out)
    if dataset.layout == "torrent":
        raise HeadstartError(f"'{dataset.name}' comes as a torrent, which headstart does not speak",
                             fix=f"Fetch it from {dataset.page} with a torrent program, unpack it, and run "
                             "`headstart prepare FOLDER --store STORE`.")
    base = (mirror or dataset.base).rstrip("/")
    check_address(base)
    with one_writer(out):
        if _is_whole(out, dataset.name):
            say(f"{dataset.name} is here already")
            return out
        begun = _begun(out, dataset.name)
        _may_use_network(dataset.name, out)
        files = openneuro.list_files(dataset.name, base) if dataset.layout == "openneuro" else dataset.files
        folder = out / PARTS if dataset.layout == "ixi" else out
        if not begun:
            _claim(out, dataset, files)
        for position, file in enumerate(files, 1):
            say(f"{position} of {len(files)}: {file.path}")
            fetch_file(file, base, folder, _telling(say))
        if dataset.layout == "ixi":
            ixi.lay_out(folder, out, dataset)
        _write_receipt(out, dataset.name)
        (out / BEGUN).unlink(missing_ok=True)
    return out


def fetch_file(file: RemoteFile, base: str, folder: Path, progress: Progress) -> Path:
    """One file, whole and checked, at ``folder / file.path``; one that is there and right stays."""
    path = folder / file.path
    if path.is_file() and not _differs(path, file):
        return path
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    url = file.url if "://" in file.url else f"{base}/{urllib.parse.quote(file.url)}"
    download(url, part, progress, moved="The data set may have moved; look at `headstart data list` for its page.")
    if reason := _differs(part, file):
        discard(part)
        raise HeadstartError(f"is not the file that was published ({reason})", path=url,
                             fix="Run the same command again; if it stays so, the publisher has changed the file.")
    finish(part, path)
    return path


def _telling(say: Say) -> Progress:
    """Speaks now and then: an archive of gigabytes must not look as if it had stopped."""
    last = time.monotonic()

    def progress(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= SAID_EVERY_S:
            last = time.monotonic()
            say(f"  {done / 1e6:,.0f} MB" + (f" of {total / 1e6:,.0f} MB" if total else ""))

    return progress


def _differs(path: Path, file: RemoteFile) -> str:
    """Why the file at ``path`` is not ``file``; empty if nothing speaks against it."""
    if file.size is not None and path.stat().st_size != file.size:
        return f"{path.stat().st_size:,} bytes, expected {file.size:,}"
    if file.sha256 is not None and (digest := sha256_file(path)) != file.sha256:
        return f"SHA-256 {digest}, expected {file.sha256}"
    if file.md5 is not None and (digest := _md5(path)) != file.md5:
        return f"MD5 {digest}, expected {file.md5}"
    if file.md5 is None and file.sha256 is None and file.path.endswith(".nii.gz") and not _is_nifti(path):
        return "no compressed NIfTI; is it a page that asks to log in?"
    return ""


def _is_nifti(path: Path) -> bool:
    """By its first bytes: where no digest is known, a web page must not be taken for a scan."""
    try:
        with gzip.open(path) as file:
            begin = file.read(4)
    except (OSError, EOFError, zlib.error):
        return False
    return any(int.from_bytes(begin, order) in HEADER_BYTES for order in ("little", "big"))


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _files_of(out: Path) -> Sequence[Path]:
    there = (path for path in sorted(out.rglob("*")) if path.is_file())
    return [path for path in there if path.name not in (RECEIPT, BEGUN) and not NOBODYS.fullmatch(path.name)
            and PARTS not in path.relative_to(out).parts]


def _begun(out: Path, name: str) -> bool:
    """Whether an earlier try has begun here; one of another data set is refused."""
    there = (out / BEGUN).read_text(encoding="utf-8") if (out / BEGUN).is_file() else name
    if there != name:
        raise HeadstartError(f"holds a part of {there}", path=out, fix="Give another --out folder.")
    return (out / BEGUN).is_file()


def _claim(out: Path, dataset: Dataset, files: Sequence[RemoteFile]) -> None:
    """Note that ``out`` is the data set's, before anything comes.

    Raises:
        HeadstartError: it holds files that no earlier try has brought.
    """
    traces = [out / RECEIPT, *(out / file.path for file in files)]
    if dataset.layout == "ixi":
        traces += [out / PARTS, *out.glob("sub-IXI*")]
    if not any(path.exists() for path in traces) and (other := _files_of(out)):
        raise HeadstartError(f"holds other files ({other[0].relative_to(out)})", path=out,
                             fix="Give a new or empty --out folder.")
    with atomic_write(out / BEGUN) as file:
        file.write(dataset.name)


def _write_receipt(out: Path, name: str) -> None:
    files = {str(path.relative_to(out)): {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
             for path in _files_of(out)}
    write_json(out / RECEIPT, {"dataset": name, "files": files})


def _is_whole(out: Path, name: str) -> bool:
    """Whether every file of the receipt is here as it came; another data set in the folder is refused."""
    if not (out / RECEIPT).exists():
        return False
    there, files = _read_receipt(out / RECEIPT)
    if there != name:
        raise HeadstartError(f"holds {there}", path=out, fix="Give another --out folder.")
    return all((out / path).is_file() and (out / path).stat().st_size == size and sha256_file(out / path) == sha256
               for path, (size, sha256) in files.items())


def _read_receipt(path: Path) -> tuple[str, dict[str, tuple[int, str]]]:
    """(data set, file -> size and digest)."""
    try:
        receipt = read_json(path)
        return receipt["dataset"], {name: (known["bytes"], known["sha256"]) for name, known in receipt["files"].items()}
    except (HeadstartError, KeyError, TypeError, AttributeError) as error:
        raise HeadstartError("is damaged", path=path,
                             fix="Remove it and run the same command again: what is here and right stays.") from error


def _may_use_network(name: str, out: Path) -> None:
    if variable := forbidden():
        raise HeadstartError(f"'{name}' is not here and {variable} forbids the network", path=out,
                             fix=f"Run `headstart data fetch {name} --out FOLDER` where there is a network, and copy "
                             "that folder here.")
