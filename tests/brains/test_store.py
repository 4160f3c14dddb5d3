"""Stores: what goes in comes out, nothing damaged is read, and a killed writer loses nothing it reported."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.brains.cohort import Scan
from headstart.brains.contract import Contract
from headstart.brains.facts import Facts
from headstart.brains.store import Store, StoreWriter, pack
from headstart.brains.volumes import template
from headstart.errors import BusyError, HeadstartError

CONTRACT = Contract()
N_KEPT = int(template("4mm").kept.sum())
FACTS = Facts(source_sha256="0" * 64, already_extracted=True, brain_volume_ml=1400.0, linear_scale=1.1,
              affine=((1.0, 0.0, 0.0, 0.0),) * 4, overlap=0.95, correlation=0.7, csf_fraction=0.2, grey_fraction=0.5,
              white_fraction=0.3, voxel_size_mm=(1.0, 1.0, 1.0), notes=("a note",))


def scans(n: int, path: Path = Path("none.nii.gz")) -> list[Scan]:
    return [Scan("sim", f"sub-{i:03d}", "", path, "A", age_years=20.0 + i, sex="F", subject=f"sim/sub-{i:03d}")
            for i in range(n)]


def rows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, N_KEPT)).astype(np.float16)


def write(path: Path, n: int = 5) -> np.ndarray:
    values = rows(n)
    with StoreWriter(path, CONTRACT) as writer:
        writer.append_many(scans(n), values)
    return values


def interrupted(path: Path, planned: list[Scan], items: list[tuple]) -> None:
    """A run that appends ``items`` and then ends by an error, before the store is finished."""
    with contextlib.suppress(KeyboardInterrupt), StoreWriter(path, CONTRACT, planned) as writer:
        for item in items:
            writer.append(*item)
        raise KeyboardInterrupt


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())
            if file.name not in (".lock", "timings.tsv")}


def test_round_trip(tmp_path: Path) -> None:
    values = write(tmp_path)
    store = Store.open(tmp_path)
    store.verify()
    assert [stored.scan for stored in store.scans] == scans(5)
    assert np.array_equal(store.rows([3, 0, 3]), values[[3, 0, 3]])
    assert store.contract == CONTRACT


def test_volumes_are_the_packed_ones(tmp_path: Path) -> None:
    kept = template("4mm").kept
    volume = np.where(kept, np.random.default_rng(0).random(kept.shape), 0).astype(np.float16)
    with StoreWriter(tmp_path, CONTRACT) as writer:
        writer.append(scans(1)[0], pack(volume, CONTRACT.spec))
    assert np.array_equal(Store.open(tmp_path).volumes([0]).numpy()[0, 0], volume.astype(np.float32))


def test_facts_and_source_survive(tmp_path: Path) -> None:
    (source := tmp_path / "scan.nii.gz").write_bytes(b"voxels")
    with StoreWriter(tmp_path / "store", CONTRACT) as writer:
        writer.append(scans(1, source)[0], rows(1)[0], FACTS)
    stored = Store.open(tmp_path / "store").scans[0]
    assert stored.facts == FACTS
    assert stored.source.size == 6


def test_rows_follow_the_plan_whatever_the_order(tmp_path: Path) -> None:
    planned, values = scans(4), rows(4)
    for name, order in (("a", (0, 1, 2, 3)), ("b", (3, 1, 0, 2))):
        with StoreWriter(tmp_path / name, CONTRACT, planned) as writer:
            for i in order:
                writer.append(planned[i], values[i])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_failed_scan_keeps_its_row_for_the_next_run(tmp_path: Path) -> None:
    planned, values = scans(3), rows(3)
    with StoreWriter(tmp_path / "a", CONTRACT, planned) as writer:
        writer.append_many([planned[0], planned[2]], values[[0, 2]])
        writer.fail(planned[1], "is damaged\nor so")
    assert "sub-001\t\tnone.nii.gz\tis damaged or so" in (tmp_path / "a" / "failed.tsv").read_text()
    assert len(Store.open(tmp_path / "a")) == 2
    with StoreWriter(tmp_path / "a", CONTRACT, planned) as writer:
        writer.append(planned[1], values[1])
    with StoreWriter(tmp_path / "b", CONTRACT, planned) as writer:
        writer.append_many(planned, values)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_changed_file_is_prepared_again_and_the_old_index_stays_true(tmp_path: Path) -> None:
    (source := tmp_path / "scan.nii.gz").write_bytes(b"one")
    planned, values = scans(1, source), rows(2)
    store = tmp_path / "store"
    with StoreWriter(store, CONTRACT, planned) as writer:
        writer.append(planned[0], values[0], FACTS)
    with StoreWriter(store, CONTRACT, planned) as writer:
        assert writer.finished(planned[0])
    source.write_bytes(b"another")
    interrupted(store, planned, [(planned[0], values[1], FACTS)])
    assert np.array_equal(Store.open(store).rows([0])[0], values[0])
    with StoreWriter(store, CONTRACT, planned) as writer:
        assert writer.finished(planned[0])
    assert np.array_equal(Store.open(store).rows([0])[0], values[1])


@pytest.mark.parametrize("name", ["voxels.f16", "index.jsonl", "contract.json", "plan.json", "failed.tsv"])
def test_one_flipped_byte_is_found(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    path, clean = tmp_path / name, (tmp_path / name).read_bytes()
    for position in np.random.default_rng(0).integers(0, len(clean), 20):
        damaged = bytearray(clean)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(HeadstartError, match=r"store|damaged|JSON|written|prepar|newer|know"):
            Store.open(tmp_path).verify()


def test_corrected_tables_and_people_who_left_are_believed(tmp_path: Path) -> None:
    values = write(tmp_path)
    older = [replace(scan, age_years=70.0) for scan in scans(3)]
    with StoreWriter(tmp_path, CONTRACT, older):
        pass
    store = Store.open(tmp_path)
    assert [stored.scan.age_years for stored in store.scans] == [70.0, 70.0, 70.0, 23.0, 24.0]
    with StoreWriter(tmp_path, CONTRACT, older, plan_alone=True):
        pass
    store = Store.open(tmp_path)
    assert [stored.scan.age_years for stored in store.scans] == [70.0] * 3
    np.testing.assert_array_equal(store.rows([0, 1, 2]), values[:3])
    store.verify()


def test_a_damaged_row_is_never_read(tmp_path: Path) -> None:
    write(tmp_path)
    with open(tmp_path / "voxels.f16", "r+b") as file:
        file.seek(2 * N_KEPT * 2 + 11)
        file.write(b"\xff")
    store = Store.open(tmp_path)
    store.rows([0, 1, 3])
    with pytest.raises(HeadstartError, match="sub-002"):
        store.volumes([1, 2])


@pytest.mark.parametrize("name", ["contract.json", "index.jsonl"])
def test_a_newer_store_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    first, _, rest = (tmp_path / name).read_text().partition("\n{")
    newer = first.replace('"version": 1', '"version": 9', 1).replace('"version":1', '"version":9', 1)
    (tmp_path / name).write_text(newer + (_ and "\n{") + rest)
    with pytest.raises(HeadstartError, match="newer headstart"):
        Store.open(tmp_path)


def test_truncated_absent_and_unfinished_stores_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match="is not a store"):
        Store.open(tmp_path / "nothing")
    write(tmp_path / "cut")
    os.truncate(tmp_path / "cut" / "voxels.f16", 1000)
    with pytest.raises(HeadstartError, match="bytes where"):
        Store.open(tmp_path / "cut")
    interrupted(tmp_path / "half", [], [(scans(1)[0], rows(1)[0])])
    with pytest.raises(HeadstartError, match="has not finished"):
        Store.open(tmp_path / "half")


def test_other_settings_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(HeadstartError, match="bias_correction is n4, not none"), \
            StoreWriter(tmp_path, Contract(bias_correction="none")):
        pass


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with StoreWriter(tmp_path, CONTRACT):
        second = "from headstart.brains.store import StoreWriter; from headstart.brains.contract import Contract; " \
                 f"StoreWriter({str(tmp_path)!r}, Contract()).__enter__()"
        done = subprocess.run([sys.executable, "-c", second], capture_output=True, text=True, check=False)
    assert BusyError.__name__ in done.stderr
    assert f"process {os.getpid()}" in done.stderr


def test_every_torn_journal_resumes(tmp_path: Path) -> None:
    """A kill can cut the journal at any byte; what was whole is kept, and appending goes on behind it."""
    values = write(tmp_path / "whole", 3)
    interrupted(tmp_path / "torn", [], list(zip(scans(3), values)))
    journal = (tmp_path / "torn" / "journal.jsonl").read_bytes()
    first = journal.index(b"\n") + 1
    for cut in (0, 5, first - 1, first, first + 20, len(journal) - 1):
        (tmp_path / "torn" / "journal.jsonl").write_bytes(journal[:cut])
        (tmp_path / "torn" / "index.jsonl").unlink(missing_ok=True)
        with StoreWriter(tmp_path / "torn", CONTRACT) as writer:
            assert len(writer) == (0 if cut < first else 2 if cut == len(journal) - 1 else 1)
            for scan, row in list(zip(scans(3), values))[len(writer):]:
                writer.append(scan, row)
        assert contents(tmp_path / "torn") == contents(tmp_path / "whole")


WRITER = """
import sys; from pathlib import Path; import numpy as np
from headstart.brains.cohort import Scan
from headstart.brains.contract import Contract
from headstart.brains.store import StoreWriter
scans = [Scan("sim", f"sub-{i:03d}", "", Path("none"), "A") for i in range(200)]
with StoreWriter(sys.argv[1], Contract()) as writer:
    print("open", flush=True)
    for start in range(0, 200, 4):
        batch = scans[start : start + 4]
        if any(scan.key not in writer for scan in batch):
            writer.append_many(batch, np.full((4, int(sys.argv[2])), start, np.float16))
"""


def test_sigkill_while_a_simulation_writes(tmp_path: Path, long: bool) -> None:
    def run(folder: Path, kill_after: float | None) -> None:
        command = [sys.executable, "-c", WRITER, str(folder), str(N_KEPT)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            try:
                process.wait(kill_after)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)

    run(tmp_path / "whole", None)
    for delay in np.random.default_rng(0).uniform(0, 0.3, 20 if long else 4):
        run(tmp_path / "killed", float(delay))
    run(tmp_path / "killed", None)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    Store.open(tmp_path / "killed").verify()


def test_a_full_disk_is_one_message_and_nothing_is_lost(tmp_path: Path) -> None:
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); " \
              f"resource.setrlimit(resource.RLIMIT_FSIZE, ({N_KEPT * 2 * 50 + 100},) * 2)\n"
    command = [sys.executable, "-c", limited + WRITER, str(tmp_path / "full"), str(N_KEPT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Free some disk space" in done.stderr.splitlines()[-1]
    free = [sys.executable, "-c", WRITER, str(tmp_path / "full"), str(N_KEPT)]
    subprocess.run(free, check=True, capture_output=True)
    subprocess.run([*free[:3], str(tmp_path / "whole"), free[4]], check=True, capture_output=True)
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")


def test_index_is_lean_json(tmp_path: Path) -> None:
    """The documented layout: other programs may read it."""
    write(tmp_path, 2)
    header, *lines = [json.loads(line) for line in (tmp_path / "index.jsonl").read_text().splitlines()]
    assert header["format"] == "headstart-store"
    assert [line["scan"]["participant_id"] for line in lines] == ["sub-000", "sub-001"]
