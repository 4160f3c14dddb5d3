"""BIDS folders as people really keep them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from headstart.brains.bids import read_bids
from headstart.brains.cohort import Cohort, Scan
from headstart.brains.nifti import write_nifti
from headstart.brains.tables import Codebook, read_table


def bids(folder: Path, files: list[str], table: str | bytes | None = None, **extra: str) -> Path:
    """A data set whose scans are all different; only those that are read need voxels."""
    for i, name in enumerate(files):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{folder.name} {i}".encode())
    if table is not None:
        (folder / "participants.tsv").write_bytes(table if isinstance(table, bytes) else table.encode())
    for name, text in extra.items():
        (folder / name.replace("__", "/").replace("_json", ".json")).write_text(text)
    return folder


def anat(*subjects: str) -> list[str]:
    return [f"sub-{name}/anat/sub-{name}_T1w.nii.gz" for name in subjects]


def by_id(cohort: Cohort) -> dict[str, Scan]:
    return {scan.participant_id: scan for scan in cohort}


def test_scans_with_what_the_table_says(tmp_path):
    table = "participant_id\tage\tsex\tsite\tgroup\tNote\nsub-01\t31\tF\tX\tn/a\thello you\nsub-02\tn/a\tm\tn/a\tCN\t\n"
    first, second = read_bids([bids(tmp_path / "lab", anat("01", "02"), table)])
    assert first == Scan("lab", "sub-01", "", tmp_path / "lab" / anat("01")[0], "X", 31.0, False, "F",
                         {"Note": "hello you"}, "lab/sub-01")
    assert (second.site, second.age_years, second.sex, second.columns) == ("lab", None, "M", {"group": "CN"})


@pytest.mark.parametrize(("cell", "expected"), [
    ("38.78", (38.78, False)), ("38,78", (38.78, False)), ("89+", (89.0, True)), (">89", (89.0, True)),
    ("≥90", (90.0, True)), (" 045Y ", (45.0, False)), ("018M", (1.5, False)), ("24 months", (2.0, False)),
    ("31 years", (31.0, False)), ("0", (0.0, False)), ("612", None), ("-5", None), ("60-65", None), ("old", None),
    ("1e3", None), ("nan", None), ("٣١", (31.0, False)),
])
def test_ages(cell, expected):
    assert Codebook().age(cell.strip()) == expected


@pytest.mark.parametrize(("cell", "expected"), [
    ("F", "F"), ("f", "F"), ("Female", "F"), ("woman", "F"), ("M", "M"), ("male", "M"), ("Man", "M"),
    ("2", None), ("1", None), ("x", None),
])
def test_sexes(cell, expected):
    assert Codebook().sex(cell) == expected


def test_numbers_for_sex_and_months_for_age_need_a_code_book(tmp_path):
    table = "participant_id\tage\tsex\nsub-01\t372\t1\nsub-02\t120\t2\n"
    code = {"age": {"Units": "months"}, "sex": {"Levels": {"1": "male", "2": {"Description": "Female participant"}}}}
    with_code = read_bids([bids(tmp_path / "a", anat("01", "02"), table, participants_json=json.dumps(code))])
    assert [(s.age_years, s.sex) for s in with_code] == [(31.0, "M"), (10.0, "F")]
    assert "ages turned into years, as participants.json says: months" in with_code.notes[0]
    without = read_bids([bids(tmp_path / "b", anat("01", "02"), table)])
    assert [s.sex for s in without] == [None, None]
    assert "numbers need Levels" in without.notes[1]


def test_a_column_that_is_mostly_not_years_is_left_out_as_a_whole(tmp_path):
    table = "participant_id\tage\nsub-01\t372\nsub-02\t120\nsub-03\t400\n"
    cohort = read_bids([bids(tmp_path / "a", anat("01", "02", "03"), table)])
    assert [s.age_years for s in cohort] == [None] * 3
    assert '"Units": "months"' in cohort.notes[0]


@pytest.mark.parametrize("spelling", ["n/a", "N/A", "NA", "nan", "", " ", "n.a.", "unknown", "#N/A", "?"])
def test_spellings_of_absent(tmp_path, spelling):
    table = f"participant_id\tage\tsex\tgroup\tx\nsub-01\t{spelling}\t{spelling}\t{spelling}\t1\n"
    (scan,) = read_bids([bids(tmp_path / "lab", anat("01"), table)])
    assert (scan.age_years, scan.sex, scan.columns) == (None, None, {"x": "1"})


@pytest.mark.parametrize("table", [
    "\ufeffparticipant_id\tage\tcity\r\nsub-01\t31\tMünchen\r\n".encode(),
    "participant_id\tage\tcity\nsub-01\t31\tMünchen\n".encode("latin-1"),
    "participant_id\tage\tcity\rsub-01\t31\tMünchen\r".encode(),
    "participant_id\tage\tcity\nsub-01\t31\tMünchen".encode("utf-16"),
    'participant_id,age,city\nsub-01,"31","München"\n'.encode(),
    'Participant_ID;Age;city\n01;31;"München"\n'.encode(),
    '"participant_id"\t"age"\t"city"\n"sub-01"\t"31"\t"München"\n\n\n'.encode(),
    "participant_id\tage\tcity\tage\t\nsub-01\t31\tMünchen\t99\tx\ty\tz\n".encode(),
], ids=["bom-crlf", "latin-1", "cr", "utf-16", "commas", "semicolons", "quotes", "double column"])
def test_tables_of_every_make(tmp_path, table):
    (scan,) = read_bids([bids(tmp_path / "lab", anat("01"), table)])
    assert (scan.age_years, scan.columns) == (31.0, {"city": "München"})


def test_a_quote_in_a_cell_swallows_no_lines(tmp_path):
    (tmp_path / "t.tsv").write_text('participant_id\tnote\nsub-01\t"oops\nsub-02\tb\n')
    assert [row["participant_id"] for row in read_table(tmp_path / "t.tsv").rows] == ["sub-01", "sub-02"]


def test_visits_override_the_participant(tmp_path):
    files = [f"sub-01/ses-{s}/anat/sub-01_ses-{s}_T1w.nii.gz" for s in ("a", "b", "c")]
    folder = bids(tmp_path / "lab", files, "participant_id\tage\tsex\tdiagnosis\nsub-01\t70\tF\tCN\n")
    (folder / "sub-01" / "sub-01_sessions.tsv").write_text(
        "session_id\tage\tdiagnosis\nses-a\t70.5\tn/a\nb\t73\tAD\n")
    scans = read_bids([folder]).scans
    assert [(s.session, s.age_years, s.sex, s.columns["diagnosis"]) for s in scans] == [
        ("ses-a", 70.5, "F", "CN"), ("ses-b", 73.0, "F", "AD"), ("ses-c", 70.0, "F", "CN")]
    assert {s.subject for s in scans} == {"lab/sub-01"}


def test_participants_with_a_row_for_each_visit(tmp_path):
    files = [f"sub-01/ses-{s}/anat/sub-01_ses-{s}_T1w.nii.gz" for s in ("1", "2")]
    cohort = read_bids([bids(tmp_path / "lab", files,
                             "participant_id\tsession_id\tage\nsub-01\tses-1\t70\nsub-01\tses-2\t72\n")])
    assert [s.age_years for s in cohort] == [70.0, 72.0]
    assert cohort.notes == ()


@pytest.mark.parametrize(("names", "chosen"), [
    (["acq-mprage_run-01", "run-02", "run-01"], "run-01"),
    (["rec-norm", ""], ""),
    (["acq-b", "acq-a"], "acq-a"),
    (["run-01", ""], ""),
    (["ce-gadolinium", "run-10", "run-9"], "run-9"),
])
def test_the_rule_for_several_scans(tmp_path, names, chosen):
    files = [f"sub-01/anat/sub-01_{name}_T1w.nii.gz".replace("__", "_") for name in names]
    cohort = read_bids([bids(tmp_path / "lab", files, "participant_id\nsub-01\n")])
    expected = f"sub-01_{chosen}_T1w.nii.gz".replace("__", "_")
    assert cohort.scans[0].path.name == expected
    assert cohort.notes == (f"lab: sessions with several T1w scans, of which one is used: {expected}",)


def test_only_raw_t1w_files_count(tmp_path):
    files = [*anat("01"), "derivatives/fs/sub-09/anat/sub-09_T1w.nii.gz", ".git/sub-08/anat/sub-08_T1w.nii.gz",
             "sub-01/anat/._sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T2w.nii.gz", "sub-01/func/sub-01_T1w.nii.gz"]
    assert [s.participant_id for s in read_bids([bids(tmp_path / "lab", files)])] == ["sub-01"]


def test_data_sets_of_one_name_and_one_given_twice(tmp_path):
    a, b = (bids(tmp_path / side / "data", anat("01")) for side in "ab")
    (b / anat("01")[0]).write_bytes(b"another scan")
    cohort = read_bids([a, b, a / "." / "sub-01" / ".."])
    assert [str(s.key) for s in cohort] == ["data/sub-01", "data-2/sub-01"]
    assert [s.site for s in cohort] == ["data", "data-2"]
    assert "is called data-2" in " ".join(cohort.notes)
    assert "was given twice" in " ".join(cohort.notes)


def test_the_same_file_makes_one_subject_through_any_chain(tmp_path):
    a = bids(tmp_path / "a", anat("01", "02"))
    b = bids(tmp_path / "b", anat("07", "08"))
    files = ["sub-09/ses-1/anat/sub-09_ses-1_T1w.nii.gz", "sub-09/ses-2/anat/sub-09_ses-2_T1w.nii.gz"]
    c = bids(tmp_path / "c", files)
    (b / anat("07")[0]).write_bytes((a / anat("02")[0]).read_bytes())
    (c / files[1]).write_bytes((a / anat("02")[0]).read_bytes())
    subjects = {str(s.key): s.subject for s in read_bids([a, b, c])}
    assert subjects == {"a/sub-01": "a/sub-01", "a/sub-02": "a/sub-02", "b/sub-07": "a/sub-02", "b/sub-08": "b/sub-08",
                        "c/sub-09/ses-1": "a/sub-02", "c/sub-09/ses-2": "a/sub-02"}


def test_same_size_and_ends_but_other_voxels_are_two_subjects(tmp_path):
    folder = bids(tmp_path / "a", [])
    for i, name in enumerate(anat("01", "02")):
        data = np.zeros((40, 40, 40), np.int16)
        data[11, 11, 11 + i] = 1
        (folder / name).parent.mkdir(parents=True)
        write_nifti((folder / name).with_suffix(""), data, np.eye(4))  # .nii: all sizes are equal
    assert len({s.subject for s in read_bids([folder])}) == 2


def test_thousands_of_subjects(tmp_path):
    ids = [f"{i:05d}" for i in range(3000)]
    table = "participant_id\tage\tsex\n" + "".join(f"sub-{i}\t40\tF\n" for i in ids)
    folder = bids(tmp_path / "lab", anat(*ids), table)
    cohort = read_bids([folder])
    assert len(cohort) == 3000
    assert len({s.subject for s in cohort}) == 3000


def test_real_data_sets(real_data):
    cohort = read_bids([real_data / name for name in ("ds002748", "ds000011", "ixi10")])
    assert len(cohort) == 96
    assert cohort.notes == ()
    assert len({s.subject for s in cohort}) == 96
    assert all(s.age_years and s.sex for s in cohort)
    assert {s.site for s in cohort} == {"ds002748", "ds000011", "IXI-HH"}
    assert by_id(cohort)["sub-IXI012"].age_years == 38.78
    assert sum(s.columns.get("group") == "depr" for s in cohort) == 51
