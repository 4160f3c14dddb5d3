"""The quality page: self-contained, the doubtful first, and not too large."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.brains.cohort import Scan
from headstart.brains.contract import Contract
from headstart.brains.facts import Facts
from headstart.brains.qc import SHOWN_IN_FULL, review, write_qc
from headstart.brains.store import Store, StoreWriter, pack
from headstart.brains.volumes import template

FACTS = Facts(source_sha256="0" * 64, already_extracted=True, brain_volume_ml=1400.0, linear_scale=1.1,
              affine=((1.0, 0.0, 0.0, 0.0),) * 4, overlap=0.95, correlation=0.7, csf_fraction=0.2, grey_fraction=0.5,
              white_fraction=0.3, voxel_size_mm=(1.0, 1.0, 1.0))


def build(path: Path, n: int, odd: dict[int, Facts]) -> Path:
    (source := path / "scan.nii.gz").write_bytes(b"scan")
    row = pack(template("4mm").t1, Contract().spec)
    scans = [Scan("toy", f"sub-{i:04d}", "", source, "A & B <i>") for i in range(n)]
    rng = np.random.default_rng(0)
    with StoreWriter(path / "store", Contract()) as writer:
        writer.append_many(scans, np.repeat(row[None], n, 0),
                           [odd.get(i, replace(FACTS, overlap=0.95 + rng.normal(0, 0.003))) for i in range(n)])
        writer.fail(Scan("toy", "sub-bad", "", source, "A"), "is damaged <or> cut short")
    return path / "store"


def test_doubtful_scans_come_first_with_reasons(tmp_path: Path) -> None:
    odd = {7: replace(FACTS, overlap=0.6, notes=("look at this scan",)), 3: replace(FACTS, brain_volume_ml=2200.0)}
    store = Store.open(build(tmp_path, 20, odd))
    first, second, third = review(store.scans)[:3]
    assert [first.index, second.index] == [7, 3]
    assert any("less well" in reason for reason in first.reasons)
    assert "larger brain than the others (2200; median 1400)" in second.reasons[0]
    assert not third.reasons


def test_page_needs_nothing_else_and_shows_failures(tmp_path: Path) -> None:
    page = write_qc(build(tmp_path, 12, {})).read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "<script" not in page
    assert page.count("<article") == 12
    assert "is damaged &lt;or&gt; cut short" in page
    assert "A &amp; B &lt;i&gt;" in page


def test_the_same_store_gives_the_same_page(tmp_path: Path) -> None:
    store = build(tmp_path, 5, {})
    assert write_qc(store).read_bytes() == write_qc(store).read_bytes()


def test_many_scans_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.brains.qc.SHOWN_IN_FULL", 20)
    path = write_qc(build(tmp_path, 600, {}))
    page = path.read_text()
    assert page.count("<article") == 20
    assert "The other 580 scans" in page
    rest_bytes = len(page[page.index("The other 580"):]) / 580
    card_bytes = len(page[page.index("<article"):page.index("The other 580")]) / 20
    assert card_bytes * SHOWN_IN_FULL + rest_bytes * 10_000 < 40e6


def test_an_empty_store_has_a_page(tmp_path: Path) -> None:
    assert "0 scans" in write_qc(build(tmp_path, 0, {})).read_text()
