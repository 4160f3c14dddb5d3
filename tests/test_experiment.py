"""An experiment from store to report: what it writes, that it is honest, and that it is done once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.backbones import build_model
from headstart.brains.store import Store
from headstart.errors import HeadstartError
from headstart.evaluation.predictions import read_tsv
from headstart.evaluation.results import read_result
from headstart.experiment import Request, run, write_report
from headstart.experiment.cells import Trainer, chosen, seed_of
from headstart.experiment.readout import aim_head
from headstart.experiment.run import Job, opened
from headstart.files import read_json
from headstart.modelfolder import ModelConfig, load_model, read_config, read_familiarity, save_model
from headstart.training import fit, predict
from headstart.upstreams import readout_of

QUICK = dict(upstream="scratch", folds=2, seeds=2, epochs=30, learning_rates=(3e-3, 1e-3))


@pytest.fixture(scope="module")
def finished(toy_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    run(Request(task="brain-age", test_sites=("c",), **QUICK), toy_store, out, jobs=2)
    return out


def test_everything_is_written(finished: Path) -> None:
    written = {p.name for p in finished.iterdir()}
    assert written >= {"result.json", "split.tsv", "predictions.tsv", "report.html", "model"}
    assert {p.name for p in (finished / "model").iterdir()} == {
        "model.safetensors", "features.safetensors", "config.json", "README.md"}
    assert not list(finished.rglob("*.tmp"))


def test_result_has_intervals_floors_and_says_simulated(finished: Path) -> None:
    raw = json.loads((finished / "result.json").read_text())
    for partition, n in (("inside", 22), ("outside", 10)):
        mae = raw[partition]["mae"]
        assert mae["low"] <= mae["value"] <= mae["high"]
        assert mae["n"] == n
        assert raw["floors"]["constant"][partition]["mae"]["n"] == n
    assert set(raw["floors"]) == {"constant", "age_sex", "site", "mask", "tissue", "voxels"}
    assert raw["simulated"] is True
    left_out, intervals = raw["notes"]
    assert left_out == "1 scan left out: no value in column 'age'"
    assert "90% interval" in intervals


def test_the_model_knows_its_own_errors(finished: Path) -> None:
    calibration, familiarity = read_config(finished / "model").calibration, read_familiarity(finished / "model")
    assert len(calibration.errors) == calibration.coverage["inside"].n == 22
    assert calibration.coverage["outside"].n == 10
    assert calibration.interval(50.0) == (50.0 - calibration.half_width, 50.0 + calibration.half_width)
    assert len(familiarity.distances) == 22
    card = (finished / "model" / "README.md").read_text()
    assert "It is not valid at a new site" in card
    assert "| outside | " in card.split("## By site, sex and age")[1]
    assert "10.1117/12.3008837" in card


def test_the_network_learned(finished: Path) -> None:
    result = read_result(finished / "result.json")
    assert result.outside["r"].value > 0.7


def test_every_scan_is_predicted_once_a_seed(finished: Path) -> None:
    table = read_tsv(finished / "predictions.tsv")
    for seed in (0, 1):
        part = table.select(table.seed == seed)
        assert sorted(part.participant_id) == [f"sub-{i:02}" for i in range(32)]
        assert {site for site, p in zip(part.site, part.partition, strict=True) if p == "outside"} == {"c"}


def test_saved_model_is_the_first_seeds_refit(finished: Path, toy_store: Path) -> None:
    model, config = load_model(finished / "model")
    opened = Store.open(toy_store)
    table = read_tsv(finished / "predictions.tsv")
    rows = table.select((table.seed == 0) & (table.partition == "outside"))
    where = {stored.scan.participant_id: i for i, stored in enumerate(opened.scans)}
    with torch.no_grad():
        again = model(opened.volumes([where[p] for p in rows.participant_id]))[:, 0].numpy()
    np.testing.assert_allclose(again, rows.prediction, rtol=1e-4)
    assert config.contract == opened.contract
    assert config.seen == ["toy"]


def test_distances_are_measured_for_the_model_that_is_kept_alone(finished: Path) -> None:
    cells = {path.stem: read_json(path) for path in (finished / "cells").glob("seed*-[0-9].json")}
    assert {name: "distances" in cell for name, cell in cells.items()} == {
        name: name.startswith("seed0-") for name in cells}
    assert len(cells) == 4
    measured = sum(len(cell.get("distances", ())) for cell in cells.values())
    assert len(read_familiarity(finished / "model").distances) == measured > 0


def test_a_second_run_does_nothing(finished: Path, toy_store: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file() and p.name != ".lock"}
    run(Request(task="brain-age", test_sites=("c",), **QUICK), toy_store, finished, jobs=1)
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_another_experiment_is_refused(finished: Path, toy_store: Path) -> None:
    other = Request(task="brain-age", test_sites=("c",), **{**QUICK, "learning_rates": (0.5,)})
    with pytest.raises(HeadstartError, match=r"holds another experiment.*learning_rates"):
        run(other, toy_store, finished, jobs=1)


def test_report_is_written_again(finished: Path) -> None:
    before = (finished / "report.html").read_bytes()
    (finished / "report.html").unlink()
    write_report(finished)
    assert (finished / "report.html").read_bytes() == before


def test_report_of_an_unfinished_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match=r"no finished run .*Run finetune into it first"):
        write_report(tmp_path)


def test_split_is_reused(finished: Path, toy_store: Path, tmp_path: Path) -> None:
    quick = {**QUICK, "epochs": 1, "learning_rates": (1e-3,)}
    run(Request(task="brain-age", split=finished / "split.tsv", **quick), toy_store, tmp_path, jobs=2)
    assert (tmp_path / "split.tsv").read_bytes() == (finished / "split.tsv").read_bytes()


def test_classification_and_leave_one_site_out(toy_store: Path, tmp_path: Path) -> None:
    quick = {**QUICK, "seeds": 1, "epochs": 2, "learning_rates": (3e-3,)}
    result = run(Request(task="ad", loso=True, **quick), toy_store, tmp_path, jobs=2)
    assert result.outside["auroc"].n == 32  # every scan was once at a site that was left out
    header = (tmp_path / "predictions.tsv").read_text().splitlines()[0].split("\t")
    assert header == ["dataset", "participant_id", "session", "site", "seed", "partition", "truth", "prediction",
                      "p_CN", "p_AD"]


@pytest.mark.parametrize(("request_", "says"), [
    (dict(target="iq"), r"no scan has a value in column 'iq'.*Columns that exist"),
    (dict(task="pd"), r"no scan has diagnosis = 'PD'"),
    (dict(task="brain-age", test_sites=("z",)), r"no scan is from site 'z'.*Sites: a, b, c"),
    (dict(task="brain-age", train_sites=("a",), test_sites=("a",)), "both a training and a test site"),
    (dict(task="brain-age", backbone="vit-huge"), "vit-huge"),
    (dict(task="brain-age", upstream="imagenot"), "imagenot"),
])
def test_bad_requests_say_what_to_do(toy_store: Path, tmp_path: Path, request_: dict, says: str) -> None:
    with pytest.raises(HeadstartError, match=says):
        run(Request(**{**QUICK, **request_}), toy_store, tmp_path, jobs=1)


def test_refit_follows_the_folds() -> None:
    folds = [{"learning_rate": rate, "history": {"best_epoch": epoch}} for rate, epoch in
             ((1e-3, 9), (1e-3, 19), (3e-4, 50), (1e-3, 14))]
    assert chosen(folds) == (1e-3, 15)


def test_each_seed_starts_from_weights_of_its_own(toy_store: Path, tmp_path: Path) -> None:
    data, _, experiment = opened(Job(Request(task="brain-age", **QUICK), toy_store, tmp_path))
    trainer = Trainer(experiment, data, tmp_path)
    first, again, other = (trainer.start(seed)[0].backbone.blocks[0][0].weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.fixture
def knows_age(toy_store: Path, tmp_path: Path) -> Path:
    """A start whose own output rises with the ages of the toy store."""
    store = Store.open(toy_store)
    ages = np.array([scan.scan.age_years for scan in store.scans], float)
    model, known = build_model("cnn-small", store.spec, 1, seed=4), np.flatnonzero(np.isfinite(ages))
    with torch.no_grad():
        model.head.weight.mul_(np.sign(np.corrcoef(predict(model, store, known)[:, 0], ages[known])[0, 1]))
    config = ModelConfig(backbone="cnn-small", num_outputs=1, contract=store.contract, outputs=["age"])
    return save_model(tmp_path / "start", model, config, "# card")


def test_a_start_that_could_say_it_is_kept_by_half(toy_store: Path, knows_age: Path, tmp_path: Path) -> None:
    request = Request(**{**QUICK, "upstream": str(knows_age)}, task="brain-age")
    data, split, experiment = opened(Job(request, toy_store, tmp_path))
    trainer, cell = Trainer(experiment, data, tmp_path), split.cell(0, "refit")
    trainer.refit(cell, [{"learning_rate": 1e-3, "history": {"best_epoch": 0}}], tmp_path / "kept")
    found, objective = readout_of(knows_age, "cnn-small", data.store.spec, "age"), trainer.objective()
    model, _ = trainer.start(seed_of(cell))
    assert found is not None
    assert aim_head(model, found, objective, data, cell.train)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    plan = experiment.plan.model_copy(update={"learning_rate": 1e-3, "stop_after": 1})
    fit(model, objective, data, cell.train, cell.validation, plan, seed=seed_of(cell), flip=True)
    kept = torch.load(tmp_path / "kept", weights_only=True)
    assert not torch.equal(model.head.weight, start["head.weight"])
    for name, end in model.state_dict().items():
        torch.testing.assert_close(kept[name], (start[name] + end) / 2)
