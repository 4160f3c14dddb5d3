"""Whatever bytes a file holds, it is read or refused in words: no traceback, no hang, no memory beyond its size."""

from __future__ import annotations

import gzip
import json
import os
import string
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from headstart.brains.bids import read_bids
from headstart.brains.nifti import read_nifti
from headstart.brains.splits import Split
from headstart.errors import HeadstartError

sys.path.insert(0, str(Path(__file__).parents[1]))
from limits import limited_memory

LONG = os.environ.get("HEADSTART_LONG") == "1"
MEMORY = 2**30


def cases(short: int, long: int) -> Callable:
    """Random cases, the same ones every time in the short form."""
    return settings(max_examples=long if LONG else short, deadline=5000, derandomize=not LONG, database=None,
                    phases=[Phase.explicit, Phase.generate, Phase.shrink],
                    suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True, scope="module")
def bounded() -> Iterator[None]:
    """No case may take more than 1 GiB on top of what the libraries hold."""
    with limited_memory(MEMORY):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of one scan."""
    data = tmp_path_factory.mktemp("fuzz") / "data"
    (data / "sub-01" / "anat").mkdir(parents=True)
    (data / "sub-01" / "anat" / "sub-01_T1w.nii").write_bytes(VALID[348])
    return data


def outcome(read: Callable[[], object]) -> object:
    """The value, or None if it was refused as it should be."""
    try:
        return read()
    except HeadstartError as error:
        message = str(error)
    assert message.strip()
    assert "Traceback" not in message
    return None


def _valid(kind: type) -> bytes:
    data = np.random.default_rng(0).integers(0, 99, (5, 6, 7)).astype(np.int16)
    return kind(data, np.diag([1.0, 2, 1, 1])).to_bytes()


VALID = {348: _valid(nib.Nifti1Image), 540: _valid(nib.Nifti2Image)}
HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
# Numbers on which readers stumble: bounds of the integer types, and the floats that are none.
ODD = [struct.pack("<q", n) for n in (0, 1, -1, 2**15 - 1, 2**31 - 1, 2**63 - 1, -(2**63), 348, 540)]
ODD += [struct.pack(code, x) for code in ("<f", "<d") for x in (np.nan, np.inf, -np.inf, 0.0, 1e-38, 3e38, -1.0)]


@st.composite
def nifti_bytes(draw: st.DrawFn) -> bytes:
    """A valid file with some of its header's fields or bytes replaced, perhaps cut, perhaps gzipped, perhaps hurt."""
    size = draw(st.sampled_from(sorted(HEADERS)))
    content = bytearray(VALID[size])
    fields = HEADERS[size].template_dtype.fields
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=4)):
        dtype, start = fields[name][:2]
        at = start + draw(st.integers(0, dtype.itemsize - 1))
        new = draw(st.one_of(st.sampled_from(ODD), st.binary(min_size=1, max_size=8)))[:start + dtype.itemsize - at]
        content[at:at + len(new)] = new
    content = content[:draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))]
    return bytes(content) if draw(st.booleans()) else _zipped(draw, bytes(content))


def _zipped(draw: st.DrawFn, content: bytes) -> bytes:
    zipped = bytearray(gzip.compress(content, 1, mtime=0))
    for _ in range(draw(st.integers(0, 2))):
        zipped[draw(st.integers(0, len(zipped) - 1))] = draw(st.integers(0, 255))
    return bytes(zipped[:draw(st.one_of(st.just(len(zipped)), st.integers(0, len(zipped))))])


@cases(300, 15_000)
@given(nifti_bytes())
def test_nifti(folder: Path, content: bytes):
    path = folder.parent / "scan.nii.gz"
    path.write_bytes(content)
    image = outcome(lambda: read_nifti(path))
    if image is not None:
        assert image.data.ndim == 3
        assert image.data.nbytes <= max(8 * 1100 * len(content), 1)
        assert np.isfinite(image.data).all()
        assert np.isfinite(image.affine).all()
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")


CELLS = st.one_of(
    st.sampled_from(["sub-01", "01", "n/a", "", "89+", "38,78", "F", "../..", "ses-1", "1e9", "-", '"', "\ufeff"]),
    st.text(max_size=8), st.text(string.printable, max_size=8))
NAMES = st.sampled_from(["participant_id", "session_id", "age", "sex", "site", "Age", "gender", "", "x"])
TABLES = st.builds(
    lambda header, rows, tab, end, code: end.join(tab.join(row) for row in [header, *rows]).encode(code, "replace"),
    st.lists(st.one_of(NAMES, CELLS), max_size=6), st.lists(st.lists(CELLS, max_size=7), max_size=6),
    st.sampled_from("\t\t\t,;"), st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))


@cases(200, 5_000)
@given(st.one_of(TABLES, st.binary(max_size=200)))
def test_participants_tsv(folder: Path, content: bytes):
    (folder / "participants.tsv").write_bytes(content)
    (folder / "participants.json").unlink(missing_ok=True)
    (scan,) = read_bids([folder])
    assert scan.sex in ("F", "M", None)
    assert scan.age_years is None or 0 <= scan.age_years <= 130


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6),
              st.sampled_from(["months", "male", "F", "1"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(
        st.one_of(st.sampled_from(["age", "sex", "Units", "Levels", "Description", "1", "F"]), st.text(max_size=3)),
        inner, max_size=4)), max_leaves=12)


@cases(200, 5_000)
@given(st.one_of(JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=60),
                 st.integers(1, 20_000).map(lambda depth: b"[" * depth)))
def test_participants_json(folder: Path, content: bytes):
    (folder / "participants.json").write_bytes(content)
    (folder / "participants.tsv").write_text("participant_id\tage\tsex\nsub-01\t30\t1\n")
    (scan,) = read_bids([folder])
    assert scan.sex in ("F", "M", None)


SPLIT = "dataset\tparticipant_id\tsession\tsubject\tsite\tseed\tfold\tpartition\n"


@cases(100, 2_000)
@given(st.one_of(st.binary(max_size=200), st.lists(st.lists(st.one_of(CELLS, st.sampled_from(
    ["data", "0", "train", "test", "outside", "²"])), min_size=8, max_size=8), max_size=5).map(
        lambda rows: (SPLIT + "\n".join("\t".join(row) for row in rows)).encode("utf-8", "replace"))))
def test_split_tsv(folder: Path, content: bytes):
    (folder / "participants.tsv").unlink(missing_ok=True)
    path = folder.parent / "split.tsv"
    path.write_bytes(content)
    scans = read_bids([folder]).scans
    outcome(lambda: Split.read_tsv(path, scans))
