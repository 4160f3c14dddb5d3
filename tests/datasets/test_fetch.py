"""Data sets come whole from a real local server: listed, resumed, checked, laid out as BIDS."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import xlwt
from publisher import Publisher
from typer.testing import CliRunner

from headstart.brains.bids import read_bids
from headstart.brains.nifti import write_nifti
from headstart.cli import app
from headstart.datasets import DATASETS, fetch, find
from headstart.datasets.catalogue import RemoteFile
from headstart.errors import HeadstartError
from headstart.files import read_json


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    for variable in ("HEADSTART_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    server = Publisher()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    write_nifti(path, np.arange(64**3, dtype=np.int16).reshape(64, 64, 64), np.eye(4))
    return path.read_bytes()


@pytest.fixture
def openneuro(publisher: Publisher, scan: bytes) -> Publisher:
    """ds000011 in small, with what is not wanted of it; more keys than one page of the listing holds."""
    table = b"participant_id\tage\tsex\nsub-01\t35\tM\nsub-02\t34\tF\nsub-03\t29\tF\n"
    publisher.files = {"ds000011/participants.tsv": table, "ds000011/dataset_description.json": b"{}",
                       "ds000011/derivatives/sub-01/anat/sub-01_T1w.nii.gz": b"not raw",
                       **{f"ds000011/sub-0{n}/anat/sub-0{n}_T1w.nii.gz": scan + bytes([n]) for n in (1, 2, 3)},
                       "ds000011/sub-01/func/sub-01_task-rest_bold.nii.gz": b"time"}
    return publisher


def test_an_openneuro_set_comes_as_bids_and_then_needs_no_network(openneuro: Publisher, tmp_path, monkeypatch):
    out = tmp_path / "ds"
    done = CliRunner().invoke(app, ["data", "fetch", "ds000011", "--out", str(out), "--mirror", openneuro.address])
    assert done.exit_code == 0, done.output
    assert "Licence: PDDL" in done.output
    cohort = read_bids([out])
    assert [(scan.participant_id, scan.age_years, scan.sex) for scan in cohort] == [
        ("sub-01", 35.0, "M"), ("sub-02", 34.0, "F"), ("sub-03", 29.0, "F")]
    assert not (out / "sub-01/func").exists()
    assert not (out / "derivatives").exists()
    monkeypatch.setenv("HEADSTART_OFFLINE", "1")
    before = len(openneuro.asked)
    fetch(find("ds000011"), out)
    assert len(openneuro.asked) == before == 5


def test_an_interrupted_set_goes_on_where_it_ended(openneuro: Publisher, tmp_path):
    key = "ds000011/sub-02/anat/sub-02_T1w.nii.gz"
    openneuro.break_at[key] = 1000
    with pytest.raises(HeadstartError, match="goes on from there"):
        fetch(find("ds000011"), tmp_path, mirror=openneuro.address)
    assert not (tmp_path / "sub-02/anat/sub-02_T1w.nii.gz").exists()
    fetch(find("ds000011"), tmp_path, mirror=openneuro.address)
    assert (tmp_path / "sub-02/anat/sub-02_T1w.nii.gz").read_bytes() == openneuro.files[key]
    assert [wanted for path, wanted in openneuro.asked if path == key] == [None, "bytes=1000-"]
    assert [path for path, _ in openneuro.asked].count("ds000011/sub-01/anat/sub-01_T1w.nii.gz") == 1


def test_a_file_that_changes_in_between_is_fetched_anew(openneuro: Publisher, tmp_path, scan: bytes):
    key = "ds000011/sub-02/anat/sub-02_T1w.nii.gz"
    openneuro.break_at[key] = 1000
    with pytest.raises(HeadstartError):
        fetch(find("ds000011"), tmp_path, mirror=openneuro.address)
    openneuro.files[key] = b"new" + scan
    fetch(find("ds000011"), tmp_path, mirror=openneuro.address)
    assert (tmp_path / "sub-02/anat/sub-02_T1w.nii.gz").read_bytes() == b"new" + scan


def test_a_file_damaged_here_is_fetched_again(openneuro: Publisher, tmp_path):
    fetch(find("ds000011"), tmp_path, mirror=openneuro.address)
    path = tmp_path / "sub-03/anat/sub-03_T1w.nii.gz"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"\x00")
    fetch(find("ds000011"), tmp_path, mirror=openneuro.address)
    assert path.read_bytes() == good


def test_a_long_download_says_how_far_it_is(openneuro: Publisher, tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("headstart.datasets.fetch"), "SAID_EVERY_S", 0.0)
    said: list[str] = []
    fetch(find("ds000011"), tmp_path, mirror=openneuro.address, say=said.append)
    assert said[0] == "1 of 5: dataset_description.json"
    assert sum(line.endswith(" MB") for line in said) >= 5


def test_a_publisher_that_withdraws_a_file_is_told_apart_from_a_bad_line(openneuro: Publisher, tmp_path):
    gone = (RemoteFile("gone.nii.gz", "gone.nii.gz"),)
    one = replace(find("synthseg-label-maps"), base=openneuro.address, files=gone)
    with pytest.raises(HeadstartError, match="404") as refusal:
        fetch(one, tmp_path)
    assert "headstart data list" in refusal.value.fix


def label_maps(publisher: Publisher, content: bytes, sha256: str):
    publisher.files["data/one.nii.gz"] = content
    return replace(find("synthseg-label-maps"), base=publisher.address,
                   files=(RemoteFile("data/one.nii.gz", "one.nii.gz", sha256=sha256),))


def test_a_corrupt_byte_on_the_way_is_found_and_nothing_is_kept(publisher: Publisher, tmp_path, scan: bytes):
    sha256 = hashlib.sha256(scan).hexdigest()
    with pytest.raises(HeadstartError, match="not the file that was published"):
        fetch(label_maps(publisher, scan[:500] + b"\x00" + scan[501:], sha256), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", ".fetching"}
    fetch(label_maps(publisher, scan, sha256), tmp_path)
    assert (tmp_path / "one.nii.gz").read_bytes() == scan


def spreadsheet() -> bytes:
    """IXI.xls in small: its sheet, its columns, a person entered twice and one without an age."""
    book = xlwt.Workbook()
    sheet = book.add_sheet("Table")
    rows = [("IXI_ID", "SEX_ID (1=m, 2=f)", "HEIGHT", "AGE"), (2, 2, 164, 35.8), (12, 1, 175, 38.78),
            (13, 1, 182, 46.71), (13, 2, 182, 46.71), (14, 2, 163, None)]
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            if cell is not None:
                sheet.write(i, j, cell)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def archive(scan: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name in ("IXI002-Guys-0828-T1.nii.gz", "IXI012-HH-1211-T1.nii.gz", "IXI013-HH-1212-T1.nii.gz",
                     "IXI014-IOP-0873-T1.nii.gz", "../../IXI-evil.nii.gz"):
            member = tarfile.TarInfo(name)
            member.size = len(scan)
            tar.addfile(member, io.BytesIO(scan))
    return file.getvalue()


def ixi(publisher: Publisher, scan: bytes):
    publisher.files = {"IXI-T1.tar": archive(scan), "IXI.xls": spreadsheet()}
    files = tuple(replace(file, md5=None, sha256=hashlib.sha256(publisher.files[file.url]).hexdigest())
                  for file in find("ixi").files)
    return replace(find("ixi"), base=publisher.address, files=files)


def test_ixi_becomes_bids(publisher: Publisher, tmp_path, scan: bytes):
    record = ixi(publisher, scan)
    publisher.break_at["IXI-T1.tar"] = 5000
    with pytest.raises(HeadstartError, match="same command again"):
        fetch(record, tmp_path / "ixi")
    out = fetch(record, tmp_path / "ixi")
    cohort = read_bids([out])
    assert [(s.participant_id, s.age_years, s.sex, s.site) for s in cohort] == [
        ("sub-IXI002", 35.8, "F", "IXI-Guys"), ("sub-IXI012", 38.78, "M", "IXI-HH"),
        ("sub-IXI013", 46.71, None, "IXI-HH"), ("sub-IXI014", None, "F", "IXI-IOP")]
    assert gzip.decompress(cohort.scans[0].path.read_bytes()) == gzip.decompress(scan)
    assert read_json(out / "dataset_description.json")["License"] == "CC BY-SA 3.0"
    assert not (out / ".download").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ixi"]
    asked = len(publisher.asked)
    fetch(record, out)
    assert len(publisher.asked) == asked
    (out / "fetched.json").unlink()  # as the message about a damaged receipt advises
    assert len(read_bids([fetch(record, out)])) == 4


def test_a_folder_of_another_set_is_refused(openneuro: Publisher, tmp_path):
    fetch(find("ds000011"), tmp_path, mirror=openneuro.address)
    with pytest.raises(HeadstartError, match="holds ds000011"):
        fetch(find("ds002748"), tmp_path, mirror=openneuro.address)


def test_a_folder_with_files_of_ones_own_is_refused_and_left_as_it_is(openneuro: Publisher, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(HeadstartError, match=r"holds other files \(thesis.txt\).*new or empty"):
        fetch(find("ds000011"), tmp_path, mirror=openneuro.address)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != ".lock") == ["thesis.txt"]


def test_a_folder_of_ixi_is_no_place_for_another_set(openneuro: Publisher, tmp_path):
    (tmp_path / "sub-IXI002" / "anat").mkdir(parents=True)
    (tmp_path / "sub-IXI002" / "anat" / "sub-IXI002_T1w.nii.gz").write_bytes(b"mine")
    with pytest.raises(HeadstartError, match="holds other files"):
        fetch(find("ds000011"), tmp_path, mirror=openneuro.address)


def test_what_a_file_manager_leaves_does_not_stop_a_set_from_going_on(openneuro: Publisher, tmp_path):
    (tmp_path / ".DS_Store").write_bytes(b"1")
    openneuro.break_at["ds000011/participants.tsv"] = 3
    with pytest.raises(HeadstartError, match="goes on from there"):
        fetch(find("ds000011"), tmp_path, mirror=openneuro.address)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(HeadstartError, match="holds a part of ds000011"):
        fetch(find("ds002748"), tmp_path, mirror=openneuro.address)
    fetch(find("ds000011"), tmp_path, mirror=openneuro.address)
    assert (tmp_path / "participants.tsv").is_file()
    assert not (tmp_path / ".fetching").exists()


def test_a_torrent_says_what_to_do():
    with pytest.raises(HeadstartError, match="prepare FOLDER"):
        fetch(find("ldm100k"), "nowhere")
    assert not Path("nowhere").exists()


def test_every_record_says_what_a_reader_needs():
    done = CliRunner().invoke(app, ["data", "list"])
    assert done.exit_code == 0
    assert all(record.licence and record.page.startswith("https://") for record in DATASETS.values())
    with pytest.raises(HeadstartError, match="Choose one of: ixi"):
        find("adni")


def test_a_login_page_is_not_taken_for_a_label_map(publisher: Publisher, tmp_path, scan: bytes):
    page = replace(label_maps(publisher, b"<!DOCTYPE html><p>Log in", ""), files=(
        RemoteFile("data/one.nii.gz", "one.nii.gz"),))
    with pytest.raises(HeadstartError, match=r"no compressed NIfTI.*log in"):
        fetch(page, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", ".fetching"}
    publisher.files["data/one.nii.gz"] = scan
    assert (fetch(page, tmp_path) / "one.nii.gz").read_bytes() == scan


@pytest.mark.parametrize("address", ["not a url", "ftp:", "http://[bad", "mirror/ixi", "https:///"])
def test_a_mirror_that_is_no_address_is_refused(tmp_path, address: str):
    with pytest.raises(HeadstartError, match="no address"):
        fetch(find("ds000011"), tmp_path / "out", mirror=address)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("receipt", ["{", "[]", '{"dataset": "ds000011"}', '{"dataset": "x", "files": {"a": 1}}'])
def test_a_broken_receipt_says_what_to_do(tmp_path, receipt: str):
    (tmp_path / "fetched.json").write_text(receipt)
    with pytest.raises(HeadstartError, match=r"fetched\.json: is damaged.*Remove it"):
        fetch(find("ds000011"), tmp_path)
