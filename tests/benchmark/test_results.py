"""Folders of benchmarks are read as they were written."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from made_up import AD, made_up_plan, write_made_up

from headstart.benchmark import read, read_plan
from headstart.benchmark.results import CELL, FLOORS, PREDICTIONS, TASKS, cell_folder
from headstart.errors import HeadstartError


def test_a_folder_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = made_up_plan()
    found = read(write_made_up(tmp_path, plan))
    assert found.plan == plan
    assert len(found.cells) == 2 * 6 * 2 * 3
    assert [result.cell for result in found.cells] == list(plan.cells)
    assert len(found.failed) == 1
    assert "diverged" in str(found.failed[0].record.error)


def test_predictions_and_floors_are_of_the_same_people(tmp_path: Path) -> None:
    found = read(write_made_up(tmp_path))
    floors = found.floors("ad")
    assert set(floors) == {(floor, size) for floor in ("constant", "voxels") for size in (20, "full")}
    cells = [result.predictions for result in found.done if result.cell.task == "ad"]
    for table in cells:
        same = floors["voxels", "full"].select(floors["voxels", "full"].seed == table.seed[0])
        assert table.sorted().same_rows(same.sorted())
        np.testing.assert_array_equal(table.sorted().truth, same.sorted().truth)


@pytest.mark.parametrize("text", ["", "x\n", "floor\ttrain_size\n"])
def test_torn_floors_are_named(tmp_path: Path, text: str) -> None:
    found = read(write_made_up(tmp_path))
    (tmp_path / TASKS / "ad" / FLOORS).write_text(text)
    with pytest.raises(HeadstartError, match=r"floors\.tsv: is not a table of floors. Remove it"):
        found.floors("ad")


def test_predictions_that_are_gone_are_named_with_what_to_do(tmp_path: Path) -> None:
    done = read(write_made_up(tmp_path)).done[0]
    (done.folder / PREDICTIONS).unlink()
    with pytest.raises(HeadstartError, match=rf"Remove {done.folder}: the same benchmark does that cell again"):
        _ = done.predictions


@pytest.mark.parametrize("text", ["", "{", "[]", '{"task": 3}'])
def test_a_torn_record_is_named_with_what_to_do(tmp_path: Path, text: str) -> None:
    done = read(write_made_up(tmp_path)).done[0]
    (done.folder / CELL).write_text(text)
    with pytest.raises(HeadstartError, match=rf"cell\.json: .*Remove {done.folder}: the same benchmark does that cell"):
        read(tmp_path)


@pytest.mark.parametrize("place", [0, 3])
def test_shortened_predictions_are_named_with_what_to_do(tmp_path: Path, place: int) -> None:
    path = read(write_made_up(tmp_path)).done[place].folder / PREDICTIONS
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-5]))
    with pytest.raises(HeadstartError, match=rf"{path}: has not the 45 scans .* Remove {path.parent}: the same"):
        _ = [result.predictions for result in read(tmp_path).done]


def test_cells_that_have_not_ended_are_missing(tmp_path: Path) -> None:
    found = read(write_made_up(tmp_path))
    gone = found.cells[5].cell
    (cell_folder(tmp_path, gone.digest) / CELL).unlink()
    assert read(tmp_path).missing == (gone,)


def test_digests_depend_on_everything_that_decides_a_cell() -> None:
    plan = made_up_plan()
    digests = {cell.digest for cell in plan.cells}
    assert len(digests) == len(plan.cells)
    for change in ({"volume": "2mm"}, {"training": plan.training.model_copy(update={"epochs": 7})},
                   {"tasks": (AD.model_copy(update={"outside_sites": ("sim-b",)}),)}, {"test_parts": 5}):
        assert not digests & {cell.digest for cell in plan.model_copy(update=change).cells}


def test_sizes_that_a_task_has_no_people_for_are_left_out() -> None:
    assert made_up_plan(sizes=(20, 44, 45, 400, "full")).sizes(AD) == (20, 44, "full")


def test_a_folder_stays_with_its_benchmark_but_rows_may_be_added(tmp_path: Path) -> None:
    plan = made_up_plan()
    plan.model_copy(update={"rows": plan.rows[:2]}).claim(tmp_path)
    plan.claim(tmp_path)
    assert read_plan(tmp_path) == plan
    with pytest.raises(HeadstartError, match=r"another benchmark \(other seeds\)"):
        made_up_plan(seeds=5).claim(tmp_path)


@pytest.mark.parametrize("text", ["{}", '{"name": 3}', "[1]"])
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(HeadstartError, match=r"no benchmark \(no plan.json\)"):
        read(tmp_path)
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(HeadstartError, match=r"plan.*Give another --out") as caught:
        read(tmp_path)
    assert "pydantic" not in str(caught.value)


def test_a_plan_of_another_version_says_so(tmp_path: Path) -> None:
    write_made_up(tmp_path)
    path = tmp_path / "plan.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(HeadstartError, match=r"is a plan of version 2, and .* reads version 1\. Use the"):
        read(tmp_path)
