from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.brains.cohort import Scan
from headstart.errors import HeadstartError
from headstart.evaluation.few_shot import inverted, monotone, worth
from headstart.evaluation.gains import Pair, apart, gain, mean_gain, mean_over_tasks, possible, same_seeds
from headstart.evaluation.metrics import METRICS
from headstart.evaluation.predictions import Predictions
from headstart.evaluation.statistics import Bootstrap, Estimate

MAE = METRICS["mae"]
BOOTSTRAP = Bootstrap(400)


def ages(error: float, seeds: tuple[int, ...] = (0, 1, 2), people: int = 30, noise: int = 0) -> Predictions:
    """Predictions that are off by about ``error`` years."""
    scans = [Scan("d", f"sub-{i:02}", "", Path("none"), "a") for i in range(people)]
    truth = np.linspace(20, 80, people)
    tables = [Predictions.of(scans, seed=seed, partition="inside", truth=truth, output=truth + error * (
        1 + 0.03 * np.random.default_rng([seed, noise]).standard_normal(people))) for seed in seeds]
    return Predictions.concatenate(tables).sorted()


def pair(start: float, other: float, seeds: tuple[int, ...] = (0, 1, 2)) -> Pair:
    found = Pair.of(ages(start, seeds, noise=1), ages(other, seeds, noise=2))
    assert found is not None
    return found


def test_a_smaller_error_is_a_gain_in_units_and_in_per_cent_of_scratch() -> None:
    found = gain(BOOTSTRAP, pair(4.0, 5.0), MAE)
    assert found.absolute.value == pytest.approx(1.0, abs=0.1)
    assert found.relative.value == pytest.approx(20, abs=2)
    assert found.absolute.low > 0
    assert (found.p < 0.01, found.p_delong, found.seeds) == (True, None, 3)


def test_only_common_seeds_are_compared_and_other_people_refused() -> None:
    found = Pair.of(ages(4, (0, 1, 2)), ages(5, (1, 2, 3)))
    assert found is not None
    assert found.start.seeds == found.other.seeds == (1, 2)
    assert Pair.of(ages(4, (0,)), ages(5, (1,))) is None
    with pytest.raises(HeadstartError, match="same scans"):
        Pair.of(ages(4), ages(5, people=20))


def test_a_mean_gain_lies_between_its_parts() -> None:
    together = same_seeds([pair(4.0, 5.0, (0, 1, 2, 3)), pair(3.0, 5.0, (1, 2, 3)), pair(1.0, 5.0, (1, 2))])
    assert [one.start.seeds for one in together] == [(1, 2, 3), (1, 2, 3)]
    assert [one.start.seeds for one in same_seeds([pair(4.0, 5.0, (0, 1)), pair(4.0, 5.0, (1, 2))])] == [(1,), (1,)]
    assert mean_gain(BOOTSTRAP, together, MAE).absolute.value == pytest.approx(1.5, abs=0.1)


def test_a_gap_has_the_variance_of_both_sides() -> None:
    tables = ages(4.0, noise=3), ages(6.0, people=40, noise=4)
    inside, outside = (Bootstrap(2000, seed).sample(table, MAE) for seed, table in enumerate(tables))
    gap = apart(inside, outside)
    assert gap.values.mean() == pytest.approx(-2, abs=0.1)
    assert gap.jackknife.shape == (70, 3)
    separate = inside.replicates.mean(1).var() + outside.replicates.mean(1).var()
    assert gap.replicates.mean(1).var() == pytest.approx(separate, rel=0.15)


def test_a_mean_over_tasks_is_wider_where_people_are_shared() -> None:
    one = Estimate(2.0, 0.0, 4.0, 30)
    apart_, p_apart = mean_over_tasks([one, one], same_people=False)
    shared, p_shared = mean_over_tasks([one, one], same_people=True)
    assert (apart_.value, apart_.n, shared.n) == (2.0, 60, 30)
    assert (shared.low, shared.high) == pytest.approx((0.0, 4.0))
    assert apart_.high - apart_.low == pytest.approx(4 / np.sqrt(2))
    assert p_apart < p_shared == pytest.approx(0.05, abs=0.001)
    assert mean_over_tasks([one, Estimate(None, None, None, 0)], same_people=False) == (
        Estimate(None, None, None, 0, "a task has no interval"), None)


def test_isotonic_means_are_those_of_the_pool_adjacent_violators() -> None:
    from sklearn.isotonic import IsotonicRegression

    curves = np.random.default_rng(0).standard_normal((5, 40))
    wanted = np.stack([IsotonicRegression().fit_transform(np.arange(5), curve) for curve in curves.T], 1)
    assert monotone(curves) == pytest.approx(wanted)


def test_a_curve_is_read_the_other_way_round() -> None:
    curve = np.array([[0.6], [0.7], [0.9]]) * np.ones((1, 5))
    found = inverted(curve, np.array([10.0, 40.0, 160.0]), np.array([0.5, 0.6, 0.65, 0.8, 0.95]))
    assert found == pytest.approx([0, 10, 20, 80, np.inf])


def test_scans_saved_have_an_interval_and_say_where_the_curve_ends() -> None:
    scratch = [BOOTSTRAP.sample(ages(error, noise=10 + k), MAE) for k, error in enumerate((8.0, 6.0, 4.0))]
    found = worth(BOOTSTRAP, scratch, (20, 60, 180), BOOTSTRAP.sample(ages(5.0, noise=20), MAE), 20, MAE)
    assert found is not None
    assert found.value == pytest.approx(60 * np.sqrt(3), rel=0.15)
    assert found.low <= found.value <= found.high
    assert not any((*found.at_least, *found.at_most))
    assert found.saved == pytest.approx(found.value - 20)
    beyond = worth(BOOTSTRAP, scratch, (20, 60, 180), BOOTSTRAP.sample(ages(1.0, noise=21), MAE), 20, MAE)
    assert beyond is not None
    assert (beyond.at_least, beyond.value) == ((True, True, True), 180)
    below = worth(BOOTSTRAP, scratch, (20, 60, 180), BOOTSTRAP.sample(ages(12.0, noise=22), MAE), 20, MAE)
    assert below is not None
    assert (below.at_most, below.value) == ((True, True, True), 20)
    assert worth(BOOTSTRAP, scratch[:1], (20,), scratch[0], 20, MAE) is None


def test_no_gain_in_auroc_can_be_beyond_what_two_scores_differ_by() -> None:
    wide = Estimate(60.0, -110.0, 230.0, 6)
    assert possible(wide, METRICS["auroc"]) == Estimate(60.0, -100.0, 100.0, 6)
    assert possible(wide, MAE) == wide
    assert possible(Estimate(None, None, None, 0, "none"), MAE).value is None
