"""Pre-training: a folder that finetune can start from, made once, on labels that are there."""

from __future__ import annotations

import json
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.backbones import build_backbone
from headstart.brains.contract import Contract
from headstart.brains.store import Store, StoreWriter
from headstart.brains.volumes import volume_spec
from headstart.errors import HeadstartError
from headstart.modelfolder import load_model, read_config
from headstart.pretraining.config import PretrainConfig
from headstart.pretraining.pool import Label, Pool
from headstart.pretraining.procedural import write_pool as write_procedural
from headstart.pretraining.run import pretrain
from headstart.upstreams import domain_of, load_into

ROOT = Path(__file__).resolve().parents[2]


def config_of(store: Path, **changes) -> PretrainConfig:
    return PretrainConfig(**{"backbone": "cnn-small", "budget_samples": 200, "data": store, "probe": 0, **changes})


@pytest.fixture(scope="module")
def start(toy_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("start")
    pretrain(config_of(toy_store), out, jobs=1)
    return out


def test_pool_reads_the_labels_that_exist(toy_store: Path) -> None:
    pool = Pool.open(toy_store)
    assert pool.labels == (Label("age"), Label("sex"), Label("log_grey"))
    targets = dict(zip(("age", "sex", "log_grey"), pool.targets.T, strict=True))
    scans = [stored.scan for stored in Store.open(toy_store).scans]
    assert targets["age"][0] == scans[0].age_years
    assert targets["sex"][:4].tolist() == [float(scan.sex == "M") for scan in scans[:4]]
    assert targets["log_grey"][0] == pytest.approx(np.log(float(scans[0].columns["grey_rel"])))


def test_finetune_can_start_from_it(start: Path) -> None:
    spec = volume_spec("4mm")
    backbone = build_backbone("cnn-small", spec, seed=5)
    report = load_into(start, backbone, "cnn-small", spec)
    trained, config = load_model(start)
    assert set(report.copied) == set(backbone.state_dict())
    for name, tensor in trained.backbone.state_dict().items():
        assert torch.equal(tensor, backbone.state_dict()[name])
    assert config.seen == ["toy"]
    assert config.simulated
    assert config.domain == domain_of(start, "cnn-small", spec) == "synthetic-mri"


def test_record_and_card_tell_how_it_went(start: Path) -> None:
    record = json.loads((start / "pretraining.json").read_text())
    cost, card = record["cost"], (start / "README.md").read_text()
    assert cost["epochs"] == round(200 / 32)
    assert cost["samples"] == cost["epochs"] * 32
    assert record["curve"]["step"] == list(range(1, cost["steps"] + 1))
    assert list(record["held_out"]["scores"]) == ["age", "sex", "log_grey"]
    assert f"{cost['steps']} steps" in card
    assert "simulated brains" in card
    assert "budget_samples: 200" in card


def test_shuffled_labels_teach_nothing(toy_store: Path, tmp_path: Path) -> None:
    """The control keeps its brains, its steps and its labels as a set; what belongs to whom is lost."""
    pool = Pool.open(toy_store)
    shuffled = pool.with_shuffled_labels(0)
    known = np.isfinite(pool.targets).all(1)
    assert sorted(map(tuple, shuffled.targets[np.isfinite(shuffled.targets).all(1)])) == sorted(
        map(tuple, pool.targets[known]))
    assert (shuffled.targets[known] != pool.targets[known]).any(axis=1).mean() > 0.8
    pretrain(config_of(toy_store, shuffle_labels=True), tmp_path / "control", jobs=1)
    card = (tmp_path / "control" / "README.md").read_text()
    assert "its labels were shuffled" in card
    assert read_config(tmp_path / "control").domain == "control"


def test_a_start_is_shipped_with_what_it_learnt_from(start: Path, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that was made when configs did not say it."""
    older = shutil.copytree(start, tmp_path / "older")
    config = json.loads((older / "config.json").read_text())
    (older / "config.json").write_text(json.dumps({name: config[name] for name in config if name != "domain"}))
    monkeypatch.setenv("HEADSTART_STARTS", str(tmp_path / "starts"))
    monkeypatch.setattr("sys.argv", ["ship-start", str(older), "synthetic-mri"])
    runpy.run_path(str(ROOT / "scripts" / "ship-start"), run_name="__main__")
    assert read_config(tmp_path / "starts" / "synthetic-mri" / "cnn-small-4mm").domain == "synthetic-mri"


def test_a_store_of_another_grid_or_of_clips_is_refused(toy_store: Path, tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match=r"is a store at 4mm, and --volume is 2mm"):
        pretrain(config_of(toy_store, volume="2mm"), tmp_path / "out", jobs=1)
    clips = write_procedural(tmp_path / "clips", "procedural-video", n=4, seed=0, volume="4mm", progress=False)
    for source in ("real-mri", "synthetic-mri"):
        with pytest.raises(HeadstartError, match=rf"holds clips or pictures, and the source is {source}"):
            pretrain(config_of(clips, source=source), tmp_path / "out", jobs=1)


def test_what_ldm100k_brains_were_drawn_for_is_learnt(toy_store: Path, tmp_path: Path) -> None:
    stored = Store.open(toy_store)
    drawn = [replace(s.scan, columns={"ventricular_volume": f"{i / 8}", "brain_volume": f"{1 - i / 9}", "brain_rel":
                                      f"{1000 + i}"}) for i, s in enumerate(stored.scans[:4])]
    with StoreWriter(tmp_path / "ldm", Contract(volume="4mm")) as writer:
        writer.append_many(drawn, stored.rows(range(4)))
    names = [label.name for label in Pool.open(tmp_path / "ldm").labels]
    assert {"age", "ventricular_volume", "brain_volume", "log_brain"} <= set(names)


def test_a_loss_that_rises_is_said(toy_store: Path, tmp_path: Path) -> None:
    wild = pretrain(config_of(toy_store, learning_rate=30.0), tmp_path / "wild", jobs=1)
    assert wild["curve"]["loss"][-1] > wild["curve"]["loss"][0]
    assert "the training loss rose" in wild["warnings"][0]


def test_a_folder_of_another_program_is_left_alone(toy_store: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(HeadstartError, match=r"holds a model that pretrain did not make.*another --out"):
        pretrain(config_of(toy_store), tmp_path, jobs=1)


def test_a_finished_start_is_left_alone(start: Path, toy_store: Path) -> None:
    before = (start / "model.safetensors").stat().st_mtime_ns
    pretrain(config_of(toy_store), start, jobs=1)
    assert (start / "model.safetensors").stat().st_mtime_ns == before


def test_another_request_is_refused(start: Path, toy_store: Path) -> None:
    with pytest.raises(HeadstartError, match=r"another pre-training.*backbone"):
        pretrain(config_of(toy_store, backbone="vit-mini"), start, jobs=1)


def test_unlabelled_scans_are_refused(toy_store: Path, tmp_path: Path) -> None:
    stored = Store.open(toy_store)
    bare = [replace(s.scan, age_years=None, sex=None, columns={}) for s in stored.scans[:4]]
    with StoreWriter(tmp_path / "bare", Contract(volume="4mm")) as writer:
        writer.append_many(bare, stored.rows(range(4)))
    with pytest.raises(HeadstartError, match="none of the samples to learn from has an age"):
        pretrain(config_of(tmp_path / "bare"), tmp_path / "out", jobs=1)
