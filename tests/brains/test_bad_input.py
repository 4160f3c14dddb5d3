"""Every bad input is refused in words: which file, what is wrong, what to do. In a data set the other scans go on."""

from __future__ import annotations

import gzip
import io
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from headstart.brains.bids import read_bids
from headstart.brains.nifti import read_nifti
from headstart.errors import HeadstartError


def image(data: np.ndarray | None = None, affine: np.ndarray | None = None, **header) -> bytes:
    """An uncompressed NIfTI-1 file; ``header`` overwrites fields as stored."""
    if data is None:
        data = np.random.default_rng(0).integers(1, 999, (10, 11, 12)).astype(np.int16)
    result = nib.Nifti1Image(data, np.eye(4) if affine is None else affine)
    content = result.to_bytes()
    fields = nib.Nifti1Header.from_fileobj(io.BytesIO(content), check=False)
    for name, value in header.items():
        fields[name] = value
    return fields.binaryblock + content[348:]


def volume(fill: float, share: float = 1.0) -> np.ndarray:
    data = np.random.default_rng(0).normal(size=(10, 11, 12)).astype(np.float32)
    data.ravel()[:int(share * data.size)] = fill
    return data


FLAT = np.diag([1.0, 1.0, 0.0, 1.0])
SHEARED = np.array([[1.0, 1, 0, 0], [0, 0.001, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
RGB = np.zeros((4, 4, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))

FILES: dict[str, tuple[bytes, str, str]] = {  # what the file holds, what is wrong, what to do
    "truncated gzip": (gzip.compress(image())[:-900], "damaged or cut short", "Copy or download"),
    "truncated gzip header": (gzip.compress(image())[:8], "damaged or cut short|not a NIfTI|cut short", "."),
    "truncated": (image()[:-1], "is cut short: 10×11×12 voxels need 2,992 bytes", "Copy or download"),
    "truncated header": (image()[:200], "cut short within its header", "Copy or download"),
    "wrong magic": (image(magic=b"xyz"), "not a NIfTI file", "dcm2niix"),
    "two-file header": (image(magic=b"ni1"), "two-file NIfTI", r"one \.nii\.gz"),
    "text": (b"participant_id\tage\n" * 50, "not a NIfTI file", "dcm2niix"),
    "web page": (b"<!DOCTYPE html><html>404", "not a NIfTI file", "dcm2niix"),
    "empty file": (b"", "is empty", "Copy or download"),
    "empty gzip": (gzip.compress(b""), "not a NIfTI file", "dcm2niix"),
    "4D": (image(np.ones((4, 4, 4, 2), np.int16)), r"has 4 dimensions \(4×4×4×2\), expected 3", "one 3D T1"),
    "2D": (image(np.ones((4, 4), np.int16)), r"not a volume but a slice \(4×4\)", "one 3D T1"),
    "one slice": (image(np.ones((4, 4, 1), np.int16)), "not a volume but a slice", "one 3D T1"),
    "NaN": (image(volume(np.nan, 0.5)), r"has 50\.0% NaN or infinite voxels", "without them"),
    "infinite": (image(volume(np.inf, 0.01)), r"NaN or infinite", "without them"),
    "values beyond float32": (image(volume(1).astype(float) * 1e300), "NaN or infinite", "without them"),
    "all zero": (image(np.zeros((4, 4, 4), np.int16)), "every voxel is 0", "viewer"),
    "constant": (image(np.full((4, 4, 4), 7, np.int16)), "every voxel is 7", "viewer"),
    "zero voxel size": (image(pixdim=[1, 0, 1, 1, 0, 0, 0, 0]), r"impossible voxel size \(0 × 1 × 1 mm\)", "dcm2niix"),
    "NaN voxel size": (image(pixdim=[1, 1, np.nan, 1, 0, 0, 0, 0]), "impossible voxel size", "dcm2niix"),
    "flat affine": (image(srow_z=[0, 0, 0, 0]), r"impossible voxel size \(1 × 1 × 0 mm\)", "dcm2niix"),
    "NaN affine": (image(srow_x=[np.nan, 0, 0, 0]), "impossible voxel size", "dcm2niix"),
    "sheared affine": (image(affine=SHEARED), "two voxel axes point the same way", "dcm2niix"),
    "giant voxels": (image(affine=np.diag([900.0, 1, 1, 1])), "more than any head", "dcm2niix"),
    "no orientation": (image(sform_code=0, qform_code=0), "left cannot be told from right", "dcm2niix"),
    "bad quaternion": (image(sform_code=0, qform_code=1, quatern_b=9), "unusable orientation", "dcm2niix"),
    "huge dimensions": (image(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]), r"GiB \(30000×30000×30000", "header may be"),
    "dimensions beyond the file": (image(dim=[3, 1000, 1000, 1000, 1, 1, 1, 1]), "is cut short", "Copy or download"),
    "zipped, beyond the file": (gzip.compress(image(dim=[3, 1000, 1000, 1000, 1, 1, 1, 1])), "cut short", "Copy"),
    "negative dimensions": (image(dim=[3, -10, 11, 12, 1, 1, 1, 1]), "impossible dimensions", "dcm2niix"),
    "too many dimensions": (image(dim=[99, 10, 11, 12, 1, 1, 1, 1]), "impossible dimensions", "dcm2niix"),
    "colours": (image(RGB), "holds colours", "one 3D T1"),
    "complex": (image(np.ones((4, 4, 4), np.complex64)), "holds 'complex64' values", "one 3D T1"),
    "unknown type": (image(datatype=4095), r"unknown data type \(code 4095\)", "dcm2niix"),
    "impossible offset": (image(vox_offset=np.nan), "impossible data offset", "dcm2niix"),
    "impossible scale": (image(scl_slope=np.inf), "impossible intensity scale", "dcm2niix"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_scan(tmp_path: Path, case: str):
    content, problem, fix = FILES[case]
    path = tmp_path / "sub-01_T1w.nii.gz"
    path.write_bytes(content)
    with pytest.raises(HeadstartError, match=problem) as caught:
        read_nifti(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert re.search(fix, caught.value.fix)
    assert "None" not in str(caught.value)


@pytest.mark.parametrize("zipped", [False, True])
def test_huge_dimensions_are_refused_before_memory_is_taken(tmp_path: Path, zipped: bool):
    content = image(dim=[3, 1000, 1000, 1000, 1, 1, 1, 1])
    (tmp_path / "scan.nii").write_bytes(gzip.compress(content) if zipped else content)
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, before[1]))  # the voxels would take eight times that
    try:
        with pytest.raises(HeadstartError, match="cut short"):
            read_nifti(tmp_path / "scan.nii")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_oblique_and_left_handed_scans_are_fine(tmp_path: Path):
    oblique = np.array([[-0.9, 0.3, 0, 5], [0.3, 0.9, 0.1, 3], [0, -0.1, 1, 2], [0, 0, 0, 1]])
    (tmp_path / "scan.nii").write_bytes(image(affine=oblique))
    read = read_nifti(tmp_path / "scan.nii")
    assert nib.aff2axcodes(read.affine) == ("R", "A", "S")
    original = nib.load(tmp_path / "scan.nii")
    assert np.array_equal(read.data[0, 0, 0], original.get_fdata()[-1, 0, 0])
    assert np.allclose(read.affine @ [0, 0, 0, 1], original.affine @ [9, 0, 0, 1])


def _make(path: Path, make: Callable[[Path], object]) -> Path:
    make(path)
    return path


@pytest.mark.parametrize(("make", "problem"), [
    (lambda path: None, "cannot be read"),
    (lambda path: path.mkdir(), "is not a file"),
    (lambda path: os.mkfifo(path), "is not a file"),
    (lambda path: path.symlink_to(path), "cannot be read"),
], ids=["missing", "folder", "pipe", "symlink loop"])
def test_what_is_no_scan_file(tmp_path: Path, make, problem: str):
    path = _make(tmp_path / "scan.nii.gz", make)
    with pytest.raises(HeadstartError, match=problem) as caught:
        read_nifti(path)
    assert caught.value.path == path
    assert caught.value.fix


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two participants with a scan and a row each."""
    for i, name in enumerate(("sub-01", "sub-02")):
        path = tmp_path / "data" / name / "anat" / f"{name}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.compress(image(np.arange(60 + 12 * i, dtype=np.int16).reshape(3, 4, -1))))
    (tmp_path / "data" / "participants.tsv").write_text("participant_id\tage\nsub-01\t30\nsub-02\t40\n")
    return tmp_path / "data"


def table(text: str | bytes) -> Callable[[Path], None]:
    return lambda data: (data / "participants.tsv").write_bytes(text if isinstance(text, bytes) else text.encode())


HEADER = "participant_id\tage\nsub-01\t30\nsub-02\t40\n"
DATA_SETS: dict[str, tuple[Callable[[Path], object], str]] = {  # what was done to it, what the note says
    "no table": (lambda data: (data / "participants.tsv").unlink(), "participants.tsv is missing"),
    "empty table": (table(""), "participants.tsv is empty"),
    "table without ids": (table("id\tage\nsub-01\t30\n"), "participants.tsv has no column participant_id"),
    "spreadsheet for a table": (table(b"PK\x03\x04\0\0\0\0"), "participants.tsv is not text"),
    "folder for a table": (lambda data: [(data / "participants.tsv").unlink(), (data / "participants.tsv").mkdir()],
                           "participants.tsv cannot be read"),
    "code book that is no JSON": (lambda data: (data / "participants.json").write_text("{oops"),
                                  "participants.json is not readable as JSON"),
    "code book that is a list": (lambda data: (data / "participants.json").write_text("[]"), "not a JSON object"),
    "contradicting rows": (table(HEADER + "sub-02\t41\n"), "contradict each other.*: sub-02 \\(age\\)"),
    "row without a scan": (table(HEADER + "sub-03\t41\n"), "rows of participants.tsv without a T1w scan: sub-03"),
    "scan without a row": (table("participant_id\tage\nsub-01\t30\n"), "scans without a row .*: sub-02"),
    "path trick in an id": (table(HEADER + "sub-../../../etc/passwd\t1\n"), "ids left out, .*sub-../../../etc/passwd"),
    "path trick with a backslash": (table(HEADER + "..\\x\t1\n"), "ids left out"),
    "odd folder name": (lambda data: (data / "sub-a b\n").mkdir(), r"odd signs in their names: 'sub-a b\\n'"),
    "symlink to itself": (lambda data: (data / "sub-03").symlink_to(data / "sub-03"), ""),
    "symlink to the parent": (lambda data: (data / "sub-01" / "ses-1").symlink_to(data), ""),
    "link to nothing": (lambda data: [(data / "sub-03" / "anat").mkdir(parents=True),
                                      (data / "sub-03/anat/sub-03_T1w.nii.gz").symlink_to(data / ".git/annex/x")],
                        "links to nothing .*datalad get.*: sub-03_T1w.nii.gz"),
    "scan under another name": (lambda data: (data / "sub-01/anat/sub-05_T1w.nii.gz").touch(), "another participant's"),
}


@pytest.mark.parametrize("case", DATA_SETS)
def test_an_odd_data_set_is_noted_and_its_scans_go_on(data: Path, case: str):
    damage, note = DATA_SETS[case]
    damage(data)
    cohort = read_bids([data])
    assert [scan.participant_id for scan in cohort] == ["sub-01", "sub-02"]
    assert re.search(note, " ".join(cohort.notes))
    assert all(line.startswith("data: ") for line in cohort.notes)
    assert cohort.scans[0].age_years in (30.0, None)


def test_identical_rows_are_one(data: Path):
    table(HEADER + "sub-02\t40\n")(data)
    assert read_bids([data]).notes == ()


def test_notes_name_five_and_count_the_rest(data: Path):
    table(HEADER + "".join(f"sub-{i}\t1\n" for i in range(100, 120)))(data)
    (note,) = read_bids([data]).notes
    assert note.endswith("sub-100, sub-101, sub-102, sub-103, sub-104 and 15 more")


@pytest.mark.parametrize(("make", "problem"), [
    (lambda path: None, "does not exist"),
    (lambda path: path.touch(), "is not a folder"),
    (lambda path: path.mkdir(), r"holds no sub-\* folder"),
    (lambda path: (path / "sub-01" / "func").mkdir(parents=True), "holds no T1w scan"),
    (lambda path: path.symlink_to(path), "cannot be read"),
], ids=["missing", "file", "not BIDS", "no scan", "symlink loop"])
def test_what_is_no_data_set(tmp_path: Path, make, problem: str):
    path = _make(tmp_path / "data", make)
    with pytest.raises(HeadstartError, match=problem) as caught:
        read_bids([path])
    assert str(path) in str(caught.value)
    assert "anat/*_T1w.nii.gz" in caught.value.fix


def test_a_folder_of_dicom_files_is_told_what_makes_bids_of_it(tmp_path: Path):
    (tmp_path / "IM0001.dcm").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(HeadstartError, match="dcm2bids"):
        read_bids([tmp_path])


def test_a_file_of_freesurfer_is_told_what_converts_it(tmp_path: Path):
    path = tmp_path / "brain.mgz"
    nib.save(nib.MGHImage(np.ones((4, 4, 4), np.float32), np.eye(4)), path)
    with pytest.raises(HeadstartError, match=r"is not a NIfTI file.*mri_convert"):
        read_nifti(path)
