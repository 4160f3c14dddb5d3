"""A network that reads one place only must be explained by that place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from headstart.backbones import build_model
from headstart.backbones.base import Backbone
from headstart.backbones.model import BrainModel
from headstart.brains.facts import Facts
from headstart.brains.nifti import read_nifti, write_nifti
from headstart.brains.volumes import template, volume_spec
from headstart.errors import HeadstartError
from headstart.explanation import explain, to_native

SPEC = volume_spec("4mm")
PLACE = (slice(10, 14), slice(30, 34), slice(18, 22))  # in the brain, left and in front


class OnePlace(Backbone):
    """Sees the mean of ``PLACE`` and nothing else."""

    num_features = 2

    def forward_features(self, volumes: torch.Tensor) -> torch.Tensor:
        seen = volumes[(slice(None), 0, *PLACE)].mean((1, 2, 3))
        return torch.stack([seen, 1 - seen], 1)

    def layer_groups(self) -> list[list[nn.Parameter]]:
        return []


@pytest.fixture(scope="module")
def volume() -> torch.Tensor:
    target = template("4mm")
    return torch.from_numpy(np.where(target.brain, target.t1, 0).astype(np.float32))[None, None]


@pytest.fixture(scope="module")
def one_place() -> BrainModel:
    model = BrainModel(OnePlace(), 1)
    model.norm = nn.Identity()  # of two features it would leave only the sign
    nn.init.ones_(model.head.weight[:, :1])
    nn.init.zeros_(model.head.weight[:, 1:])
    return model


@pytest.mark.parametrize("method", ["gradient", "occlusion"])
def test_the_place_that_is_read_stands_out(method: str, one_place: BrainModel, volume: torch.Tensor) -> None:
    found = np.abs(explain(method, one_place, volume, SPEC))
    inside = np.zeros(SPEC.shape, bool)
    inside[PLACE] = True
    assert found[inside].mean() > 10 * found[~inside & (volume[0, 0].numpy() != 0)].mean()
    assert not found[volume[0, 0].numpy() == 0].any()


def test_occlusion_is_the_change_in_the_outputs_unit(one_place: BrainModel, volume: torch.Tensor) -> None:
    brain = volume[0, 0][volume[0, 0] != 0]
    found = explain("occlusion", one_place, volume, SPEC)
    expected = float(brain.mean() - volume[0, 0][PLACE].mean())
    peak = found.flat[np.abs(found).argmax()]
    assert 0.6 < peak / expected <= 1.0 + 1e-6  # some of the cubes that are averaged hold a part of the place only


def test_maps_are_the_same_every_time(volume: torch.Tensor) -> None:
    model = build_model("cnn-small", SPEC, 1)
    first, second = (explain("gradient", model, volume, SPEC) for _ in range(2))
    assert np.array_equal(first, second)


def test_attention_flows_to_the_patch_that_every_block_looks_at(volume: torch.Tensor) -> None:
    model = build_model("vit-mini", SPEC, 1)
    found = explain("attention", model, volume, SPEC)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    key = 40  # a token whose keys every query is drawn to
    with torch.no_grad():
        for block in model.backbone.blocks:
            width = block.attn.qkv.weight.shape[1]
            block.attn.qkv.weight[: 2 * width] = 0
            block.attn.qkv.bias[:width] = 1.0
        model.backbone.pos_embed[0, model.backbone.tokens[key] + 1] += 50  # marks the token in the residual stream
        for block in model.backbone.blocks:
            mark = block.norm1(model.backbone.pos_embed[0, model.backbone.tokens[key] + 1])
            block.attn.qkv.weight[width : 2 * width] = mark / mark.norm() / 4
    drawn = explain("attention", model, volume, SPEC)
    x, y, z = np.unravel_index(int(model.backbone.tokens[key]), model.backbone.grid)
    patch = tuple(slice(8 * i, 8 * i + 8) for i in (x, y, z))
    assert drawn[patch].sum() > 2 * found[patch].sum()


def test_networks_without_attention_say_so(volume: torch.Tensor) -> None:
    model = build_model("cnn-small", SPEC, 1)
    with pytest.raises(HeadstartError, match="no attention"):
        explain("attention", model, volume, SPEC)
    with pytest.raises(HeadstartError, match=r"unknown kind of map 'lime'.*gradient"):
        explain("lime", model, volume, SPEC)


def test_a_map_lands_on_the_scan(tmp_path: Path) -> None:
    fine = template("2mm")
    shift = np.eye(4)
    shift[:3, 3] = (7.0, -5.0, 3.0)  # native world to template world
    write_nifti(tmp_path / "scan.nii.gz", fine.t1 * 100, np.linalg.inv(shift) @ fine.spec.affine)
    facts = Facts("", True, 1.0, 1.0, tuple(map(tuple, shift)), 1.0, 1.0, 0, 0, 0, (2.0, 2.0, 2.0))
    found = to_native(template("4mm").brain.astype(np.float32), SPEC, facts, tmp_path / "scan.nii.gz")
    assert np.array_equal(found.affine, read_nifti(tmp_path / "scan.nii.gz").affine)
    both = (found.data > 0.5) & fine.brain
    assert 2 * both.sum() / ((found.data > 0.5).sum() + fine.brain.sum()) > 0.95
