"""Random reads from a store: scans a second, checksums included, and how much private memory that takes."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.common import Row, medians
from headstart.brains.cohort import Scan
from headstart.brains.contract import Contract
from headstart.brains.store import Store, StoreWriter
from headstart.brains.store_format import row_bytes

SCANS, BATCH, WRITE = 20_000, 64, 500
SCANS_PER_SECOND, GROWTH_MB = 2_000, 500  # the targets


def run(repeats: int = 40) -> list[Row]:
    """A store of ``SCANS`` 4-mm volumes in a temporary folder, read at random."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        _write(Path(folder))
        written = time.perf_counter() - start
        before = anonymous_mb()
        start = time.perf_counter()
        store = Store.open(folder)
        opened, rng = time.perf_counter() - start, np.random.default_rng(0)
        each = medians({"rows": lambda: store.rows(rng.integers(0, SCANS, BATCH)),
                        "volumes": lambda: store.volumes(rng.integers(0, SCANS, BATCH))}, repeats)
        growth = anonymous_mb() - before
    limits = {f"≥ {SCANS_PER_SECOND:,} scans/s: {BATCH / each['volumes']:,.0f}":
              BATCH / each["volumes"] >= SCANS_PER_SECOND,
              f"RssAnon + < {GROWTH_MB} MB: {growth:.0f}": growth < GROWTH_MB}
    return [Row(f"{BATCH} random scans of {SCANS:,}, as tensors", each["volumes"], limits=limits,
                note=f"the growth counts torch and the index; opened in {opened:.2f} s, written in {written:.0f} s"),
            Row(f"{BATCH} random scans of {SCANS:,}, as stored rows", each["rows"],
                note=f"{BATCH / each['rows']:,.0f} scans/s, each checked by CRC-32")]


def anonymous_mb() -> float:
    """Private memory of this process: RssAnon, MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1000
    raise RuntimeError("no RssAnon: this needs Linux")


def _write(folder: Path) -> None:
    contract, rng = Contract(), np.random.default_rng(0)
    rows = rng.random((WRITE, row_bytes(contract.spec) // 2)).astype(np.float16)
    with StoreWriter(folder, contract) as writer:
        for start in range(0, SCANS, WRITE):
            scans = [Scan("bench", f"sub-{start + i:06d}", "", Path("none"), "A") for i in range(WRITE)]
            writer.append_many(scans, rows)
