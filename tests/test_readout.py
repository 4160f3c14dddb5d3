"""A head that begins with what the upstream had learnt to say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from headstart.backbones import BrainModel, build_model
from headstart.brains.contract import Contract
from headstart.brains.volumes import VOLUMES
from headstart.experiment.readout import PRIOR_SCANS, aim_head, meet_halfway
from headstart.modelfolder import ModelConfig, save_model
from headstart.training import Classification, Objective, Regression, predict
from headstart.upstreams import readout_of

SPEC, TRAIN = VOLUMES["4mm"], np.arange(6)


@dataclass
class Scans:
    """Noise of six strengths, and a target of each."""

    targets: np.ndarray

    def volumes(self, indices: np.ndarray) -> Tensor:
        noise = torch.rand((6, 1, *SPEC.shape), generator=torch.Generator().manual_seed(0))
        return (noise * torch.arange(1, 7)[:, None, None, None, None] / 3)[torch.as_tensor(indices)]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BrainModel]:
    """A folder as pre-training writes it, whose second output is age."""
    model = build_model("cnn-small", SPEC, 3, seed=4).eval()
    config = ModelConfig(backbone="cnn-small", num_outputs=3, contract=Contract(), outputs=["sex", "age", "log_grey"])
    return save_model(tmp_path_factory.mktemp("upstream") / "model", model, config, "# card"), model


def aimed(upstream: tuple[Path, BrainModel], objective: Objective, targets: np.ndarray, outputs: int) -> BrainModel:
    """A model of the upstream's backbone, aimed by its age."""
    folder, taught = upstream
    found = readout_of(folder, "cnn-small", SPEC, "age")
    assert found is not None
    model = build_model("cnn-small", SPEC, outputs, seed=5)
    model.backbone.load_state_dict(taught.backbone.state_dict())
    aim_head(model, found, objective, Scans(targets), TRAIN)
    return model


def said(upstream: tuple[Path, BrainModel]) -> np.ndarray:
    return predict(upstream[1], Scans(np.zeros(6)), TRAIN)[:, 1]


def on_the_line(upstream: tuple[Path, BrainModel], ages: np.ndarray) -> np.ndarray:
    """What ridge regression says whose prior weighs as much as twenty scans of the spread at hand."""
    read, known = said(upstream), np.isfinite(ages)
    penalty = PRIOR_SCANS * read[known].var()
    return Ridge(alpha=penalty).fit(read[known, None], ages[known]).predict(read[:, None])


def test_numbers_lie_on_the_line_that_fits_what_the_upstream_says(upstream: tuple[Path, BrainModel]) -> None:
    read = said(upstream)
    ages = 40 + 900 * (read - read.mean()) + np.array([1.0, -2, 3, 0, -1, -1])
    model = aimed(upstream, Regression(), ages, 1)
    np.testing.assert_allclose(predict(model, Scans(ages), TRAIN)[:, 0], on_the_line(upstream, ages), rtol=1e-3)


def test_two_classes_are_told_by_it(upstream: tuple[Path, BrainModel]) -> None:
    read = said(upstream)
    classes = (read > np.median(read)).astype(float)
    logits = predict(aimed(upstream, Classification(2), classes, 2), Scans(classes), TRAIN)
    margin = logits[:, 1] - logits[:, 0]
    np.testing.assert_array_equal(margin.argsort(), read.argsort())
    assert margin.min() < 0 < margin.max()


def test_unknown_targets_do_not_count(upstream: tuple[Path, BrainModel]) -> None:
    ages = 40 + 900 * said(upstream)
    some = np.where(TRAIN == 2, np.nan, ages)
    model = aimed(upstream, Regression(), some, 1)
    np.testing.assert_allclose(predict(model, Scans(ages), TRAIN)[:, 0], on_the_line(upstream, some), rtol=1e-3)


def test_what_falls_with_the_targets_is_not_taken_over(upstream: tuple[Path, BrainModel]) -> None:
    model = aimed(upstream, Regression(), -said(upstream), 1)
    assert torch.equal(model.head.weight, build_model("cnn-small", SPEC, 1, seed=5).head.weight)


def test_three_classes_have_no_one_direction(upstream: tuple[Path, BrainModel]) -> None:
    model = aimed(upstream, Classification(3), np.array([0.0, 1, 2, 0, 1, 2]), 3)
    assert torch.equal(model.head.weight, build_model("cnn-small", SPEC, 3, seed=5).head.weight)


def test_halfway_is_the_mean_of_both_ends() -> None:
    start, model = (build_model("cnn-small", SPEC, 1, seed=seed) for seed in (1, 2))
    end = {name: value.clone() for name, value in model.state_dict().items()}
    meet_halfway(model, start.state_dict())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, (start.state_dict()[name] + end[name]) / 2)


def test_what_was_not_taught_cannot_be_read(upstream: tuple[Path, BrainModel]) -> None:
    assert readout_of(upstream[0], "cnn-small", SPEC, "iq") is None
    assert readout_of("scratch", "cnn-small", SPEC, "age") is None


@pytest.mark.parametrize("backbone", ["cnn-small", "vit-mini"])
def test_the_shipped_start_reads_age_and_sex(backbone: str) -> None:
    assert all(readout_of("synthetic-mri", backbone, SPEC, label) is not None for label in ("age", "sex"))
