"""Intervals cover, temperatures are found, strangers are recognised: on numbers whose truth is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.calibration.familiarity import Familiarity
from headstart.calibration.uncertainty import (
    Coverage,
    classification_calibration,
    conformal_quantile,
    log_loss,
    regression_calibration,
    tempered,
)
from headstart.errors import HeadstartError


def ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
    """A model whose training errors say little of its errors on others: 10 features for 24 people."""
    return new @ np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y)


def test_intervals_of_a_refit_cover_new_people_as_often_as_they_say() -> None:
    rng, covered, told = np.random.default_rng(0), [], []
    for _ in range(150):
        x, noise = rng.normal(size=(330, 10)), rng.standard_t(4, 330)
        y = x @ rng.normal(size=10) + noise
        folds = np.arange(30) % 5
        held_out = np.concatenate([ridge(x[:30][folds != k], y[:30][folds != k], x[:30][folds == k]) for k in range(5)])
        order = np.argsort(folds, kind="stable")
        found = regression_calibration(y[:30][order], held_out, [str(k) for k in folds[order]])
        assert found.half_width is not None
        covered.append(np.mean(np.abs(y[30:] - ridge(x[:30], y[:30], x[30:])) <= found.half_width))
        told.append(found.coverage["inside"].value)
    assert 0.89 <= np.mean(covered) <= 0.96  # a refit has more scans than a fold's model: a little too wide
    assert np.mean(told) == pytest.approx(np.mean(covered), abs=0.04)


def test_errors_on_training_scans_would_not_cover() -> None:
    rng, covered = np.random.default_rng(1), []
    for _ in range(50):
        x = rng.normal(size=(330, 10))
        y = x @ rng.normal(size=10) + rng.standard_t(4, 330)
        width = conformal_quantile(np.abs(y[:30] - ridge(x[:30], y[:30], x[:30])))
        covered.append(np.mean(np.abs(y[30:] - ridge(x[:30], y[:30], x[30:])) <= width))
    assert np.mean(covered) < 0.85  # so the test above can fail


@pytest.mark.parametrize(("n", "rank"), [(8, None), (9, 9), (19, 18), (99, 90)])
def test_the_quantile_counts_the_new_person(n: int, rank: int | None) -> None:
    assert conformal_quantile(np.arange(1.0, n + 1)[::-1]) == rank


def test_too_few_people_give_no_interval_and_say_so() -> None:
    found = regression_calibration(np.arange(8.0), np.zeros(8), ["0"] * 4 + ["1"] * 4)
    assert found.interval(40.0) is None
    assert "too few" in found.sentences("years")[0]


def test_coverage_at_new_sites_is_counted_and_not_promised() -> None:
    rng = np.random.default_rng(2)
    truth = rng.uniform(20, 80, 50)
    found = regression_calibration(truth, truth + rng.normal(0, 5, 50), ["0"] * 25 + ["1"] * 25,
                                   outside=np.abs(rng.normal(12, 5, 14)))
    assert found.coverage["outside"].n == 14
    assert found.coverage["outside"].value < 0.6
    assert "not valid at a new site" in found.sentences("years")[0]
    assert found.targets == (truth.min(), truth.max())


def test_coverage_has_the_interval_of_wilson() -> None:
    found = Coverage.of([True] * 9 + [False])
    assert (round(found.low, 3), round(found.high, 3)) == (0.596, 0.982)  # R: prop.test(9, 10, correct = FALSE)


def test_the_temperature_that_made_probabilities_too_sure_is_found() -> None:
    rng = np.random.default_rng(3)
    honest = tempered(rng.dirichlet(np.ones(3), 4000), 1.0)
    truth = np.array([rng.choice(3, p=row) for row in honest])
    sure = tempered(honest, 1 / 2.5)
    found = classification_calibration((truth[:2000], sure[:2000]), (truth[2000:], sure[2000:]))
    assert found.temperature == pytest.approx(2.5, rel=0.1)
    before, after = found.log_loss
    assert after < before
    assert after == pytest.approx(log_loss(truth[2000:], honest[2000:]), abs=0.01)


@pytest.fixture(scope="module")
def summary() -> tuple[Familiarity, np.random.Generator]:
    rng = np.random.default_rng(4)
    mix = rng.normal(size=(8, 64))

    def people(n: int) -> np.ndarray:
        return rng.normal(size=(n, 8)) * np.arange(8, 0, -1) @ mix + rng.normal(size=(n, 64))

    train = people(100)
    return Familiarity.of(train, Familiarity.of(train).distance(people(99))), rng


def test_new_people_are_flagged_as_rarely_as_promised(summary) -> None:
    familiarity, _ = summary
    rng = np.random.default_rng(4)
    mix = rng.normal(size=(8, 64))
    new = rng.normal(size=(3000, 8)) * np.arange(8, 0, -1) @ mix + rng.normal(size=(3000, 64))
    p = np.array([familiarity.p_value(d) for d in familiarity.distance(new)])
    assert np.mean(p <= familiarity.alarm) <= 0.06
    assert 0.35 <= p.mean() <= 0.65


def test_strangers_are_flagged(summary) -> None:
    familiarity, rng = summary
    strangers = familiarity.mean + 20 * rng.normal(size=(50, 64))
    assert all(familiarity.p_value(d) <= familiarity.alarm for d in familiarity.distance(strangers))


def test_the_summary_survives_its_file_and_damage_is_said(summary, tmp_path: Path) -> None:
    familiarity, rng = summary
    path = tmp_path / "features.safetensors"
    familiarity.write(path)
    features = rng.normal(size=(5, 64))
    assert Familiarity.read(path).distance(features) == pytest.approx(familiarity.distance(features), rel=1e-4)
    content = path.read_bytes()
    for damaged in (content[:100], b"", content.replace(b"axis_sd", b"axis_xx"), content[:-4] + b"\xff" * 4):
        path.write_bytes(damaged)
        with pytest.raises(HeadstartError, match=r"features\.safetensors"):
            Familiarity.read(path)
