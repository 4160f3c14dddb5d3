"""The commands around a benchmark: status, retry, one cell, two benchmarks side by side."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
from made_up import made_up_plan, write_made_up
from tiny_benchmark import write_config

from headstart.benchmark import read
from headstart.benchmark.compare import compare
from headstart.benchmark.config import load_config
from headstart.benchmark.resolve import make_plan
from headstart.benchmark.results import CELL, cell_folder
from headstart.benchmark.status import duration, look
from headstart.cli import app
from headstart.errors import HeadstartError
from headstart.files import one_writer


def run(*words: str | Path):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "160"})


def test_status_says_how_far_it_is_and_why_cells_failed(tmp_path: Path) -> None:
    write_made_up(tmp_path, failed=2)
    gone = read(tmp_path).done[0].cell
    (cell_folder(tmp_path, gone.digest) / CELL).unlink()
    result = run("benchmark", "status", tmp_path)
    assert result.exit_code == 0, result.output
    assert "made-up: 69 of 72 cells done, 0 running, 2 failed, 4.2 s left" in result.output
    assert result.output.count("training diverged") == 2


def test_retry_forgets_failures_only(tmp_path: Path) -> None:
    write_made_up(tmp_path, failed=3)
    assert "3 failed cells" in run("benchmark", "retry", tmp_path).output
    found = read(tmp_path)
    assert len(found.failed) == 0
    assert len(found.done) == 69
    assert len(found.missing) == 3


def test_time_left_follows_cells_of_the_same_kind(tmp_path: Path) -> None:
    write_made_up(tmp_path, failed=0)
    found = read(tmp_path)
    for result in found.cells:
        if result.cell.task == "ad":
            text = (result.folder / CELL).read_text()
            (result.folder / CELL).write_text(text.replace("4.2", "100.0"))
    slow = next(result for result in found.cells if result.cell.task == "ad")
    (slow.folder / CELL).unlink()
    assert look(tmp_path).seconds_left() == 100.0


def test_time_left_counts_the_process_that_has_just_ended_a_cell(tmp_path: Path) -> None:
    write_made_up(tmp_path, failed=0)
    first, *others = read(tmp_path).cells[:5]
    for result in (first, *others):
        (result.folder / CELL).unlink()
    with one_writer(first.folder):  # its lock is held: the cell is running
        status = look(tmp_path)
        assert (len(status.running), len(status.waiting)) == (1, 4)
        assert status.seconds_left() == pytest.approx(5 * 4.2)
        assert status.seconds_left(beginning=1) == pytest.approx(5 * 4.2 / 2)
        assert "10.5 s left" in status.line(beginning=1)


def test_one_cell_by_hand(tmp_path: Path) -> None:
    plan = make_plan(load_config(write_config(tmp_path / "tiny.yaml", rows=[
        {"backbone": "cnn-small", "upstream": "scratch", "mode": "probe"}])))
    plan.claim(tmp_path / "out")
    digest = plan.cells[0].digest
    for _ in range(2):
        result = run("benchmark", "cell", tmp_path / "out", digest)
        assert result.exit_code == 0, result.output
        assert "cnn-small from scratch, full scans, seed 0: done" in result.output
    assert len(read(tmp_path / "out").done) == 1
    with pytest.raises(HeadstartError, match="no cell 'abc'"):
        plan.cell("abc")


def test_a_benchmark_beside_itself_does_not_differ(tmp_path: Path) -> None:
    write_made_up(tmp_path / "a")
    found = compare(tmp_path / "a", tmp_path / "a")
    assert len(found) == 2 * 6 * 2 * 2
    assert all(one.difference.value == 0 for one in found)


def test_a_better_benchmark_is_seen_to_be_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import made_up

    write_made_up(tmp_path / "a", made_up_plan(sizes=("full",), seeds=5), failed=0)
    monkeypatch.setattr(made_up, "GAIN", dict.fromkeys(made_up.GAIN, 4.0))
    write_made_up(tmp_path / "b", made_up_plan(sizes=("full",), seeds=5), failed=0)
    scratch = {one.metric.name: one.difference for one in compare(tmp_path / "a", tmp_path / "b")
               if one.group[1:3] == ("vit-mini", "scratch") and one.partition == "outside"}
    assert set(scratch) == {"auroc", "mae"}
    assert 0 < scratch["auroc"].low < scratch["auroc"].high <= 1
    assert -30 < scratch["mae"].low < scratch["mae"].high < 0, "in years, and fewer"
    shown = run("compare", tmp_path / "a", tmp_path / "b")
    assert shown.exit_code == 0
    assert "ad, vit-mini from scratch" in shown.output


def test_a_comparison_can_be_read_at_80_columns(tmp_path: Path) -> None:
    write_made_up(tmp_path / "a")
    shown = CliRunner().invoke(app, ["compare", str(tmp_path / "a"), str(tmp_path / "a")], env={"COLUMNS": "80"}).output
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    said = " ".join(shown.split())
    assert "* the interval leaves out zero; of errors (mae) a negative B - A means that B is better" in said


def test_benchmarks_without_anything_in_common_are_refused(tmp_path: Path) -> None:
    write_made_up(tmp_path / "a", made_up_plan(sizes=(20,)))
    write_made_up(tmp_path / "b", made_up_plan(sizes=(30,)))
    with pytest.raises(HeadstartError, match="no finished row in common"):
        compare(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(("seconds", "text"), [(4.21, "4.2 s"), (700, "12 min"), (12_600, "3.5 h")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
