"""The starts inside the package: they load, whole, and are what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from headstart.backbones import build_backbone
from headstart.brains.volumes import volume_spec
from headstart.modelfolder import load_model, read_config
from headstart.upstreams import default_start, domain_of, load_into
from headstart.upstreams.fetch import starts_folder

FOLDERS = sorted(path.parent for path in starts_folder().glob("*/*/config.json"))
STARTS = [folder for folder in FOLDERS if folder.parent.name != "brain-age-synthetic"]


def name_of(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


@pytest.mark.parametrize("folder", STARTS, ids=name_of)
def test_a_shipped_start_gives_every_weight_of_its_backbone(folder: Path) -> None:
    config, spec = read_config(folder), volume_spec("4mm")
    torch.manual_seed(0)
    backbone = build_backbone(config.backbone, spec)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    report = load_into(folder.parent.name, backbone, config.backbone, spec)
    assert not report.initialised
    assert all(value.dtype == torch.float32 for value in backbone.state_dict().values())
    assert sum(not torch.equal(value, before[key]) for key, value in backbone.state_dict().items()) > len(before) / 2


def test_what_is_shipped_has_seen_no_person_and_fits_in_the_package() -> None:
    assert {"synthetic-mri", "control", "procedural-images", "procedural-video"} <= {f.parent.name for f in FOLDERS}
    for folder in FOLDERS:
        assert all(cohort.startswith(("simulated-", "procedural-")) for cohort in read_config(folder).seen or ["?"])
    assert sum(path.stat().st_size for path in starts_folder().rglob("*") if path.is_file()) < 60e6


def test_what_is_shipped_says_what_it_learnt_from() -> None:
    """And a model made from it says so: rendered clips do not pass for video, nor the control for a head start."""
    for folder in FOLDERS:
        expected = "synthetic-mri" if folder.parent.name == "brain-age-synthetic" else folder.parent.name
        assert read_config(folder).domain == expected
    for name in ("synthetic-mri", "procedural-video", "procedural-images", "control"):
        assert domain_of(name, "vit-mini", volume_spec("4mm")) == name


def test_the_finished_model_answers_in_years() -> None:
    model, config = load_model(starts_folder() / "brain-age-synthetic" / "cnn-small-4mm")
    assert config.task is not None
    assert config.task.name == "brain-age"
    assert config.simulated
    years = model(torch.rand(2, 1, *config.contract.spec.shape))
    assert years.shape == (2, 1)
    assert bool(((years > -50) & (years < 200)).all())


def test_the_synthetic_start_is_the_default_where_it_is_shipped() -> None:
    assert default_start("cnn-small", "4mm") == "synthetic-mri"
    assert default_start("densenet121", "4mm") == default_start("cnn-small", "1mm") == "scratch"
