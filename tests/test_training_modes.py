"""What learns, and how: frozen backbones, linear probes, nearest neighbours, low-rank changes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.backbones import build_model
from headstart.brains.volumes import VOLUMES
from headstart.errors import HeadstartError
from headstart.training import Classification, Preempted, Regression, fit, predict
from headstart.training.batches import Batch
from headstart.training.heads import PENALTIES, Known, logistic_path, neighbours_path, ridge_path, standardise
from headstart.training.lora import RANK, low_rank

sys.path.insert(0, str(Path(__file__).parent))
from training_job import PLAN, SPLIT, Blobs

NOTHING = np.array([], dtype=int)


def run_fit(folder: Path | None = None, *, net, examples=None, split=SPLIT, **changes):
    plan = PLAN.model_copy(update=changes)
    return net, fit(net, Regression(), examples or Blobs(), *split, plan, seed=3, folder=folder)


def same(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


# ---------------------------------------------------------------- frozen backbones

SHUFFLED = np.random.default_rng(0).permutation(30)
MIXED = SHUFFLED[:22], SHUFFLED[22:]


class Counting(Blobs):
    read = 0

    def volumes(self, indices):
        self.read += len(indices)
        return super().volumes(indices)


@pytest.mark.parametrize("mode", ["probe", "knn"])
def test_a_head_is_found_on_features_computed_once(mode: str) -> None:
    model, examples = build_model("vit-mini", VOLUMES["4mm"], 1), Counting()
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    _, history = run_fit(net=model, examples=examples, split=MIXED, mode=mode)
    assert same(before, model.backbone.state_dict())
    assert examples.read == 30
    predicted = predict(model, examples, SHUFFLED)[:, 0]
    assert np.corrcoef(predicted[22:], examples.targets[MIXED[1]])[0, 1] > 0.9
    losses = [epoch.validation_loss for epoch in history.epochs]
    assert history.best_epoch == int(np.argmin(losses))
    again, _ = run_fit(net=build_model("vit-mini", VOLUMES["4mm"], 1), split=MIXED, mode=mode)
    assert same(again.state_dict(), model.state_dict())


@pytest.mark.parametrize(("mode", "step"), [("probe", 4), ("knn", 5)])
def test_without_validation_the_step_of_the_folds_is_taken(mode: str, step: int) -> None:
    split = SHUFFLED, NOTHING
    _, history = run_fit(net=build_model("vit-mini", VOLUMES["4mm"], 1), split=split, mode=mode, stop_after=step + 1)
    assert history.best_epoch == step
    assert history.epochs[step].validation_loss is None
    with pytest.raises(HeadstartError, match="without validation"):
        run_fit(net=build_model("vit-mini", VOLUMES["4mm"], 1), split=split, mode=mode)


def known(features: torch.Tensor, targets: np.ndarray) -> Known:
    mean, scale = features.mean(0), features.std(0, correction=0)
    return Known((features - mean) / scale, mean, scale, torch.from_numpy(targets.astype(np.float32)))


def standardised(model, targets: np.ndarray):
    objective = Regression()
    objective.prepare(model, targets)
    return objective


@pytest.mark.parametrize("count", [12, 60])  # fewer and more scans than features
def test_the_probe_is_ridge_regression(count: int) -> None:
    from sklearn.linear_model import Ridge

    rng, model = np.random.default_rng(0), build_model("cnn-small", VOLUMES["4mm"], 1)
    features = torch.from_numpy(rng.normal(3, 2, (count, 20)).astype(np.float32))
    targets = rng.normal(50, 10, (count, 1))
    train = known(features, targets)
    heads = ridge_path(train, model, standardised(model, targets))
    y = (targets[:, 0] - targets.mean()) / targets.std()
    for penalty, head in zip(PENALTIES, heads, strict=True):
        expected = Ridge(alpha=penalty * count).fit(train.features.double().numpy(), y)
        found = head(features).detach()[:, 0].numpy()
        np.testing.assert_allclose(found, expected.predict(train.features.double().numpy()), atol=1e-3)


def test_dead_features_do_not_outvote_the_others() -> None:
    rng = np.random.default_rng(0)
    alive, dead = rng.normal(0, 1, (40, 4)), np.repeat(rng.normal(0, 1e-4, (40, 1)), 500, axis=1)
    features = torch.from_numpy(np.concatenate([alive, dead], 1).astype(np.float32))
    spread = standardise(features, np.zeros((40, 1))).features.var(0, correction=0)
    torch.testing.assert_close(spread[:4], torch.ones(4))
    assert spread[4:].sum() < 0.1  # 500 at unit variance


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_tells_classes_apart_and_weighs_them_the_same(classes: int) -> None:
    rng, model = np.random.default_rng(0), build_model("cnn-small", VOLUMES["4mm"], classes)
    truth = np.repeat(np.arange(classes), (40, 10, 10)[:classes])
    features = torch.from_numpy(rng.normal(0, 1, (len(truth), 12)).astype(np.float32))
    features[np.arange(len(truth)), truth] += 4
    objective = Classification(classes)
    objective.prepare(model, truth[:, None])
    strict, *_, loose = logistic_path(known(features, truth[:, None]), model, objective)
    assert (loose(features).argmax(1).numpy() == truth).mean() > 0.95
    assert strict.weight.abs().max() < 0.1 * loose.weight.abs().max()
    probability = strict(features).softmax(1).mean(0).detach().numpy()
    np.testing.assert_allclose(probability, 1 / classes, atol=0.05)  # not the classes' share of the scans


def test_neighbours_vote() -> None:
    model = build_model("cnn-small", VOLUMES["4mm"], 1)
    targets, angles = np.arange(0, 80, 10.0)[:, None], torch.linspace(0, 1.5, 8)
    features = torch.stack([angles.cos(), angles.sin()], 1)
    train = Known(features, torch.zeros(2), torch.ones(2), torch.from_numpy(targets.astype(np.float32)))
    *_, three, one = neighbours_path(train, model, standardised(model, targets))
    assert one(3 * features).numpy() * targets.std() + targets.mean() == pytest.approx(targets, abs=1e-4)  # length: no
    assert three(features[1:2]).item() * targets.std() + targets.mean() == pytest.approx(10, abs=1e-4)
    objective = Classification(2)
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1.0])[:, None]
    objective.prepare(model, labels)
    train = train._replace(targets=torch.from_numpy(labels.astype(np.float32)))
    *_, one = neighbours_path(train, model, objective)
    assert one(features).argmax(1).tolist() == labels[:, 0].tolist()
    everyone, *_ = neighbours_path(train, model, objective)  # asks all eight: both classes weigh the same
    torch.testing.assert_close(everyone(features).softmax(1), torch.full((8, 2), 0.5))


@pytest.mark.parametrize("backbone", ["vit-mini", "resnet18"])
def test_a_frozen_backbone_stays_to_the_bit_with_its_batchnorm(backbone: str) -> None:
    model = build_model(backbone, VOLUMES["4mm"], 1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    run_fit(net=model, mode="frozen", max_epochs=1, split=(np.arange(8), np.arange(8, 10)))
    after = model.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"norm.weight", "norm.bias", "head.weight", "head.bias", "target_mean", "target_scale"}
    assert all(parameter.requires_grad for parameter in model.parameters())


# ---------------------------------------------------------------- LoRA


def test_lora_changes_the_attention_alone_and_leaves_a_plain_model() -> None:
    model = build_model("vit-mini", VOLUMES["4mm"], 1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    net, history = run_fit(net=model, mode="lora", max_epochs=1, learning_rate=1e-2)
    after = model.state_dict()
    assert list(after) == list(before)
    changed = {key for key in before if key.startswith("backbone") and not torch.equal(before[key], after[key])}
    assert changed == {f"backbone.blocks.{i}.attn.{name}.weight" for i in range(6) for name in ("qkv", "proj")}
    delta = (after["backbone.blocks.0.attn.qkv.weight"] - before["backbone.blocks.0.attn.qkv.weight"]).double()
    singular = torch.linalg.svdvals(delta)
    assert singular[RANK] < 1e-4 * singular[0]
    targets = torch.tensor(Blobs().targets[SPLIT[1]])[:, None]
    terms = Regression()(net.eval(), Batch(Blobs().volumes(SPLIT[1]), targets, SPLIT[1].astype(np.uint64)))
    assert terms.loss.mean().item() == pytest.approx(history.epochs[history.best_epoch].validation_loss, rel=1e-3)


def test_lora_begins_as_the_backbone_itself() -> None:
    backbone, volumes = build_model("vit-mini", VOLUMES["4mm"], 1).backbone.eval(), Blobs().volumes(np.arange(2))
    with torch.no_grad():
        expected = backbone(volumes)
        with low_rank(backbone, seed=0):
            torch.testing.assert_close(backbone(volumes), expected)
            assert sum("down" in name for name, _ in backbone.named_parameters()) == 12


def test_lora_stopped_and_resumed_ends_in_the_same_weights(tmp_path: Path) -> None:
    class Signalling(Blobs):
        reads = 0

        def volumes(self, indices):
            self.reads += 1
            if self.reads == 6:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().volumes(indices)

    def model():
        return build_model("vit-mini", VOLUMES["4mm"], 1)

    with pytest.raises(Preempted):
        run_fit(tmp_path, net=model(), examples=Signalling(), mode="lora", max_epochs=2)
    resumed, _ = run_fit(tmp_path, net=model(), mode="lora", max_epochs=2)
    whole, _ = run_fit(net=model(), mode="lora", max_epochs=2)
    assert same(resumed.state_dict(), whole.state_dict())


def test_lora_needs_a_transformer() -> None:
    with pytest.raises(HeadstartError, match=r"transformers.*vit backbone"):
        run_fit(net=build_model("cnn-small", VOLUMES["4mm"], 1), mode="lora")
