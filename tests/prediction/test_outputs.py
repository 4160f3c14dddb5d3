"""What predict leaves behind: BIDS derivatives, a page for each scan, maps in two spaces, a page for the group."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from headstart.brains.cohort import Scan
from headstart.brains.nifti import read_nifti
from headstart.calibration.uncertainty import Calibration, Coverage
from headstart.errors import HeadstartError
from headstart.modelfolder import ModelConfig, load_model, save_model
from headstart.prediction import open_model, predict_participants, write_group
from headstart.prediction.participants import _observed
from headstart.tasks import DECLARED

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_model import scan_path, write_model, write_scans


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows its errors."""
    folder = tmp_path_factory.mktemp("models")
    network, config = load_model(write_model(folder / "bare", DECLARED["brain-age"], 1))
    known = Calibration(errors=[1.0, 7.0], half_width=6.5, coverage={"inside": Coverage.of([True] * 18 + [False] * 2)})
    config = ModelConfig.model_validate({**config.model_dump(), "calibration": known})
    return save_model(folder / "model", network, config, "# card")


@pytest.fixture(scope="module")
def predicted(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set of two, one of them broken, and its predictions with maps."""
    folder = tmp_path_factory.mktemp("study")
    bids = write_scans(folder / "bids", 1)
    scan_path(bids, "sub-01").write_bytes(b"<script>alert(1)</script>")
    (bids / "participants.tsv").write_text("participant_id\tage\nsub-00\t31\nsub-01\t89+\n")
    model = open_model(model_folder)
    for label in ("00", "01"):
        predict_participants(bids, folder / "out", model, labels=[label], explain="gradient", progress=False)
    write_group(bids, folder / "out", model)
    return bids, folder / "out"


def test_every_scan_has_its_derivatives(predicted: tuple[Path, Path]) -> None:
    _, out = predicted
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and path.name != ".lock"}
    stem = "sub-00/anat/sub-00"
    assert names == {
        "dataset_description.json", "participants.tsv", "participants.json", "group.html", "sub-00.html",
        f"{stem}_desc-brainage_prediction.json", "sub-01/anat/sub-01_desc-brainage_prediction.json",
        *(f"{stem}_space-{space}_desc-gradient_saliency.{end}" for space in ("MNI152NLin2009aSym", "T1w")
          for end in ("nii.gz", "json"))}
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "headstart predict"


def test_the_record_holds_answer_interval_and_what_was_done(predicted: tuple[Path, Path]) -> None:
    record = json.loads((predicted[1] / "sub-00/anat/sub-00_desc-brainage_prediction.json").read_text())
    assert record["interval"] == pytest.approx([record["value"] - 6.5, record["value"] + 6.5])
    assert record["Sources"] == ["bids:raw:sub-00/anat/sub-00_T1w.nii.gz"]
    assert record["observed"] == 31
    assert "MNI152NLin2009aSym" in record["done"]
    assert {check["name"] for check in record["checks"]} >= {"grid", "extraction", "spacing", "orientation", "overlap",
                                                             "intensity", "familiarity"}


def test_maps_lie_on_the_template_and_on_the_scan(predicted: tuple[Path, Path]) -> None:
    bids, out = predicted
    scan = read_nifti(scan_path(bids, "sub-00"))
    on_template, native = (nib.load(path) for path in sorted(out.rglob("*.nii.gz")))
    assert on_template.shape == (40, 48, 40)
    assert native.shape == scan.data.shape
    assert native.affine == pytest.approx(scan.affine)
    inside = scan.data != 0
    shown = np.asarray(native.dataobj)
    assert shown[inside].mean() > 5 * shown[~inside].mean()


def test_pages_are_whole_and_harmless(predicted: tuple[Path, Path]) -> None:
    out = predicted[1]
    page, group = (out / "sub-00.html").read_text(), (out / "group.html").read_text()
    assert "90 % interval" in page
    assert "not valid at a new site" in page
    assert "<data value=" in page
    assert 'href="sub-00.html"' in group
    assert "not a medical device" in page + group
    assert "<script>alert" not in group
    for text in (page, group):
        assert not re.findall(r'(?:src|href)="(?!data:|#|sub-)', text)


def test_the_group_says_how_well_it_went(predicted: tuple[Path, Path]) -> None:
    group = (predicted[1] / "group.html").read_text()
    assert "1 as they should be" in group or "1 flagged" in group
    assert "1 not readable" in group
    assert "In 1 scans whose age is in participants.tsv" in group


def test_a_group_without_participants_is_refused(predicted: tuple[Path, Path], model_folder: Path,
                                                 tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match="participant level first"):
        write_group(predicted[0], tmp_path / "out", open_model(model_folder))


def test_censored_ages_are_not_compared() -> None:
    old = Scan("d", "sub-1", "", Path("x"), "s", age_years=89.0, age_censored=True)
    assert _observed(old, DECLARED["brain-age"]) is None
