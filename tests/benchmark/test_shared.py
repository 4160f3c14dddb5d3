"""Who is trained and tested on: nested, balanced, the same for every row, and nobody on two sides."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tiny_benchmark import write_config

from headstart.benchmark.config import load_config
from headstart.benchmark.resolve import make_plan
from headstart.benchmark.shared import TaskData, ensure_store, evenly_spread, features_once, open_task, store_ready
from headstart.brains.store import Store
from headstart.errors import HeadstartError
from headstart.simulation.base import DRAWN_VERSION

AD = {"task": "ad", "store": "$TINY_STORE", "outside_sites": ["c"]}


@pytest.fixture
def opened(tmp_path: Path) -> TaskData:
    config = load_config(write_config(tmp_path / "tiny.yaml", tasks=[AD], rows=[
        {"backbone": "cnn-small", "upstream": "scratch"}], train_sizes=[8, 12, "full"]))
    plan = make_plan(config)
    return open_task(tmp_path, plan, plan.tasks[0])


def test_a_smaller_training_set_is_part_of_the_larger(opened: TaskData) -> None:
    for seed in range(3):
        sets = [set(np.concatenate(opened.training(size, seed)[:2]).tolist()) for size in (8, 12, "full")]
        assert sets[0] < sets[1] < sets[2]
        assert [len(one) for one in sets] == [8, 12, 16]


def test_small_training_sets_are_spread_over_classes_and_sites_as_all_people_are(opened: TaskData) -> None:
    share = np.mean([subject.target for subject in opened.pool])
    at_a = np.mean([subject.site == "a" for subject in opened.pool])
    for seed in range(10):
        train, validation, people = opened.training(8, seed)
        assert people == 8
        chosen = np.concatenate([train, validation])
        assert abs(opened.data.targets[chosen].sum() - 8 * share) <= 1.5
        assert abs(sum(opened.data.scans[i].site == "a" for i in chosen) - 8 * at_a) <= 2.5
        assert set(opened.data.targets[validation]) == {0.0, 1.0}


def test_the_tested_people_are_the_same_for_every_seed_and_size(opened: TaskData) -> None:
    tested = {(tuple(inside.test), tuple(outside.test)) for seed in range(3) for size in (8, "full")
              for inside, outside in [opened.cells(size, seed)]}
    assert len(tested) == 1
    assert {opened.data.scans[i].site for i in opened.outside} == {"c"}
    assert len(opened.test) == 6


def test_seeds_draw_other_people(opened: TaskData) -> None:
    drawn = {tuple(sorted(np.concatenate(opened.training(8, seed)[:2]))) for seed in range(5)}
    assert len(drawn) == 5


@pytest.mark.parametrize("count", [1, 2, 7, 90, 1000])
def test_every_beginning_is_spread_evenly(count: int) -> None:
    order = evenly_spread(count)
    assert sorted(order) == list(range(count))
    for n in (count // 4, count // 2):
        halves = sum(place < count / 2 for place in order[:n])
        assert abs(halves - n / 2) <= 2


def test_a_simulator_that_draws_otherwise_makes_brains_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(write_config(tmp_path / "tiny.yaml", tasks=[
        {"task": "brain-age", "simulate": {"cohort": "ageing", "n": 8, "sites": 2}, "outside_sites": ["sim-b"]}]))
    plan = make_plan(config)
    plan.claim(tmp_path)
    ensure_store(tmp_path, plan, plan.tasks[0], jobs=1)
    assert store_ready(tmp_path, plan, plan.tasks[0])
    monkeypatch.setattr("headstart.benchmark.resolve.DRAWN_VERSION", DRAWN_VERSION + 1)
    now = make_plan(config)
    assert not store_ready(tmp_path, now, now.tasks[0])
    assert not {cell.digest for cell in now.cells} & {cell.digest for cell in plan.cells}
    with pytest.raises(HeadstartError, match="holds another benchmark"):  # or cells on two cohorts would be compared
        now.claim(tmp_path)


def test_other_label_maps_at_the_same_place_make_other_cells(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    config = load_config(write_config(tmp_path / "tiny.yaml", tasks=[
        {"task": "brain-age", "outside_sites": ["sim-b"],
         "simulate": {"cohort": "ageing", "n": 8, "sites": 2, "generator": "labelmaps", "labelmaps": str(maps)}}]))
    cells = []
    for content in (b"one", b"two"):
        (maps / "m.nii").write_bytes(content)
        cells.append({cell.digest for cell in make_plan(config).cells})
    assert not cells[0] & cells[1]


def test_a_moved_benchmark_finds_its_brains(tmp_path: Path) -> None:
    plan = make_plan(load_config(write_config(tmp_path / "tiny.yaml", tasks=[
        {"task": "brain-age", "simulate": {"cohort": "ageing", "n": 8, "sites": 2}, "outside_sites": ["sim-b"]}])))
    ensure_store(tmp_path / "here", plan, plan.tasks[0], jobs=1)
    (tmp_path / "here").rename(tmp_path / "there")
    assert store_ready(tmp_path / "there", plan, plan.tasks[0])
    assert len(Store.open(ensure_store(tmp_path / "there", plan, plan.tasks[0], jobs=1))) == 8


def test_features_are_made_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> np.ndarray:
        calls.append(1)
        return np.arange(6, dtype=np.float32).reshape(3, 2)

    for _ in range(3):
        np.testing.assert_array_equal(features_once(tmp_path, "key", make), [[0, 1], [2, 3], [4, 5]])
    assert len(calls) == 1
