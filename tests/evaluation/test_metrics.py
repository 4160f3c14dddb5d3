from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn import metrics as reference

from headstart.evaluation.metrics import METRICS, Outcome, metrics_for, why_undefined

N = 80


def classification(classes: int, seed: int = 0) -> Outcome:
    random = np.random.default_rng(seed)
    truth = random.integers(classes, size=N)
    score = np.exp(random.normal(size=(N, classes)) + np.eye(classes)[truth])
    p = np.round(score / score.sum(1, keepdims=True), 1) + 1e-9  # rounded, so that there are ties
    p /= p.sum(1, keepdims=True)
    return Outcome(truth.astype(float), p.argmax(1).astype(float), p, np.zeros(N, int))


def regression(seed: int = 0) -> Outcome:
    random = np.random.default_rng(seed)
    truth = random.normal(50, 12, N)
    return Outcome(truth, 0.5 * truth + random.normal(25, 6, N), None, random.integers(3, size=N))


REFERENCES = {
    "auroc": lambda o, w: reference.roc_auc_score(o.truth, o.probabilities[:, 1], sample_weight=w),
    "auprc": lambda o, w: reference.average_precision_score(o.truth, o.probabilities[:, 1], sample_weight=w),
    "balanced_accuracy": lambda o, w: reference.balanced_accuracy_score(o.truth, o.prediction, sample_weight=w),
    "f1": lambda o, w: reference.f1_score(o.truth, o.prediction, sample_weight=w),
    "brier": lambda o, w: reference.brier_score_loss(o.truth, o.probabilities[:, 1], sample_weight=w),
    "mae": lambda o, w: reference.mean_absolute_error(o.truth, o.prediction, sample_weight=w),
    "rmse": lambda o, w: reference.root_mean_squared_error(o.truth, o.prediction, sample_weight=w),
    "r2": lambda o, w: reference.r2_score(o.truth, o.prediction, sample_weight=w),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_agrees_with_scikit_learn_at_every_weight(name: str) -> None:
    outcome = classification(2) if METRICS[name].kind == "classification" else regression()
    weights = np.random.default_rng(1).integers(0, 4, (N, 6)).astype(float)
    expected = [REFERENCES[name](outcome, column) for column in weights.T]
    np.testing.assert_allclose(METRICS[name](outcome, weights), expected, atol=1e-12)


@pytest.mark.parametrize("name", [*REFERENCES, "r", "r_within_site", "ece"])
def test_a_weight_is_a_repetition(name: str) -> None:
    outcome = classification(3) if METRICS[name].kind == "classification" else regression()
    weights = np.random.default_rng(2).integers(0, 3, N)
    rows = np.repeat(np.arange(N), weights)
    repeated = Outcome(outcome.truth[rows], outcome.prediction[rows],
                       None if outcome.probabilities is None else outcome.probabilities[rows], outcome.site[rows])
    np.testing.assert_allclose(METRICS[name](outcome, weights[:, None].astype(float)), METRICS[name](repeated))


def test_several_classes_are_the_mean_of_one_against_the_rest() -> None:
    outcome = classification(3)
    one_by_one = [reference.roc_auc_score(outcome.truth == c, outcome.probabilities[:, c]) for c in range(3)]
    assert METRICS["auroc"](outcome)[0] == pytest.approx(np.mean(one_by_one))
    assert METRICS["f1"](outcome)[0] == pytest.approx(
        reference.f1_score(outcome.truth, outcome.prediction, average="macro"))


def test_r_within_site_ignores_differences_between_sites() -> None:
    outcome = regression()
    shifted = Outcome(outcome.truth + 30 * outcome.site, outcome.prediction + 30 * outcome.site, None, outcome.site)
    assert METRICS["r_within_site"](shifted)[0] == pytest.approx(METRICS["r_within_site"](outcome)[0])
    assert METRICS["r"](shifted)[0] > METRICS["r"](outcome)[0]
    assert METRICS["r"](outcome)[0] == pytest.approx(pearsonr(outcome.truth, outcome.prediction)[0])


def test_calibration_error_of_known_probabilities() -> None:
    said = np.repeat([0.25, 0.75], 40)
    was = np.concatenate([np.arange(40) < 10, np.arange(40) < 20]).astype(float)  # 0.25 and 0.5
    outcome = Outcome(was, (said > 0.5).astype(float), np.stack([1 - said, said], 1), np.zeros(80, int))
    assert METRICS["ece"](outcome)[0] == pytest.approx(0.125)


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_degenerate_data_give_no_number_no_warning_and_a_reason(kind: str) -> None:
    empty = Outcome(np.zeros(0), np.zeros(0), np.zeros((0, 2)), np.zeros(0, int))
    flat = Outcome(np.ones(9), np.ones(9), np.tile([0.4, 0.6], (9, 1)), np.zeros(9, int))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in metrics_for(kind):
            assert np.isnan(metric(empty)[0])
            assert why_undefined(metric, empty) == "no scans"
            assert np.isfinite(metric(flat)[0]) == (metric.name in ("mae", "rmse", "brier", "ece", "f1"))
            assert "all" in why_undefined(metric, flat)


def test_a_constant_prediction_ranks_at_chance_and_has_no_correlation() -> None:
    truth = np.arange(10) % 2.0
    constant = Outcome(truth, np.zeros(10), np.tile([0.7, 0.3], (10, 1)), np.zeros(10, int))
    assert METRICS["auroc"](constant)[0] == 0.5
    assert np.isnan(METRICS["r"](constant)[0])
    assert why_undefined(METRICS["r"], constant) == "the prediction is constant"
