"""LDM100K's own layout is read, with its four labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.brains.bids import read_bids
from headstart.datasets.ldm100k import is_ldm100k, read_ldm100k
from headstart.errors import HeadstartError


def published(folder: Path, header: str, *rows: str) -> Path:
    """The table, and an image for every row but the last."""
    (folder / "rawdata").mkdir(parents=True)
    (folder / "participants.tsv").write_text("\n".join([header, *rows]) + "\n")
    for row in rows[:-1]:
        name = row.split("\t")[0]
        (folder / "rawdata" / name / "anat").mkdir(parents=True)
        (folder / "rawdata" / name / "anat" / f"{name}_T1w.nii.gz").write_bytes(b"brain " + name.encode())
    return folder


def test_four_labels_are_read(tmp_path: Path):
    folder = published(tmp_path / "LDM_100k", "participant_id\tage\tsex\tventricular_volume\tbrain_volume",
                       "sub-000001\t63.5\t0\t31250\t1480000", "sub-000002\t45\t1\t0.2\t0.5", "sub-000003\t50\t1\t1\t1")
    assert is_ldm100k(folder)
    cohort = read_ldm100k(folder)
    assert [(s.participant_id, s.age_years, s.sex, s.simulated) for s in cohort] == [
        ("sub-000001", 63.5, "F", True), ("sub-000002", 45.0, "M", True)]
    assert cohort.scans[0].columns == {"ventricular_volume": "31250", "brain_volume": "1480000"}
    assert cohort.scans[0].subject == "LDM_100k/sub-000001"
    assert cohort.notes == ("LDM_100k: rows of participants.tsv without an image: 1",)


def test_scaled_ages_are_not_taken_for_years(tmp_path: Path):
    folder = published(tmp_path / "l", "participant_id\tAge\tGender\tVentricular CSF volume\tbrain volume normalised",
                       "sub-000001\t0.63\tF\t0.31\t0.5", "sub-000002\t-0.1\tM\t0.2\t0.5", "sub-000003\t1\tM\t1\t1")
    scan = read_ldm100k(folder).scans[1]
    assert (scan.age_years, scan.columns["age_scaled"]) == (None, "-0.1")
    assert scan.columns["ventricular_volume"] == "0.2"


def test_a_missing_label_is_named(tmp_path: Path):
    folder = published(tmp_path / "l", "participant_id\tage\tsex\tbrain_volume", "sub-000001\t63\tF\t1",
                       "sub-2\t1\tF\t1")
    with pytest.raises(HeadstartError, match="no column for ventricular_volume"):
        read_ldm100k(folder)


def test_an_ordinary_bids_folder_is_not_taken_for_it(tmp_path: Path):
    folder = published(tmp_path / "bids", "participant_id\tage", "sub-1\t20", "sub-2\t21")
    (folder / "rawdata").rename(tmp_path / "raw")
    assert not is_ldm100k(folder)
    assert len(read_bids([tmp_path / "raw"])) == 1
