"""Everyone tested outside, pooled over tasks that leave out different sites of one cohort."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pretend import AGE, OUTSIDE, PD, plan, predicted, write_pretend
from sklearn.metrics import roc_auc_score

from headstart.benchmark import Benchmark, read
from headstart.benchmark.plan import PlannedTask
from headstart.benchmark.results import FLOORS, PREDICTIONS, TASKS, read_floors, write_floors
from headstart.benchmark_report.collect import Key, Study, by_partition
from headstart.benchmark_report.page import write
from headstart.benchmark_report.pooled import PooledGain, pooled_gains, pools
from headstart.benchmark_report.tables import pooled_table
from headstart.evaluation.predictions import PARTITIONS, Predictions, read_tsv
from headstart.evaluation.statistics import Bootstrap

REPLICATES = 150
SITES = ("sim-a", "sim-b", "sim-c")


def leaving_out(task: PlannedTask, site: str) -> PlannedTask:
    inside = tuple(other for other in SITES if other != site)
    return task.model_copy(update={"name": f"{task.name}-without-{site}", "inside_sites": inside,
                                   "outside_sites": (site,)})


def moved(table: Predictions, name: str) -> Predictions:
    """The same outside predictions of other people, at the site that the task leaves out; a scale of its own."""
    outside = table.partition == "outside"
    site = np.where(outside, name.rpartition("-without-")[2], table.site)
    people = np.array([f"{one}-{name}" if out else one for one, out in zip(table.participant_id, outside, strict=True)],
                      dtype=object)
    return replace(table, participant_id=people, site=site, subject=people)


TASKS_LEFT_OUT = tuple(leaving_out(task, site) for task in (PD, AGE) for site in ("sim-a", "sim-c"))
PLAN = plan(TASKS_LEFT_OUT, ("scratch", "synthetic-mri"), ("full",), seeds=3, backbones=("vit-mini",))


def drawn(draw: int) -> Study:
    """Two equal starts, without files and floors."""
    tables = {Key(task.name, "vit-mini", upstream, "full"): by_partition(Predictions.concatenate([moved(predicted(
        task, seed, 0.8, [draw, seed, number, len(task.name), *task.name.encode()], draw), task.name)
        for seed in PLAN.seeds])) for task in PLAN.tasks for number, upstream in enumerate(PLAN.upstreams)}
    bootstraps = {partition: Bootstrap(REPLICATES, number) for number, partition in enumerate(PARTITIONS)}
    return Study(Benchmark(Path("nowhere"), PLAN, ()), bootstraps, {}, tables, {task.name: {} for task in PLAN.tasks})


def written(folder: Path, knows: dict[str, float]) -> Study:
    write_pretend(folder, PLAN, knows=knows, overlap="synthetic-mri")
    for result in read(folder).done:
        path = result.folder / PREDICTIONS
        moved(read_tsv(path), result.cell.task).write_tsv(path)
    for task in PLAN.tasks:
        path = folder / TASKS / task.name / FLOORS
        write_floors(path, {name: moved(table, task.name) for name, table in read_floors(path).items()})
    return Study.of(read(folder), REPLICATES)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return written(tmp_path_factory.mktemp("pooled"), {"synthetic-mri": 1.5})


def against_scratch(study: Study) -> dict[str, PooledGain]:
    return {one.metric.name: one for one in pooled_gains(study) if one.other == "scratch"}


def test_values_are_those_of_a_plain_computation(study: Study) -> None:
    found = against_scratch(study)
    assert set(found) == {"mae", "r_within_site", "auroc_within_site"}
    for name, one in found.items():
        scores = {upstream: np.mean([_plain(study, name, one, upstream, seed) for seed in range(3)])
                  for upstream in ("synthetic-mri", "scratch")}
        assert (one.score.value, one.other_score.value) == pytest.approx(tuple(scores.values()))
        better = scores["synthetic-mri"] - scores["scratch"]
        assert one.gain.absolute.value == pytest.approx(-better if name == "mae" else 100 * better)
        assert one.gain.absolute.n == 2 * OUTSIDE


def _plain(study: Study, metric: str, one: PooledGain, upstream: str, seed: int) -> float:
    tables = [parts["outside"] for key, parts in study.tables.items()
              if key.upstream == upstream and key.task in {task.name for task in one.pool.tasks}]
    parts = [table.select(table.seed == seed) for table in tables]
    truth, output = (np.concatenate([getattr(part, name) for part in parts]) for name in ("truth", "prediction"))
    if metric == "mae":
        return float(np.abs(truth - output).mean())
    if metric == "r_within_site":
        centred = [np.concatenate([values - values.mean() for part in parts for values in [getattr(part, name)]])
                   for name in ("truth", "prediction")]
        return float(np.corrcoef(*centred)[0, 1])
    areas = [roc_auc_score(part.truth, part.probabilities[:, 1]) for part in parts]
    pairs = [(part.truth == 1).sum() * (part.truth == 0).sum() for part in parts]
    return float(np.average(areas, weights=pairs))


def test_a_gain_is_told_and_shown_by_site(study: Study) -> None:
    for one in against_scratch(study).values():
        assert one.verdict == "better"
        assert one.gain.absolute.low > 0
        assert (set(one.by_site), one.same_sign) == ({"sim-a", "sim-c"}, True)
        assert all(found.n == OUTSIDE for found in one.by_site.values())


def test_a_difference_in_level_between_the_models_is_no_score(study: Study) -> None:
    """All of one site above all of the other: neither helps nor harms what is compared within sites."""
    name = next(key for key in study.tables if key.upstream == "scratch" and key.task == "brain-age-without-sim-a")
    before = against_scratch(study)["r_within_site"].gain.absolute.value
    tables = {key: dict(parts) for key, parts in study.tables.items()}
    outside = tables[name]["outside"]
    tables[name]["outside"] = replace(outside, prediction=outside.prediction + 40)
    shifted = Study(study.benchmark, study.bootstraps, study.cells, tables, study.floors)
    assert against_scratch(shifted)["r_within_site"].gain.absolute.value == pytest.approx(before)
    assert against_scratch(shifted)["mae"].gain.absolute.value > 10


def test_two_equal_starts_are_rarely_told_apart(long: bool) -> None:
    """Without adjustment: one in twenty of the pooled comparisons with scratch, up to chance."""
    studies, alarms, asked = (200 if long else 15), 0, 0
    for draw in range(studies):
        for one in against_scratch(drawn(draw)).values():
            asked, alarms = asked + 1, alarms + (one.gain.p < 0.05)
            assert (one.gain.p < 0.04) <= (one.gain.absolute.low > 0 or one.gain.absolute.high < 0)
    independent = asked * 2 / 3  # the two scores of age go together
    assert alarms / asked <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / independent)


def test_only_tasks_that_leave_out_different_sites_of_one_cohort_are_pooled(tmp_path: Path) -> None:
    other = AGE.model_copy(update={"name": "age-elsewhere", "inside_sites": ("far",)})
    again = AGE.model_copy(update={"name": "age-again"})
    made = plan((AGE, other, again), ("scratch",), ("full",), seeds=1, backbones=("vit-mini",))
    assert pools(Study.of(read(write_pretend(tmp_path, made)), REPLICATES)) == []


def test_a_start_that_may_have_seen_the_tested_people_is_marked(study: Study) -> None:
    starts = {row[2].text for row in pooled_table(pooled_gains(study)).rows}
    assert starts == {"scratch", "synthetic-mri †"}


def test_the_page_has_the_table_and_floors(study: Study) -> None:
    page = write(study.benchmark.folder, REPLICATES).read_text(encoding="utf-8")
    assert "Everyone tested outside" in page
    assert "same sign at every site" in page
    assert 'download="pooled.csv"' in page
