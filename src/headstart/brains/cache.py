"""BIDS folders given where a store is needed: prepared once into the cache, and found again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from headstart.brains.cohort import Scan
from headstart.brains.contract import Contract
from headstart.errors import HeadstartError
from headstart.files import cache_dir, digest_json


def prepared(bids: Sequence[Path], volume: str, *, jobs: int, say: Callable[[Sequence[str]], None],
             check: Callable[[Sequence[Scan]], None] | None = None) -> Path:
    """The store of these BIDS folders on grid ``volume``; scans that are already in it are not prepared again.

    Args:
        bids: the folders. volume: the grid. jobs: processes.
        say: is told notes.
        check: is shown the scans before any is prepared; what it raises ends the call.

    Raises:
        HeadstartError: the folders cannot be read, or no scan could be prepared.
    """
    from headstart.brains.bids import read_bids
    from headstart.brains.prepare import prepare

    contract = Contract(volume=volume)
    folders = [str(folder.resolve()) for folder in bids]
    store = cache_dir() / "stores" / digest_json([folders, contract.digest])
    cohort = read_bids(bids)
    say(cohort.notes)
    if check is not None:
        check(cohort.scans)
    summary = prepare(cohort, store, contract, jobs=jobs, cohort_alone=True)
    if summary.failed:
        say([f"{len(summary.failed)} scans could not be prepared and are left out: see {store / 'failed.tsv'}"])
    if len(summary.failed) == len(cohort):
        raise HeadstartError("no scan could be prepared", path=store / "failed.tsv", fix="The file gives the reasons.")
    return store
