"""The page of a pre-training: whole, offline, and true to what the run noted."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

from headstart.backbones import build_model
from headstart.brains.volumes import volume_spec
from headstart.errors import HeadstartError
from headstart.pretraining.config import PretrainConfig
from headstart.pretraining.monitor import Monitor, probe, spread
from headstart.pretraining.pool import Pool
from headstart.pretraining.report import is_pretraining, read_state, summary, write_report
from headstart.pretraining.run import pretrain


@pytest.fixture(scope="module")
def run(toy_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run whose probe reads the toy brains: to simulate its own takes longer than all of this."""
    out = tmp_path_factory.mktemp("pretraining")
    config = PretrainConfig(backbone="cnn-small", data=toy_store, budget_samples=62, batch_size=8, probe=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headstart.pretraining.run.probe_store", lambda count, volume, jobs: toy_store)
        pretrain(config, out, jobs=1)
    return out


def test_the_page_shows_the_run(run: Path) -> None:
    text = write_report(run).read_text(encoding="utf-8")
    record = json.loads((run / "pretraining.json").read_text())
    last = record["looks"][-1]
    assert [look["step"] for look in record["looks"]] == sorted({round(8 * i / 8) for i in range(9)})
    assert f"effective rank {last['rank']:.2f}" in text
    assert f"age {last['probe']['age']:.2f}" in text
    assert "cnn-small learns from synthetic-mri" in text
    assert text.count("<svg ") == 4
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    page = re.search(r'download="pretraining.json" href="data:[^,]*,([^"]+)"', text)
    assert page is not None
    assert json.loads(base64.b64decode(page.group(1)))["curve"] == record["curve"]


def test_a_run_that_is_under_way_has_a_page_too(run: Path, tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    for name in ("request.json", "training/curve.jsonl", "training/looks.jsonl"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Under way" in text
    assert read_state(tmp_path)["cost"] is None


def test_what_is_no_pretraining_is_refused(tmp_path: Path) -> None:
    assert not is_pretraining(tmp_path)
    with pytest.raises(HeadstartError, match="holds no pre-training"):
        write_report(tmp_path)


def test_collapse_is_seen_and_said(run: Path) -> None:
    """Features that are all alike, those of one direction, and those that are spread."""
    rng = np.random.default_rng(0)
    same, line = np.ones((50, 16)), np.outer(rng.standard_normal(50), np.ones(16))
    assert spread(same) == (0.0, 1.0)
    assert spread(line + 1e-4 * rng.standard_normal((50, 16)))[1] == pytest.approx(1, abs=0.1)
    deviation, rank = spread(rng.standard_normal((5000, 16)))
    assert rank == pytest.approx(16, abs=0.1)
    assert deviation == pytest.approx(1, abs=0.05)
    state = read_state(run)
    state["looks"][-1]["rank"] = 1.1
    assert "have collapsed" in " ".join(summary(state))


def test_the_probe_reads_what_is_there(toy_store: Path) -> None:
    """Features that hold the age, and features of noise; scans without an age are left out."""
    brains = Pool.open(toy_store)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((len(brains.targets), 6))
    telling = np.column_stack([np.nan_to_num(brains.targets[:, 0], nan=50.0), noise])
    assert np.isnan(brains.targets[:, 0]).any()
    assert probe(telling, brains)["age"] > 0.9
    assert probe(noise, brains)["age"] < 0.8


def test_looks_are_taken_once(toy_store: Path, tmp_path: Path) -> None:
    """A resumed run passes the same steps again, and does not pay for its looks twice."""
    model, brains = build_model("cnn-small", volume_spec("4mm"), 1), Pool.open(toy_store)
    monitor = Monitor(model, brains, tmp_path, 80)
    for step in (0, 10, 11, 10):
        monitor.look(step)
    assert list(monitor.looks.read()) == [0, 10]
    assert len(monitor.looks.path.read_text().strip().splitlines()) == 2
