"""Every source with every objective and both kinds of network from the command line; what makes no sense is refused."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from headstart.brains.contract import Contract
from headstart.brains.store import Store, StoreWriter
from headstart.cli import app
from headstart.errors import HeadstartError
from headstart.modelfolder import load_model

# What is asked for (None: made by a program; else the fixture with the data), and what the start then learnt from.
SOURCES = [
    ("synthetic-mri", None, "synthetic-mri"),
    ("synthetic-mri", "toy_store", "synthetic-mri"),
    ("real-mri", "real_store", "real-mri"),
    ("real-mri", "toy_store", "synthetic-mri"),  # simulated brains do not become real by being asked for as such
    ("video", None, "procedural-video"),
    ("video", "clips", "video"),
    ("natural-images", None, "procedural-images"),
    ("natural-images", "photographs", "natural-images"),
]
LONG = os.environ.get("HEADSTART_LONG") == "1"
OBJECTIVES = ("supervised", "masked", "contrastive")


@pytest.fixture(scope="session")
def real_store(toy_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Brains that do not say that they are simulated, half of them without any label."""
    toy, folder = Store.open(toy_store), tmp_path_factory.mktemp("real")
    scans = [replace(stored.scan, dataset="lab", simulated=False) for stored in toy.scans]
    bare = [replace(scan, age_years=None, sex=None, columns={}) for scan in scans[::2]]
    with StoreWriter(folder, Contract(volume="4mm")) as writer:
        writer.append_many([*scans[1::2], *bare], toy.rows([*range(1, len(scans), 2), *range(0, len(scans), 2)]))
    return folder


def pretrain(out: Path, *options: object) -> str:
    """What ``headstart pretrain`` says; raises what it ends with."""
    small = ["--pool", "20", "--budget-samples", "18", "--batch-size", "6", "--probe", "0", "--jobs", "1"]
    asked = ["pretrain", *small, *map(str, options), "--out", str(out)]
    return CliRunner().invoke(app, asked, catch_exceptions=False).output


# Every source with every objective, and every objective with both networks; in the long tests all with all.
CASES = [(*source, objective, backbone) for i, source in enumerate(SOURCES) for j, objective in enumerate(OBJECTIVES)
         for k, backbone in enumerate(("cnn-small", "vit-mini")) if LONG or (i + j + k) % 2 == 0]


@pytest.mark.parametrize(("source", "data", "learnt_from", "objective", "backbone"), CASES,
                         ids=[f"{s}-{d or 'made'}-{o}-{b}" for s, d, _, o, b in CASES])
def test_every_source_with_every_objective(source: str, data: str | None, learnt_from: str, objective: str,
                                           backbone: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    given = ["--data", request.getfixturevalue(data)] if data else []
    said = pretrain(tmp_path / "start", "--source", source, "--objective", objective, "--backbone", backbone, *given)
    assert "samples/s, network busy" in said
    record = json.loads((tmp_path / "start" / "pretraining.json").read_text())
    assert record["cost"]["samples"] <= 27  # whole epochs, as near as they come
    assert np.isfinite(record["curve"]["loss"]).all()
    assert bool(record["held_out"]["scores"]) == (objective == "supervised")
    _, config = load_model(tmp_path / "start")
    assert config.domain == learnt_from
    assert config.simulated == (learnt_from in ("synthetic-mri", "procedural-video", "procedural-images"))
    assert f"pre-trained on {learnt_from}, {objective}" in (tmp_path / "start" / "README.md").read_text()
    written = CliRunner().invoke(app, ["report", str(tmp_path / "start")], catch_exceptions=False).output
    assert "Report: " in written
    assert f"learns from {learnt_from}" in (tmp_path / "start" / "report.html").read_text()


@pytest.mark.parametrize(("options", "message"), [
    (["--source", "real-mri"], r"real MRI has to come from somewhere.*--data STORE"),
    (["--source", "real-mri", "--data", "{clips}"], r"is not a store.*headstart prepare"),
    (["--source", "video", "--data", "{toy_store}"], r"is a store of prepared brains.*--source real-mri"),
    (["--source", "video", "--data", "{photographs}"], r"holds no files that end in \.mp4"),
    (["--source", "natural-images", "--data", "{clips}"], r"holds no files that end in \.png"),
    (["--source", "video", "--labelmaps", "{clips}"], r"label maps are for brains that are simulated"),
    (["--labelmaps", "{clips}"], r"--generator labelmaps"),
    (["--generator", "labelmaps"], r"--labelmaps DIR"),
    (["--objective", "masked", "--shuffle-labels"], r"shuffled labels change nothing.*--objective supervised"),
    (["--objective", "contrastive", "--batch-size", "1"], r"one is alone.*--batch-size 2"),
    (["--backbone", "cnn-tiny"], r"unknown backbone 'cnn-tiny'.*cnn-small"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_what_makes_no_sense_is_refused_and_leaves_the_folder_free(
        options: list[str], message: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The corrected command may name the same folder."""
    asked = [str(request.getfixturevalue(word[1:-1])) if word.startswith("{") else word for word in options]
    with pytest.raises(HeadstartError, match=message):
        pretrain(tmp_path / "start", "--backbone", "cnn-small", *asked)
    assert not (tmp_path / "start" / "request.json").exists()
