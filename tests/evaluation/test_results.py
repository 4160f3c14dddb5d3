from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from headstart.brains.cohort import Scan
from headstart.errors import HeadstartError
from headstart.evaluation.floors import FloorInputs, all_floors
from headstart.evaluation.predictions import Predictions, read_tsv
from headstart.evaluation.results import Result, build_result, read_result, write_result
from headstart.evaluation.schema import schema_markdown
from headstart.evaluation.statistics import Bootstrap
from headstart.evaluation.summary import summary_table, verdict

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def tables(age_inputs: FloorInputs, cells: list) -> dict[str, Predictions]:
    return all_floors(age_inputs, cells)


@pytest.fixture(scope="module")
def result(scans: list[Scan], tables: dict[str, Predictions]) -> Result:
    """The voxel ridge in the model's place."""
    task = SimpleNamespace(name="brain-age", kind="regression", column="age", classes=(), unit="years", rest=False)
    floors = {name: table for name, table in tables.items() if name != "voxels"}
    return build_result(task=task, scans=scans, predictions=tables["voxels"], floors=floors, simulated=True,
                        bootstrap=Bootstrap(300), experiment={"backbone": "ridge"},
                        training=[{"seed": 0, "fold": "0", "history": {"epochs": []}, "test": [1, 2]}])


def test_a_result_survives_the_disk(result: Result, tmp_path: Path) -> None:
    write_result(tmp_path / "result.json", result)
    assert read_result(tmp_path / "result.json") == result
    value = json.loads((tmp_path / "result.json").read_text())
    assert value["schema_version"] == 1
    assert set(value["outside"]["mae"]) >= {"value", "low", "high", "n"}
    assert value["outside"]["mae"]["n"] == 15


def test_comparisons_cover_all_floors_and_are_adjusted_together(result: Result) -> None:
    assert len(result.comparisons) == 2 * len(result.floors)
    assert all(c.p_holm >= c.p for c in result.comparisons)
    constant = next(c for c in result.comparisons if (c.floor, c.partition) == ("constant", "inside"))
    assert constant.difference.value == pytest.approx(
        result.inside["mae"].value - result.floors["constant"].inside["mae"].value)
    assert verdict(constant) == "better"
    assert verdict(constant.model_copy(update={"seeds": 2})) == "cannot be told"


def test_the_cohort_is_described(result: Result, scans: list[Scan]) -> None:
    here = next(row for row in result.cohort if row.site == "here")
    assert (here.partition, here.subjects, here.scans) == ("inside", 45, 45)
    assert here.age_mean == pytest.approx(np.mean([s.age_years for s in scans[:45]]), abs=0.01)
    assert set(result.by_site["outside"]) == {"there"}
    assert set(result.by_sex["inside"]) == {"F", "M"}


def test_bias_correction_flattens_the_slope_and_stands_apart(result: Result) -> None:
    assert result.bias_corrected is not None
    assert 0 < result.bias_corrected.slope < 1
    assert result.bias_corrected.inside["mae"].value < result.inside["mae"].value


def test_what_limits_the_conclusions_is_said(scans: list[Scan], tables: dict[str, Predictions]) -> None:
    inside = {name: table.part("inside").select(table.part("inside").seed == 0) for name, table in tables.items()}
    task = SimpleNamespace(name="age", kind="regression", column="age", classes=(), unit="", rest=False)
    warnings = " ".join(build_result(task=task, scans=scans, predictions=inside["voxels"], floors=inside,
                                     bootstrap=Bootstrap(50)).warnings)
    assert "at least 3" in warnings
    assert "No site was held out" in warnings


def test_the_terminal_table_calls_simulated_simulated(result: Result) -> None:
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(summary_table(result))
    text = console.export_text()
    assert "SIMULATED" in text
    assert "ridge" in text
    assert "Constant" in text


@pytest.mark.parametrize(("change", "message"), [
    ({"schema_version": 2}, "schema version 2"), ({"inside": 3}, "inside"), ({"surprise": 1}, "surprise")])
def test_a_damaged_or_newer_result_is_refused(result: Result, tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result.model_dump(mode="json") | change))
    with pytest.raises(HeadstartError, match=message):
        read_result(path)


def test_the_schema_page_is_current() -> None:
    assert (DOCS / "result-schema.md").read_text(encoding="utf-8") == schema_markdown(), (
        "write docs/result-schema.md again from headstart.evaluation.schema.schema_markdown()")


def test_predictions_survive_the_disk(tables: dict[str, Predictions], tmp_path: Path) -> None:
    table = tables["voxels"]
    table.write_tsv(tmp_path / "predictions.tsv")
    header = (tmp_path / "predictions.tsv").read_text().splitlines()[0].split("\t")
    assert header == ["dataset", "participant_id", "session", "site", "seed", "partition", "truth", "prediction"]
    back = read_tsv(tmp_path / "predictions.tsv")
    assert back.same_rows(table)
    np.testing.assert_allclose(back.prediction, table.prediction, rtol=1e-6)


def test_who_is_in_two_data_sets_is_one_person_on_disk(sex_inputs: FloorInputs, cells: list, tmp_path: Path) -> None:
    table = all_floors(sex_inputs, cells)["constant"]
    first, *others = dict.fromkeys(table.subject)
    merged = replace(table, subject=np.where(table.subject == others[0], first, table.subject).astype(object))
    merged.write_tsv(tmp_path / "predictions.tsv")
    back = read_tsv(tmp_path / "predictions.tsv")
    assert back.num_subjects == merged.num_subjects == table.num_subjects - 1
    assert list(back.subject) == list(merged.subject)
    assert back.classes == table.classes
    np.testing.assert_allclose(back.probabilities, table.probabilities, rtol=1e-5)


def test_class_predictions_survive_the_disk(sex_inputs: FloorInputs, cells: list, tmp_path: Path) -> None:
    table = all_floors(replace(sex_inputs, rows=None), cells)["age_sex"]
    table.write_tsv(tmp_path / "predictions.tsv")
    assert (tmp_path / "predictions.tsv").read_text().splitlines()[0].endswith("p_F\tp_M")
    back = read_tsv(tmp_path / "predictions.tsv")
    assert back.classes == ("F", "M")
    np.testing.assert_array_equal(back.truth, table.truth)
    np.testing.assert_allclose(back.probabilities, table.probabilities, atol=1e-5)


@pytest.mark.parametrize(("damage", "message"), [
    (lambda text: text.replace("truth", "thruth"), "not a table of predictions"),
    (lambda text: text[:-11], "has not 8 columns"),
    (lambda text: text.replace("inside", "beside"), "neither 'inside' nor 'outside'"),
    (lambda text: "", "not a table of predictions"),
    (lambda text: text.splitlines()[0] + "\n", "has no rows"),
    (lambda text: text.replace("ses-1\there\t0", "ses-1\there\tzero"), "does not fit")])
def test_damaged_predictions_are_refused_in_words(tables: dict[str, Predictions], tmp_path: Path, damage,
                                                  message: str) -> None:
    path = tmp_path / "predictions.tsv"
    tables["constant"].write_tsv(path)
    path.write_text(damage(path.read_text().rstrip("\n").rsplit("\t", 1)[0] + "\t1.23456789"))
    with pytest.raises(HeadstartError, match=message) as caught:
        read_tsv(path)
    assert "predictions.tsv" in str(caught.value)
