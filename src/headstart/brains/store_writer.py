"""Writing a store so that it survives being killed at any moment.

A row's bytes reach the disk first, then its line in ``journal.jsonl``, each line with its own checksum: a torn last
line is a row that was not written. The index replaces its predecessor in one step when the work is done. Which scan
owns which row is on disk before work begins, so a run that was killed and resumed ends in the very same bytes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
from isal import isal_zlib

from headstart.brains import store_format as layout
from headstart.brains.cohort import Scan, ScanKey
from headstart.brains.contract import Contract
from headstart.brains.facts import Facts
from headstart.brains.store_format import Source, StoredScan
from headstart.errors import HeadstartError
from headstart.files import atomic_write, one_writer, read_json, sha256_file, write_json

JOURNAL = "journal.jsonl"


class StoreWriter:
    """A store open for writing by this process alone; a context manager.

    Leaving the ``with`` block normally finishes the store; leaving it by an error keeps the journal, and the next
    writer on the same folder goes on from there.

    Args:
        path: the store's folder; made where it does not exist.
        contract: how the scans are prepared; must be that of the store, if there is one.
        plan: the scans to come, in order. Rows follow this order whatever order they are finished in. Without a plan
            rows follow the order of appending. Of scans that are there already, what the plan says of their people
            is believed.
        plan_alone: leave scans that are not planned out of the index.

    Raises:
        HeadstartError: another process is writing here, the folder cannot be written, or its contract differs.
    """

    def __init__(self, path: str | Path, contract: Contract, plan: Sequence[Scan] = (), *,
                 plan_alone: bool = False) -> None:
        self.path, self.contract = Path(path), contract
        self._plan, self._plan_alone = plan, plan_alone
        self._row_bytes = layout.row_bytes(contract.spec)
        self._entries: dict[ScanKey, StoredScan] = {}
        self._failed: dict[ScanKey, tuple[Scan, str]] = {}
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> StoreWriter:
        with contextlib.ExitStack() as stack:
            stack.enter_context(one_writer(self.path))
            with _disk_errors(self.path):
                self._open(stack)
            self._exit = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        with self._exit:
            if kind is None:
                self._finish()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: ScanKey) -> bool:
        return key in self._entries

    def finished(self, scan: Scan) -> bool:
        """Whether the store holds this scan, prepared from the file as it is now."""
        stored = self._entries.get(scan.key)
        return stored is not None and (stored.source is None or _unchanged(scan.path, stored.source))

    def append(self, scan: Scan, row: np.ndarray, facts: Facts | None = None) -> None:
        """Write one scan; see ``append_many``."""
        self.append_many([scan], np.asarray(row)[None], [facts])

    def append_many(self, scans: Sequence[Scan], rows: np.ndarray, facts: Sequence[Facts | None] | None = None) -> None:
        """Write scans; once this returns they survive a kill.

        Args:
            scans: n of them.
            rows: float16 (n, n_kept), as ``pack`` makes them.
            facts: what was measured, n of them; none for scans that were simulated.
        """
        rows = np.ascontiguousarray(rows, np.float16)
        if rows.shape != (len(scans), self._row_bytes // 2):
            raise ValueError(f"expected rows of shape {(len(scans), self._row_bytes // 2)}, got {rows.shape}")
        with _disk_errors(self.path):
            entries = [self._write_row(*item) for item in zip(scans, rows, facts or [None] * len(scans), strict=True)]
            os.fdatasync(self._voxels)
            _write_all(self._journal, memoryview(b"".join(map(_journal_line, entries))), 0)
            os.fdatasync(self._journal)
        self._entries.update((entry.scan.key, entry) for entry in entries)

    def fail(self, scan: Scan, reason: str) -> None:
        """Set a scan aside; the next run tries it again."""
        self._failed[scan.key] = (scan, reason)

    def time(self, scan: Scan, seconds: Mapping[str, float]) -> None:
        """Note how long each step took, for ``timings.tsv``; not part of what a resumed run must repeat."""
        path = self.path / layout.TIMINGS
        with _disk_errors(self.path), open(path, "a", encoding="utf-8") as file:
            if not file.tell():
                file.write("\t".join(["dataset", "participant_id", "session", *seconds]) + "\n")
            file.write("\t".join([*scan.key, *(f"{value:.3f}" for value in seconds.values())]) + "\n")

    def _open(self, stack: contextlib.ExitStack) -> None:
        self._check_contract()
        if (self.path / layout.INDEX).exists():
            self._keep(layout.read_index(self.path, self.contract)[1])
        self._keep(_read_journal(self.path / JOURNAL))
        self._assign_rows()
        self._voxels = _open_file(self.path / layout.VOXELS, os.O_RDWR, stack)
        self._journal = _open_file(self.path / JOURNAL, os.O_WRONLY | os.O_APPEND, stack)

    def _keep(self, entries: Sequence[StoredScan]) -> None:
        self._entries.update((entry.scan.key, entry) for entry in entries)

    def _check_contract(self) -> None:
        if not (self.path / layout.CONTRACT).exists():
            return layout.write_contract(self.path, self.contract)
        there, wanted = layout.read_contract(self.path).model_dump(), self.contract.model_dump()
        differing = [f"{name} is {there[name]}, not {wanted[name]}" for name in wanted if there[name] != wanted[name]]
        if differing:
            raise HeadstartError(f"holds scans prepared otherwise: {'; '.join(differing)}", path=self.path,
                                 fix="Give another --store folder, or the settings of this one.")

    def _assign_rows(self) -> None:
        """Fix the row of every planned scan, on disk, before the first is written."""
        path = self.path / layout.PLAN
        keys = [ScanKey(*key) for key in read_json(path)] if path.exists() else []
        rows = {key: row for row, key in enumerate(keys)}  # a scan whose file changed stands twice: the last counts
        before = len(keys)
        for scan in self._plan:
            stale = scan.key in self._entries and not self.finished(scan)
            if scan.key not in rows or (stale and self._entries[scan.key].row == rows[scan.key]):
                rows[scan.key] = len(keys)
                keys.append(scan.key)
        if len(keys) > before or not path.exists():
            write_json(path, keys)
        self._rows, self._next_row = rows, max([len(keys), *(entry.row + 1 for entry in self._entries.values())])

    def _write_row(self, scan: Scan, row: np.ndarray, facts: Facts | None) -> StoredScan:
        number = self._rows.get(scan.key, self._next_row)
        self._next_row = max(self._next_row, number + 1)
        _write_all(self._voxels, memoryview(row.tobytes()), number * self._row_bytes)
        source = None
        if facts is not None:
            stat = scan.path.stat()
            source = Source(stat.st_size, stat.st_mtime_ns, facts.source_sha256)
        return StoredScan(scan, number, isal_zlib.crc32(row), facts, source)

    def _finish(self) -> None:
        """Write the index in one step; only then is the journal of no more use."""
        scans = sorted(self._listed(), key=lambda entry: entry.row)
        rows = self._next_row
        with _disk_errors(self.path):
            os.truncate(self._voxels, rows * self._row_bytes)
            self._write_failed()
            sums = {name: sha256_file(self.path / name) for name in (layout.PLAN, layout.FAILED)}
            header = {"contract": self.contract.digest, "scans": len(scans), "rows": rows, "sha256_of": sums}
            with atomic_write(self.path / layout.INDEX, "wb") as file:
                file.write(layout.encode_index(header, scans))
            (self.path / JOURNAL).unlink()

    def _listed(self) -> Iterator[StoredScan]:
        """Entries with what the plan says of their people now: a table may have been corrected since they were made."""
        planned = {scan.key: scan for scan in self._plan if scan.key not in self._failed}
        for key, entry in self._entries.items():
            if key in planned:
                yield replace(entry, scan=planned[key])
            elif not self._plan_alone or key in self._failed:
                yield entry

    def _write_failed(self) -> None:
        with atomic_write(self.path / layout.FAILED) as file:
            file.write("dataset\tparticipant_id\tsession\tpath\treason\n")
            for key, (scan, reason) in sorted(self._failed.items()):
                file.write("\t".join([*key, str(scan.path), " ".join(reason.split())]) + "\n")


@contextlib.contextmanager
def _disk_errors(path: Path):
    try:
        yield
    except OSError as error:
        raise HeadstartError(f"cannot be written ({error.strerror or error})", path=path,
                             fix="Free some disk space or choose a folder you may write to, then run the same "
                                 "command again: finished scans are kept.") from error


def _open_file(path: Path, flags: int, stack: contextlib.ExitStack) -> int:
    handle = os.open(path, flags | os.O_CREAT, 0o644)
    stack.callback(os.close, handle)
    return handle


def _write_all(handle: int, data: memoryview, offset: int) -> None:
    """Write until all is written: a filling disk takes a part and refuses the next. Appending ignores ``offset``."""
    while data:
        written = os.pwrite(handle, data, offset)
        data, offset = data[written:], offset + written


def _unchanged(path: Path, source: Source) -> bool:
    try:
        stat = path.stat()
    except OSError:  # gone or unreadable: what was prepared from it stands
        return True
    if (stat.st_size, stat.st_mtime_ns) == (source.size, source.mtime_ns):
        return True
    return stat.st_size == source.size and sha256_file(path) == source.sha256


def _journal_line(entry: StoredScan) -> bytes:
    text = layout.dumps(entry.to_json())
    return b"%08x %s\n" % (isal_zlib.crc32(text), text)


def _read_journal(path: Path) -> list[StoredScan]:
    """Entries up to the first line that is not whole; what follows it is cut off, so that appending can go on."""
    if not path.exists():
        return []
    data, good, entries = path.read_bytes(), 0, []
    for line in data.splitlines(keepends=True):
        if not _is_whole(line):
            break
        entries.append(StoredScan.from_json(json.loads(line[9:])))
        good += len(line)
    if good < len(data):
        os.truncate(path, good)
    return entries


def _is_whole(line: bytes) -> bool:
    return line.endswith(b"\n") and line[:9] == b"%08x " % isal_zlib.crc32(line[9:-1])
