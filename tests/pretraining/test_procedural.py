"""Procedural clips and pictures: the same for the same seed, within the brain, and as their labels say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.brains.store import Store, unpack
from headstart.brains.volumes import template, volume_spec
from headstart.pretraining.pool import Pool
from headstart.pretraining.procedural import KINDS, shapes, textures, write_pool
from headstart.pretraining.procedural.pool import render
from headstart.pretraining.procedural.scenes import pose

SPEC = volume_spec("4mm")


@pytest.mark.parametrize("kind", KINDS)
def test_a_function_of_seed_and_index_alone(kind: str) -> None:
    rows, labels = render(KINDS[kind], 3, np.arange(40), SPEC)
    alone, said = render(KINDS[kind], 3, np.array([37]), SPEC)
    assert (rows[37] == alone[0]).all()
    assert labels[37] == said[0]
    assert (rows[37] != render(KINDS[kind], 4, np.array([37]), SPEC)[0]).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("volume", ["4mm", "3mm"])
def test_they_fill_the_brain_and_nothing_else(kind: str, volume: str) -> None:
    spec = volume_spec(volume)
    rows, _ = render(KINDS[kind], 0, np.arange(6), spec)
    volumes = unpack(torch.from_numpy(rows), spec)[:, 0].numpy()
    assert ((volumes != 0) == template(volume).brain).all()
    assert -0.5 <= volumes.min() < volumes.max() <= 2
    assert 0.3 < volumes[volumes != 0].mean() < 0.7
    assert (volumes.std(axis=(1, 2, 3)) > 0.05).all()


def test_clips_move_along_time_only_where_things_move() -> None:
    """The ground drifts slowly: neighbouring frames of a clip are alike, far ones are not."""
    rows, _ = render(KINDS["procedural-video"], 0, np.arange(24), SPEC)
    frames = unpack(torch.from_numpy(rows), SPEC)[:, 0, 12:28, 12:36, 16:32].flatten(2)
    middle = frames - frames.mean(2, keepdim=True)

    def likeness(gap: int) -> float:
        return float(torch.cosine_similarity(middle[:, gap:], middle[:, : 16 - gap], dim=2).mean())

    assert likeness(1) > likeness(6) + 0.1


def test_every_family_is_different_and_centred() -> None:
    generator = torch.Generator().manual_seed(0)
    families = torch.arange(len(textures.FAMILIES)).repeat(2)
    uniform = torch.rand(len(families), textures.NUMBERS, generator=generator)
    noise = torch.randn(len(families), textures.SIZE, textures.SIZE, generator=generator)
    painted = textures.paint(families, uniform, noise)
    assert painted.isfinite().all()
    assert (painted.mean((1, 2)).abs() < 0.3).all()
    assert (painted.std((1, 2)) > 0.3).all()


def test_shapes_have_an_inside_and_leave_the_border_free() -> None:
    families = torch.arange(len(shapes.FAMILIES)).repeat(20)
    uniform = torch.rand(len(families), shapes.NUMBERS, generator=torch.Generator().manual_seed(0))
    masks = shapes.cut(families, uniform)
    covered = masks.mean((1, 2))
    assert (covered > 0.04).all()
    assert (covered < 0.75).all()
    border = torch.stack([masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1]])
    assert border.max() < 0.1


def test_a_pose_puts_the_sprite_where_it_says() -> None:
    """The centre of the sprite lies at (x, y), and its rim a scale away."""
    a, b, c, d, e, f = pose(*(torch.tensor(value) for value in (0.5, 0.25, 0.7, 0.2, -0.3))).tolist()
    cos, sin = np.cos(0.7), np.sin(0.7)

    def sprite(x: float, y: float) -> list[float]:
        return [a * x + b * y + c, d * x + e * y + f]

    assert sprite(0.2, -0.3) == pytest.approx([0, 0], abs=1e-6)
    assert sprite(0.2 + 0.5 * cos, -0.3 + 0.5 * sin) == pytest.approx([1, 0], abs=1e-5)
    assert sprite(0.2 - 0.25 * sin, -0.3 + 0.25 * cos) == pytest.approx([0, 1], abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pool_is_resumed_to_the_same_bytes(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.pretraining.procedural.pool.WRITTEN", 16)
    whole = write_pool(tmp_path / "whole", kind, n=40, seed=1, volume="4mm", progress=False)
    write_pool(tmp_path / "parts", kind, n=25, seed=1, volume="4mm", progress=False)
    parts = write_pool(tmp_path / "parts", kind, n=40, seed=1, volume="4mm", progress=False)
    assert (Store.open(whole).rows(range(40)) == Store.open(parts).rows(range(40))).all()
    pool = Pool.open(whole)
    names = {label.name: label for label in pool.labels}
    assert {"shape", "texture", "ground", "covered", "contrast", "objects"} <= set(names)
    assert len(pool.targets) == 40
    assert np.isfinite(pool.targets).all()
