from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from headstart.errors import HeadstartError
from headstart.evaluation import linear
from headstart.evaluation.floors import FLOORS, FloorInputs, all_floors, floor_predictions, possible_floors
from headstart.evaluation.metrics import METRICS
from headstart.evaluation.predictions import Predictions


def score(table: Predictions, name: str, partition: str = "inside") -> float:
    part = table.part(partition)
    return float(np.mean([METRICS[name](part.select(part.seed == seed).outcome())[0] for seed in part.seeds]))


def test_every_floor_predicts_every_test_scan_once_a_seed(age_inputs: FloorInputs, cells: list) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        floors = all_floors(age_inputs, cells)
    assert tuple(floors) == tuple(FLOORS)
    tables = [table.sorted() for table in floors.values()]
    assert all(table.same_rows(tables[0]) for table in tables)
    assert len(tables[0]) == 3 * 60
    assert len(set(zip(tables[0].keys, tables[0].seed.tolist(), tables[0].partition, strict=True))) == 3 * 60


def test_voxels_carry_age_and_the_constant_does_not(age_inputs: FloorInputs, cells: list) -> None:
    voxels, constant = (floor_predictions(name, age_inputs, cells) for name in ("voxels", "constant"))
    for partition in ("inside", "outside"):
        assert score(voxels, "mae", partition) < 0.6 * score(constant, "mae", partition)
    assert len(set(constant.part("inside").prediction[constant.part("inside").seed == 0])) == 1


def test_the_outline_tells_sex_where_intensities_do_not(sex_inputs: FloorInputs, cells: list) -> None:
    assert score(floor_predictions("mask", sex_inputs, cells), "auroc") > 0.9
    assert score(floor_predictions("constant", sex_inputs, cells), "auroc") == 0.5
    assert score(floor_predictions("tissue", sex_inputs, cells), "auroc") < 0.75


def test_no_floor_sees_the_target(age_inputs: FloorInputs, sex_inputs: FloorInputs) -> None:
    assert np.isnan(age_inputs.age_and_sex[:, 0]).all()
    assert np.isnan(sex_inputs.age_and_sex[:, 1]).all()
    assert "site" not in possible_floors(replace(age_inputs, column="site"))


def test_test_targets_change_nothing_of_their_own_prediction(age_inputs: FloorInputs, cells: list) -> None:
    """Outside there is one cell a seed, so that no training set holds a test target."""
    outside = [cell for cell in cells if cell.outside]
    scrambled = age_inputs.target.copy()
    scrambled[45:] = scrambled[45:][::-1] + 100
    for name in FLOORS:
        before, after = (floor_predictions(name, inputs, outside) for inputs in (
            age_inputs, replace(age_inputs, target=scrambled)))
        np.testing.assert_array_equal(before.prediction, after.prediction)


def test_a_new_site_gets_the_constant(sex_inputs: FloorInputs, cells: list) -> None:
    site, constant = (floor_predictions(name, sex_inputs, cells).part("outside") for name in ("site", "constant"))
    np.testing.assert_allclose(site.probabilities, constant.probabilities)


def test_weak_predictors_do_not_fall_below_chance_by_pooling(age_inputs: FloorInputs, cells: list) -> None:
    """A fold's mean runs against its held-out truth: unanchored, r of noise would be clearly negative."""
    found = []
    for seed in range(6):
        noise = np.random.default_rng(seed).normal(0.5, 0.2, age_inputs.rows.shape).astype(np.float16)
        r = score(floor_predictions("voxels", replace(age_inputs, rows=noise), cells), "r")
        found.append(0.0 if np.isnan(r) else r)
    assert abs(np.mean(found)) < 0.15


def test_floors_without_voxels_and_unknown_floors(age_inputs: FloorInputs, cells: list) -> None:
    bare = replace(age_inputs, rows=None)
    assert possible_floors(bare) == ("constant", "age_sex", "site")
    with pytest.raises(HeadstartError, match="needs the voxels"):
        floor_predictions("voxels", bare, cells)
    with pytest.raises(HeadstartError, match="unknown floor"):
        floor_predictions("tea_leaves", age_inputs, cells)


def test_dual_ridge_equals_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    x, train, test = random.normal(size=(40, 120)), np.arange(30), np.arange(30, 40)
    y = x[:, 0] + random.normal(size=40)
    monkeypatch.setattr(linear, "PENALTIES", np.array([0.5]))
    centred = x - x[train].mean(0)
    variance = np.linalg.svd(centred[train], compute_uv=False) ** 2
    penalty = 0.5 * variance[variance > 1e-6 * (x[train] ** 2).sum(1).mean()].mean()
    expected = Ridge(alpha=penalty).fit(x[train], y[train]).predict(x[test])
    np.testing.assert_allclose(linear.fit_number(x @ x.T, y, train, test, train), expected, rtol=1e-6)


def test_classes_by_dual_ridge_equal_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    x, train, test = random.normal(size=(60, 100)), np.arange(45), np.arange(45, 60)
    y = np.arange(60) % 3
    x[:, 0] += y
    monkeypatch.setattr(linear, "PENALTIES", np.array([0.1]))
    centred = x - x[train].mean(0)
    penalty = 0.1 * (np.linalg.svd(centred[train], compute_uv=False)[:44] ** 2).mean()
    values = Ridge(alpha=penalty).fit(x[train], np.eye(3)[y[train]]).predict(x[test])
    expected = np.exp(2 * values) / np.exp(2 * values).sum(1, keepdims=True)
    np.testing.assert_allclose(linear.fit_classes(x @ x.T, y, train, test, train, 3), expected, rtol=1e-6)


def test_few_columns_are_read_by_logistic_regression() -> None:
    random = np.random.default_rng(0)
    x, train, test = random.normal(size=(60, 4)), np.arange(45), np.arange(45, 60)
    y = (x[:, 0] + random.normal(size=60) > 0).astype(int)
    centred = x - x[train].mean(0)
    scale = np.sqrt((np.linalg.svd(centred[train], compute_uv=False) ** 2).mean() / 45)
    expected = LogisticRegression(max_iter=1000).fit(centred[train] / scale, y[train])
    found = linear.fit_classes(x @ x.T, y, train, test, train, 2)
    np.testing.assert_allclose(found, expected.predict_proba(centred[test] / scale), atol=2e-3)


def test_inner_folds_never_split_a_subject() -> None:
    groups = np.repeat(np.arange(7), 3)
    seen = np.zeros(21, int)
    for fit, check in linear.inner_folds(groups):
        assert not set(groups[fit]) & set(groups[check])
        seen[check] += 1
    assert (seen == 1).all()
