from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from headstart.errors import HeadstartError
from headstart.evaluation.delong import delong
from headstart.evaluation.metrics import METRICS
from headstart.evaluation.predictions import Predictions
from headstart.evaluation.statistics import Bootstrap, Crossed, Paired, Sampled, holm


def table(truth: np.ndarray, output: np.ndarray, classes: tuple[str, ...] = (), *, partition: str = "inside",
          subject: np.ndarray | None = None) -> Predictions:
    """One row a scan and seed; ``output`` is (seeds, n) numbers, or (seeds, n, C) probabilities."""
    seeds, n = output.shape[:2]
    names = np.array([f"sub-{i:03d}" for i in range(n)] * seeds, dtype=object)
    flat = output.reshape(seeds * n, *output.shape[2:])
    return Predictions(
        dataset=np.full(seeds * n, "d", dtype=object), participant_id=names,
        session=np.full(seeds * n, "", dtype=object),
        site=np.array([f"site{i % 2}" for i in range(n)] * seeds, dtype=object),
        subject=names if subject is None else np.tile(subject, seeds), seed=np.repeat(np.arange(seeds), n),
        partition=np.full(seeds * n, partition, dtype=object), truth=np.tile(truth, seeds).astype(float),
        prediction=flat.argmax(1).astype(float) if classes else flat, classes=classes,
        probabilities=flat if classes else None)


def two_classes(score: np.ndarray) -> np.ndarray:
    """Scores as probabilities of two classes, last axis."""
    p = 1 / (1 + np.exp(-score))
    return np.stack([1 - p, p], -1)


def paired_scores(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    positive = np.arange(n) % 3 == 0
    shared = random.normal(size=n) + positive
    return positive, np.round(shared + random.normal(size=n), 1), np.round(shared + random.normal(size=n), 1)


def delong_by_definition(positive: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Difference and variance from the kernel matrix itself (DeLong et al. 1988, equations 4 to 6)."""
    kernels = []
    for score in (a, b):
        pairs = [[float(x > y) + 0.5 * float(x == y) for y in score[~positive]] for x in score[positive]]
        kernels.append(np.array(pairs))
    v10, v01 = (np.stack([kernel.mean(axis) for kernel in kernels]) for axis in (1, 0))
    covariance = np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]
    contrast = np.array([1.0, -1.0])
    return float(kernels[0].mean() - kernels[1].mean()), float(contrast @ covariance @ contrast)


@pytest.mark.parametrize(("n", "seed"), product((12, 40), (0, 1, 2)))
def test_delong_equals_its_definition(n: int, seed: int) -> None:
    positive, a, b = paired_scores(n, seed)
    difference, variance = delong_by_definition(positive, a, b)
    found = delong(positive, a, b)
    assert found.difference == pytest.approx(difference)
    assert found.standard_error**2 == pytest.approx(variance)


def test_delong_is_not_fooled_by_repeated_sessions() -> None:
    positive, a, b = paired_scores(40, 3)
    once, subject = delong(positive, a, b), np.arange(40)
    thrice = delong(np.tile(positive, 3), np.tile(a, 3), np.tile(b, 3), np.tile(subject, 3))
    naive = delong(np.tile(positive, 3), np.tile(a, 3), np.tile(b, 3))
    assert thrice.standard_error == pytest.approx(once.standard_error, rel=0.02)
    assert naive.standard_error < 0.7 * once.standard_error


def test_holm_by_hand() -> None:
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_sessions_and_seeds_of_a_subject_add_no_certainty() -> None:
    random = np.random.default_rng(0)
    truth, error = random.normal(size=40), random.normal(size=40)
    once = Bootstrap().estimate(table(truth, (truth + error)[None]), METRICS["mae"])
    copied = table(np.tile(truth, 3), np.tile(np.tile(truth + error, 3), (2, 1)), subject=np.tile(
        [f"s{i:02d}" for i in range(40)], 3))
    again = Bootstrap().estimate(copied, METRICS["mae"])
    assert (once.n, again.n) == (40, 40)
    assert again.high - again.low == pytest.approx(once.high - once.low, rel=0.01)


def test_estimates_are_reproducible_and_hold_their_value() -> None:
    random = np.random.default_rng(1)
    predictions = table(random.normal(size=30), random.normal(size=(3, 30)))
    first, second = (Bootstrap(seed=4).estimate(predictions, METRICS["r"]) for _ in range(2))
    assert first == second
    assert first.low <= first.value <= first.high


def test_what_is_undefined_says_why() -> None:
    flat = table(np.zeros(8), two_classes(np.random.default_rng(0).normal(size=(1, 8))), ("a", "b"))
    found = Bootstrap(100).estimate(flat, METRICS["auroc"])
    assert (found.value, found.low, found.n, found.reason) == (None, None, 8, "all scans are of one class")
    assert Bootstrap(100).estimate(flat.part("outside"), METRICS["auroc"]).n == 0


def test_a_comparison_needs_the_same_scans() -> None:
    random = np.random.default_rng(2)
    a = table(random.normal(size=30), random.normal(size=(3, 30)))
    with pytest.raises(HeadstartError, match="same scans and seeds"):
        Bootstrap(50).compare(a, a.select(np.arange(60)), METRICS["mae"])
    shuffled = a.select(random.permutation(len(a)))
    assert Bootstrap(50).compare(a, shuffled, METRICS["mae"]).difference.value == pytest.approx(0)


def test_intervals_cover_the_truth(long: bool) -> None:
    """Of the MAE of normal errors, whose expectation is known, at a small n."""
    random, expected, trials = np.random.default_rng(3), np.sqrt(2 / np.pi), 2000 if long else 250
    hits = 0
    for _ in range(trials):
        found = Bootstrap(300).estimate(table(np.zeros(25), random.normal(size=(1, 25))), METRICS["mae"])
        hits += found.low <= expected <= found.high
    assert 0.95 - 3.5 * np.sqrt(0.0475 / trials) <= hits / trials


@pytest.mark.parametrize(("name", "seed_spread", "seeds"), [
    ("mae", 0.0, 3), ("mae", 0.2, 3), ("mae", 0.4, 3), ("mae", 0.4, 5), ("auroc", 0.4, 3), ("r", 0.8, 3)])
def test_two_identical_starts_are_rarely_told_apart(name: str, seed_spread: float, seeds: int, long: bool) -> None:
    """A true null: both models are drawn alike, with seeds that are better or worse for everybody."""
    random, trials, rejected = np.random.default_rng(5), 2000 if long else 200, 0
    for _ in range(trials):
        found = _null(name, seed_spread, seeds, random)
        rejected += found.p < 0.05
        excludes_zero = found.difference.low > 0 or found.difference.high < 0
        assert excludes_zero == (found.p < 0.05)
    assert rejected / trials <= 0.05 + 3 * np.sqrt(0.0475 / trials)


def _null(name: str, seed_spread: float, seeds: int, random: np.random.Generator) -> Paired:
    truth, shared = random.normal(size=50), random.normal(0, 0.5, 50)
    skill = 0.6 * (1 + seed_spread * random.normal(size=(2, seeds, 1)))
    outputs = skill * truth + shared + random.normal(0, 0.5, (2, seeds, 50))
    if name == "auroc":
        a, b = (table(truth > 0, two_classes(output), ("no", "yes")) for output in outputs)
    else:
        a, b = (table(truth, output) for output in outputs)
    return Bootstrap(200).compare(a, b, METRICS[name])


@pytest.mark.parametrize(("of_people", "of_seeds", "seeds"), [(1, 0.1, 3), (1, 0.3, 3), (0.3, 0.4, 3), (0, 1, 3),
                                                              (1, 0.3, 5), (0.3, 0.4, 5)])
def test_small_p_values_are_as_rare_as_they_say(of_people: float, of_seeds: float, seeds: int) -> None:
    """Holm's correction rests on p of a thousandth: one t with Satterthwaite's freedom gives a dozen times as many."""
    random, people, trials = np.random.default_rng(7), 100, 4000
    variances = np.array([of_people**2 / people, of_seeds**2 / seeds])
    freedom = np.array([people - 1, seeds - 1])
    values = np.sqrt(variances.sum()) * random.standard_normal(trials)
    estimated = variances * random.chisquare(freedom, (trials, 2)) / freedom
    for level, most in ((0.95, 1.1), (0.999, 2.6)):
        reaches = np.array([Crossed(*pair, people, seeds).reach(level) for pair in estimated])
        assert (np.abs(values) > reaches).mean() <= most * (1 - level)


def test_an_interval_of_few_seeds_reaches_as_far_as_they_scatter() -> None:
    """Nothing but seeds: the interval is Student's, and p is that of the t test."""
    values = np.array([1.0, 2.0, 4.5])
    apart = Sampled(values, np.tile(values, (50, 1)), np.tile(values, (20, 1)))
    found, p = Bootstrap(50).crossed(apart, 20)
    expected = ttest_1samp(values, 0)
    assert p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_a_score_keeps_to_its_range() -> None:
    values = np.array([0.9, 1.0, 0.98])
    draws = np.clip(values + np.random.default_rng(0).normal(0, 0.01, (200, 1)), 0, 1)
    found = Bootstrap(200).score(Sampled(values, draws, draws[:20]), 20, METRICS["auroc"])
    assert found.high == 1
    assert found.low < 0.9


def test_a_real_difference_is_found() -> None:
    random = np.random.default_rng(6)
    truth = random.normal(size=60)
    good, bad = (table(truth, truth + random.normal(0, spread, (8, 60))) for spread in (0.4, 1.0))
    found = Bootstrap().compare(good, bad, METRICS["mae"])
    assert found.p < 0.001
    assert found.difference.high < 0
    assert found.p_delong is None
