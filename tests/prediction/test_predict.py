"""headstart predict: every scan gets an answer, a flag or a reason, and none stops the others."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from headstart.arguments import repeated
from headstart.brains.bids import read_bids
from headstart.brains.contract import Contract
from headstart.brains.nifti import write_nifti
from headstart.brains.volumes import template
from headstart.cli import app
from headstart.errors import HeadstartError
from headstart.prediction import open_model, predict_participants, predict_scan
from headstart.prediction.finished import find_model
from headstart.prediction.participants import select
from headstart.tasks import DECLARED

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_model import brain, familiar, scan_path, write_model, write_scans
from tiny_study import HEADSTART, run


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good scan, one cut short, and one with a brain the size of a monkey's."""
    folder = write_scans(tmp_path_factory.mktemp("study") / "bids", 2)
    cut = scan_path(folder, "sub-01")
    cut.write_bytes(cut.read_bytes()[:5000])
    write_nifti(scan_path(folder, "sub-02"), brain(), template("2mm").spec.affine * [[0.56], [0.56], [0.56], [1]])
    return folder


def table(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "participants.tsv", newline="") as file:
        return {row["participant_id"]: row for row in csv.DictReader(file, delimiter="\t")}


def digests(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_data_set_in_which_some_scans_cannot_be_used(bids: Path, age_model: Path, tmp_path: Path) -> None:
    before = digests(bids)
    done = run([*HEADSTART, "predict", str(bids), str(tmp_path / "out"), "participant", "--model", str(age_model),
                "--jobs", "2"])
    assert done.returncode == 10 + 2, done.stderr
    assert "RAS+" in done.stdout
    assert "not a medical device" in done.stdout
    rows = table(tmp_path / "out")
    assert [rows[f"sub-0{i}"]["qc"] for i in range(3)] == ["ok", "failed", "refused"]
    assert float(rows["sub-00"]["prediction"])
    assert rows["sub-01"]["prediction"] == rows["sub-02"]["prediction"] == "n/a"
    assert "sub-01_T1w.nii.gz" in rows["sub-01"]["message"]
    assert "enlargement" in rows["sub-02"]["qc_flags"]
    assert "violates the model's contract" in rows["sub-02"]["message"]
    assert "sub-01" in done.stderr
    assert "Traceback" not in done.stderr
    assert digests(bids) == before


def test_one_participant_at_a_time_ends_in_the_same_table(bids: Path, age_model: Path, tmp_path: Path) -> None:
    model = open_model(age_model)
    for label in ("01", "sub-00"):
        summary = predict_participants(bids, tmp_path / "each", model, labels=[label], progress=False)
        assert len(summary.records) == 1
    assert {name: row["qc"] for name, row in table(tmp_path / "each").items()} == {"sub-00": "ok", "sub-01": "failed"}
    with pytest.raises(HeadstartError, match=r"'sub-77'.*sub-00, sub-01"):
        predict_participants(bids, tmp_path / "each", model, labels=["77"], progress=False)


def test_sessions_are_rows_of_their_own(bids: Path, sex_model: Path, tmp_path: Path) -> None:
    scan = scan_path(bids, "sub-00")
    for session in ("ses-a", "ses-b"):
        path = tmp_path / "bids" / "sub-9" / session / "anat" / f"sub-9_{session}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        shutil.copy(scan, path)
    model = open_model(sex_model)
    summary = predict_participants(tmp_path / "bids", tmp_path / "out", model, progress=False, jobs=2)
    assert [record["session"] for record in sorted(summary.records, key=str)] == ["ses-a", "ses-b"]
    lines = (tmp_path / "out" / "participants.tsv").read_text().splitlines()
    assert lines[0].startswith("participant_id\tsession_id\tprediction\tobserved\tp_F\tp_M\tqc")
    assert lines[1].split("\t")[1:3] == ["ses-a", lines[2].split("\t")[2]]
    chosen = select(read_bids([tmp_path / "bids"]), [], ["b"])
    assert [scan.session for scan in chosen] == ["ses-b"]


def test_the_output_is_never_the_input_nor_somebody_elses(bids: Path, age_model: Path, sex_model: Path,
                                                          tmp_path: Path) -> None:
    model = open_model(age_model)
    before = digests(bids)
    with pytest.raises(HeadstartError, match="is the data set itself"):
        predict_participants(bids, bids, model)
    other = write_scans(tmp_path / "other", 1)
    with pytest.raises(HeadstartError, match="another data set"):
        predict_participants(bids, other, model)
    predict_participants(bids, tmp_path / "out", model, labels=["00"], progress=False)
    with pytest.raises(HeadstartError, match="another model"):
        predict_participants(bids, tmp_path / "out", open_model(sex_model))
    assert digests(bids) == before


def test_a_single_scan_is_answered_in_the_terminal(bids: Path, age_model: Path) -> None:
    good, small = (["predict", str(scan_path(bids, name)), "--model", str(age_model)] for name in ("sub-00", "sub-02"))
    done = CliRunner().invoke(app, good)
    assert done.exit_code == 0, done.output
    assert "\nage: " in done.output
    assert "without calibration" in done.output
    done = CliRunner().invoke(app, small)
    assert done.exit_code == 11
    assert "no prediction" in done.output
    assert "\nage: " not in done.output


def test_a_folder_without_a_place_for_predictions_is_told_both_ways_on(age_model: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["predict", str(tmp_path), "--model", str(age_model)])
    assert isinstance(done.exception, HeadstartError)
    assert f"headstart predict {tmp_path} OUT participant" in done.exception.fix
    assert "dcm2niix" in done.exception.fix


def test_a_prediction_is_what_training_would_have_said(bids: Path, age_model: Path, tmp_path: Path) -> None:
    import torch

    from headstart.brains.prepare import prepare
    from headstart.brains.store import Store

    cohort, model = read_bids([bids]), open_model(age_model)
    prepare(cohort.with_scans(cohort.scans[:1]), tmp_path / "store", model.config.contract, jobs=1, progress=False)
    with torch.inference_mode():
        expected = model.network(Store.open(tmp_path / "store").volumes([0]))[0, 0]
    assert predict_scan(model, cohort.scans[0].path).value == pytest.approx(float(expected), abs=1e-5)


def test_a_scan_unlike_the_training_scans_is_flagged(bids: Path, tmp_path: Path) -> None:
    scan = scan_path(bids, "sub-00")
    far = open_model(write_model(tmp_path / "far", DECLARED["brain-age"], 1, familiar(centre=9.0)))
    prediction = predict_scan(far, scan)
    assert prediction.verdict == "flag"
    assert [check.name for check in prediction.doubts] == ["familiarity"]
    near = open_model(write_model(tmp_path / "near", DECLARED["brain-age"], 1, familiar()))
    assert predict_scan(near, scan).verdict == "ok"


def test_starts_are_not_finished_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = write_model(tmp_path / "starts" / "synthetic-mri" / "cnn-small-4mm", None, 7)
    write_model(tmp_path / "starts" / "brain-age-synthetic" / "cnn-small-4mm", DECLARED["brain-age"], 7)
    monkeypatch.setenv("HEADSTART_STARTS", str(tmp_path / "starts"))
    assert open_model("brain-age-synthetic").task.name == "brain-age"
    with pytest.raises(HeadstartError, match=r"a start for fine-tuning.*--upstream"):
        open_model(start)
    with pytest.raises(HeadstartError, match="a start for fine-tuning"):
        open_model("synthetic-mri")
    with pytest.raises(HeadstartError, match=r"no model 'brain-age'.*brain-age-synthetic"):
        open_model("brain-age")
    write_model(tmp_path / "starts" / "brain-age-synthetic" / "vit-mini-4mm", DECLARED["brain-age"], 1)
    with pytest.raises(HeadstartError, match="brain-age-synthetic/cnn-small-4mm"):
        find_model("brain-age-synthetic")
    assert find_model("brain-age-synthetic/vit-mini-4mm").name == "vit-mini-4mm"
    for name in ("../../etc", "/etc", "..", ""):
        with pytest.raises(HeadstartError):
            open_model(name)


@pytest.mark.parametrize(("change", "words"), [
    (lambda config: {**config, "num_outputs": 3}, "cannot be loaded"),
    (lambda config: {**config, "num_outputs": 10**12}, "num_outputs"),
    (lambda config: {**config, "backbone": "vit-giant"}, "vit-giant"),
    (lambda config: {**config, "contract": {**config["contract"], "volume": "9mm"}}, "9mm"),
    (lambda config: {**config, "contract": {**config["contract"], "version": 2}}, "contract.version"),
])
def test_a_model_folder_that_does_not_fit_together(age_model: Path, tmp_path: Path, change, words: str) -> None:
    folder = Path(shutil.copytree(age_model, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(change(config)))
    with pytest.raises(HeadstartError, match=words):
        open_model(folder)


def test_labels_follow_one_option() -> None:
    assert repeated(["in", "out", "participant", "--participant-label", "01", "02", "--jobs", "3"]) == [
        "in", "out", "participant", "--participant-label", "01", "--participant-label", "02", "--jobs", "3"]


def test_a_real_scan_meets_the_contract(real_data: Path, tmp_path: Path) -> None:
    model = open_model(write_model(tmp_path / "model", DECLARED["brain-age"], 1, contract=Contract()))
    (first, *_) = sorted(path.name for path in (real_data / "ixi10").glob("sub-*"))
    summary = predict_participants(real_data / "ixi10", tmp_path / "out", model, labels=[first], progress=False)
    assert summary.count("ok") == 1, summary.records
