"""Masked and contrastive pre-training: what is hidden stays hidden, the losses are right, and both learn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.backbones import build_backbone, build_model
from headstart.backbones.vit import cut_patches
from headstart.brains.augment import Augmentation, augment
from headstart.brains.store import Store, unpack
from headstart.brains.volumes import volume_spec
from headstart.modelfolder import read_config
from headstart.pretraining.config import PretrainConfig
from headstart.pretraining.contrastive import AGE_YEARS, TEMPERATURE, Contrastive, Projected, likeness
from headstart.pretraining.masked import Masked, MaskedTransformer, masked_model, normalised, orders
from headstart.pretraining.pool import Label
from headstart.pretraining.procedural.pictures import pictures
from headstart.pretraining.run import pretrain
from headstart.pretraining.supervised import Supervised
from headstart.training import Batch
from headstart.upstreams import load_into

SPEC = volume_spec("4mm")


def batch_of(store: Path, count: int = 6) -> Batch:
    opened = Store.open(store)
    ages = torch.tensor([[opened.scans[i].scan.age_years] for i in range(count)])
    return Batch(opened.volumes(range(count)), ages, np.arange(count, dtype=np.uint64))


@pytest.mark.parametrize("backbone", ["vit-mini", "cnn-small"])
def test_hidden_patches_are_not_seen(backbone: str, toy_store: Path) -> None:
    """Whatever stands in the hidden patches, the reconstruction is the same; what stands in the others matters."""
    batch = batch_of(toy_store, 3)
    model = masked_model(build_backbone(backbone, SPEC), SPEC).eval()
    order, visible = orders(batch.seeds, model.num_tokens), 40
    tokens = torch.as_tensor(Masked(SPEC).tokens)
    for place, same in ((visible, True), (visible - 1, False)):
        changed = batch.volumes.clone()
        for sample in range(3):
            x, y, z = np.unravel_index(int(tokens[order[sample, place]]), (5, 6, 5))
            changed[sample, 0, 8 * x : 8 * x + 8, 8 * y : 8 * y + 8, 8 * z : 8 * z + 8] = 1.7
        with torch.no_grad():
            assert torch.equal(model(changed, order, visible), model(batch.volumes, order, visible)) == same


def test_the_encoder_meets_visible_tokens_only(toy_store: Path) -> None:
    batch, lengths = batch_of(toy_store, 2), []
    model = masked_model(build_backbone("vit-mini", SPEC), SPEC)
    assert isinstance(model, MaskedTransformer)
    model.backbone.blocks[0].register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    Masked(SPEC)(model, batch)
    assert lengths == [1 + 121 - round(0.75 * 121)]


def test_masked_loss_by_hand(toy_store: Path) -> None:
    """A model that says zero: what is left is the variance of normalised patches, which is nearly 1."""
    batch = batch_of(toy_store, 4)

    class Zero(torch.nn.Module):
        hidden = 0.75

        def forward(self, volumes: torch.Tensor, order: torch.Tensor, visible: int) -> torch.Tensor:
            self.order, self.visible = order, visible
            return torch.zeros(len(volumes), order.shape[1] - visible, SPEC.patch**3)

    zero, masked = Zero(), Masked(SPEC)
    terms = masked(zero, batch)
    for sample in range(4):
        asked = masked.tokens[zero.order[sample, zero.visible:]].numpy()
        values = []
        for index in asked:
            x, y, z = np.unravel_index(index, (5, 6, 5))
            patch = batch.volumes[sample, 0, 8 * x : 8 * x + 8, 8 * y : 8 * y + 8, 8 * z : 8 * z + 8].numpy()
            inside = patch[patch != 0]
            values.append((inside - inside.mean()) / np.sqrt(inside.var() + 1e-3))
        assert float(terms.loss[sample]) == pytest.approx((np.concatenate(values) ** 2).mean(), rel=1e-4)


def test_normalised_patches_ignore_the_background(toy_store: Path) -> None:
    patches = cut_patches(batch_of(toy_store, 2).volumes, SPEC.patch)
    values, brain = normalised(patches)
    assert ((patches != 0) == (brain == 1)).all()
    assert not values[brain == 0].any()
    full = brain.sum(2) > 100
    assert torch.allclose((values * brain).sum(2)[full] / brain.sum(2)[full], torch.tensor(0.0), atol=1e-4)


def test_orders_depend_on_each_seed_alone() -> None:
    together, alone = orders([5, 6, 7], 121), orders([6], 121)
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])
    assert torch.equal(together.sort(1).values, torch.arange(121).expand(3, -1))


def test_likeness_of_ages() -> None:
    weights = likeness(torch.tensor([50.0, 50.0 + AGE_YEARS, math.nan, 90.0]))
    assert torch.allclose(weights.sum(1), torch.ones(4))
    assert weights[0, 1] / weights[0, 0] == pytest.approx(math.exp(-0.5))
    assert weights[0, 3] < 1e-6
    assert weights[2].tolist() == [0, 0, 1, 0]
    assert torch.equal(likeness(torch.full((3,), math.nan)), torch.eye(3))


def test_contrastive_loss_by_hand(toy_store: Path) -> None:
    """Without augmentation both views are equal: a softmax over likenesses, written out."""
    batch = batch_of(toy_store, 4)
    still = Augmentation(flip=False).scaled(0.0)
    model = Projected(build_model("cnn-small", SPEC, 1)).eval()
    with torch.no_grad():
        terms = Contrastive(still)(model, batch)
        z = model(augment(batch.volumes, batch.seeds, still)).numpy()
    likely = np.exp(z @ z.T / TEMPERATURE)
    expected = -(np.log(likely / likely.sum(1, keepdims=True)) * likeness(batch.targets[:, 0]).numpy()).sum(1)
    assert terms.loss.numpy() == pytest.approx(expected, rel=1e-3)


def test_supervised_loss_is_one_where_nothing_is_known_of_classes() -> None:
    """Cross-entropy in units of guessing, Huber on standardised numbers, both skipping what is unknown."""
    labels = (Label("age"), Label("motion", ("a", "b", "c")))
    objective = Supervised(labels)
    model = build_model("cnn-small", SPEC, 4)
    targets = np.array([[20.0, 0], [40, 2], [np.nan, 1], [60, np.nan]])
    objective.prepare(model, targets)
    assert model.target_mean.tolist() == [40, 0, 0, 0]
    assert model.target_scale.tolist() == pytest.approx([np.std([20, 40, 60]), 1, 1, 1])
    torch.nn.init.zeros_(model.head.weight)  # says the mean, and nothing about classes
    terms = objective(model, Batch(torch.rand(4, 1, *SPEC.shape), torch.tensor(targets).float(), np.arange(4)))
    far = 20 / np.std([20, 40, 60])
    assert terms.loss.tolist() == pytest.approx([(far - 0.5 + 1) / 2, 0.5, 1, far - 0.5], rel=1e-4)
    assert terms.weight.tolist() == [1, 1, 0.5, 0.5]


@pytest.mark.parametrize("objective", ["masked", "contrastive"])
@pytest.mark.parametrize("backbone", ["vit-mini", "cnn-small"])
def test_they_leave_a_start(objective: str, backbone: str, toy_store: Path, tmp_path: Path) -> None:
    config = PretrainConfig(backbone=backbone, objective=objective, data=toy_store, budget_samples=30, batch_size=16,
                            probe=0)
    losses = pretrain(config, tmp_path / "start", jobs=1)["curve"]["loss"]
    assert np.isfinite(losses).all()
    fresh = build_backbone(backbone, SPEC, seed=9)
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    report = load_into(tmp_path / "start", fresh, backbone, SPEC)
    assert set(report.copied) == set(before)
    assert all(not torch.equal(tensor, before[name]) for name, tensor in fresh.state_dict().items()
               if tensor.dtype.is_floating_point and tensor.ndim > 1)
    assert read_config(tmp_path / "start").simulated


@pytest.mark.parametrize("name", ["masked", "contrastive"])
@pytest.mark.parametrize("backbone", ["vit-mini", "cnn-small"])
def test_they_learn(name: str, backbone: str) -> None:
    """Ten steps on four pictures: their own loss falls."""
    rows, _ = pictures(0, np.arange(4), SPEC)
    batch = Batch(unpack(torch.from_numpy(rows), SPEC), torch.full((4, 1), math.nan), np.arange(4, dtype=np.uint64))
    torch.manual_seed(0)
    model = build_model(backbone, SPEC, 1)
    if name == "masked":
        module, objective = masked_model(model.backbone, SPEC), Masked(SPEC)
    else:
        module, objective = Projected(model), Contrastive(Augmentation().scaled(0.3))
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    losses = []
    for _ in range(10):
        loss = objective(module, batch).loss.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.97 * losses[0]
