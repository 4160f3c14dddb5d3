"""What lies behind a mean, computed a second time from the tables of predictions by plain means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pretend import AD, INSIDE, OUTSIDE, plan, write_pretend
from sklearn.metrics import brier_score_loss, roc_auc_score

from headstart.benchmark import read
from headstart.benchmark_report.collect import Study
from headstart.benchmark_report.groups import group_gains, trust
from headstart.benchmark_report.page import write
from headstart.benchmark_report.tables import groups_table
from headstart.brains.cohort import Scan
from headstart.brains.contract import Contract
from headstart.brains.store import StoreWriter, pack
from headstart.evaluation.predictions import Predictions

REPLICATES = 60
PEOPLE = INSIDE + OUTSIDE
AGES = np.random.default_rng(3).uniform(20, 90, PEOPLE)
SEX = np.array(list("FM"))[np.random.default_rng(4).integers(2, size=PEOPLE)]
SITE = np.array([f"sim-{'ab'[i % 2]}" if i < INSIDE else "sim-c" for i in range(PEOPLE)])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """AD from scratch and from a start, on people whose age and sex their store tells."""
    store = tmp_path_factory.mktemp("people")
    contract = Contract(volume="4mm")
    empty = pack(np.zeros(contract.spec.shape, np.float32), contract.spec)
    scans = [Scan("simulated", f"sub-{i:03}", "", Path("none"), SITE[i], age_years=float(AGES[i]), sex=str(SEX[i]),
                  subject=f"simulated/sub-{i:03}", simulated=True) for i in range(PEOPLE)]
    with StoreWriter(store, contract) as writer:
        writer.append_many(scans, np.broadcast_to(empty, (PEOPLE, *empty.shape)))
    task = AD.model_copy(update={"store": str(store), "simulate": None})
    made = plan((task,), ("scratch", "synthetic-mri"), ("full",), backbones=("vit-mini",))
    return Study.of(read(write_pretend(tmp_path_factory.mktemp("groups"), made, overlap="synthetic-mri")), REPLICATES)


def tables(study: Study, upstream: str, partition: str) -> Iterator[Predictions]:
    """One for each seed."""
    every = next(parts[partition] for key, parts in study.tables.items() if key.upstream == upstream)
    return (every.select(every.seed == seed) for seed in (0, 1, 2))


def test_gains_by_site_sex_and_age_band_are_those_of_a_plain_computation(study: Study) -> None:
    members = {("site", site): site == SITE for site in ("sim-a", "sim-b")}
    members |= {("sex", sex): sex == SEX for sex in "FM"}
    members |= {("age", name): (low <= AGES) & (high > AGES) for name, low, high in (
        ("under 30", 0, 30), ("30–44", 30, 45), ("45–59", 45, 60), ("60–74", 60, 75), ("75 and over", 75, 200))}
    found = {(one.partition, one.grouping, one.group): one for one in group_gains(study)}
    outside = {("outside", *name) for name in members if name[0] != "site"}  # one site is no grouping
    assert set(found) == {("inside", *name) for name in members} | outside
    for (partition, *name), one in found.items():
        there = members[tuple(name)] & ((np.arange(PEOPLE) < INSIDE) == (partition == "inside"))
        score, scratch = (np.mean([_auroc(table, there) for table in tables(study, upstream, partition)])
                          for upstream in ("synthetic-mri", "scratch"))
        assert one.score.value == pytest.approx(score)
        assert one.gain.absolute.value == pytest.approx(100 * (score - scratch))
        assert one.gain.absolute.n == there.sum()
        assert one.floor is not None
        assert one.floor[1].n == there.sum(), "the floor is scored on the group's people only"


def test_a_start_that_may_have_seen_the_tested_people_is_marked(study: Study) -> None:
    assert {row[2].text for row in groups_table(group_gains(study), study).rows} == {"synthetic-mri †"}


def _auroc(table: Predictions, there: np.ndarray) -> float:
    chosen = [there[int(name.removeprefix("sub-"))] for name in table.participant_id]
    return roc_auc_score(table.truth[chosen], table.probabilities[chosen, 1])


def test_calibration_is_that_of_a_plain_computation(study: Study) -> None:
    for one in trust(study):
        for partition in ("inside", "outside"):
            parts = list(tables(study, one.key.upstream, partition))
            for name, by_hand in (("brier", brier_score_loss), ("ece", _ece)):
                expected = np.mean([by_hand(part.truth, part.probabilities[:, 1]) for part in parts])
                assert one.scores[partition, name].value == pytest.approx(expected)


def _ece(truth: np.ndarray, probability: np.ndarray) -> float:
    """|Mean said - share observed| of each tenth of the scale, by how many fall into it."""
    tenth = np.floor(10 * probability)
    return sum(abs(probability[tenth == k].mean() - truth[tenth == k].mean()) * (tenth == k).mean()
               for k in np.unique(tenth))


def test_marks_of_the_calibration_plot_stand_where_they_say(study: Study) -> None:
    page = write(study.benchmark.folder, REPLICATES).read_text(encoding="utf-8")
    assert 'id="groups"' in page
    plot = next(part for part in page.split("<svg")[1:] if "predicted probability" in part)
    marks = [(int(n), float(said), float(was))
             for n, said, was in re.findall(r"(\d+) scans: said ([\d.]+), was ([\d.]+)", plot)]
    expected = []
    for partition in ("inside", "outside"):
        by_seed = list(tables(study, "scratch", partition))
        said, truth = np.mean([table.probabilities[:, 1] for table in by_seed], 0), by_seed[0].truth
        bins = np.array_split(np.argsort(said, kind="stable"), min(10, len(said) // 8))
        expected += [(len(rows), said[rows].mean(), truth[rows].mean()) for rows in bins]
    np.testing.assert_allclose(marks, expected, atol=0.0051)
