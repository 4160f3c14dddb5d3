"""Pre-training: a folder that finetune can start from, made once, on labels that are there."""

from __future__ import annotations

import json
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
from headstart.modelfolder import load_model
from headstart.pretraining.run import PretrainRequest, pretrain
from headstart.pretraining.supervised import Pool
from headstart.upstreams import load_into


@pytest.fixture(scope="module")
def start(toy_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("start")
    return pretrain(PretrainRequest("cnn-small", budget_samples=200, data=toy_store), out, jobs=1)


def test_pool_reads_the_labels_that_exist(toy_store: Path) -> None:
    pool = Pool.open(toy_store)
    assert pool.names == ("age", "sex", "log_grey")
    targets = dict(zip(pool.names, pool.targets.T, strict=True))
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


def test_history_tells_how_it_went(start: Path) -> None:
    history = json.loads((start / "pretraining.json").read_text())
    assert len(history["history"]["epochs"]) == round(200 / 32)
    assert list(history["held_out_r"]) == ["age", "sex", "log_grey"]


def test_a_finished_start_is_left_alone(start: Path, toy_store: Path) -> None:
    before = (start / "model.safetensors").stat().st_mtime_ns
    pretrain(PretrainRequest("cnn-small", budget_samples=200, data=toy_store), start, jobs=1)
    assert (start / "model.safetensors").stat().st_mtime_ns == before


def test_another_request_is_refused(start: Path, toy_store: Path) -> None:
    with pytest.raises(HeadstartError, match=r"another pre-training.*backbone"):
        pretrain(PretrainRequest("vit-mini", budget_samples=200, data=toy_store), start, jobs=1)


def test_unlabelled_scans_are_refused(toy_store: Path, tmp_path: Path) -> None:
    stored = Store.open(toy_store)
    bare = [replace(s.scan, age_years=None, sex=None, columns={}) for s in stored.scans[:4]]
    with StoreWriter(tmp_path / "bare", Contract(volume="4mm")) as writer:
        writer.append_many(bare, stored.rows(range(4)))
    with pytest.raises(HeadstartError, match="no scan with age, sex or regional volumes"):
        pretrain(PretrainRequest("cnn-small", 10, data=tmp_path / "bare"), tmp_path / "out", jobs=1)
