from __future__ import annotations

import base64
import csv
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headstart.evaluation.results import Result
from headstart.evaluation.statistics import Estimate
from headstart.report import render, words
from headstart.report.html import flat
from headstart.report.svg import Scale

sys.path.insert(0, str(Path(__file__).parents[1]))
from pages import Collected

KINDS = ("regression", "binary", "several")


@pytest.fixture(params=KINDS)
def page(request: pytest.FixtureRequest, simulated: Callable, tmp_path: Path) -> tuple[str, Result]:
    made = simulated(request.param)
    return render(made.result, made.predictions, tmp_path / "report.html").read_text(encoding="utf-8"), made.result


def test_the_page_reaches_for_nothing(page: tuple[str, Result]) -> None:
    tags = Collected(page[0]).tags
    links = [value for _, attributes in tags for name, value in attributes.items()
             if name in ("src", "href", "srcset", "action", "data")]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links if link)
    assert "@import" not in page[0]
    assert not re.search(r"url\((?!data:)", page[0])


def test_text_from_data_is_escaped(page: tuple[str, Result]) -> None:
    assert "&lt;script&gt;alert(1)" in page[0]
    assert "<script>alert(1)" not in page[0]
    assert [tag for tag, _ in Collected(page[0]).tags].count("script") == 1


def test_simulated_stands_wherever_numbers_do(page: tuple[str, Result], simulated: Callable, tmp_path: Path) -> None:
    assert page[0].lower().count("simulated") >= 10
    made = simulated("regression")
    real = render(made.result.model_copy(update={"simulated": False}), made.predictions, tmp_path / "real.html")
    assert "simulated" not in real.read_text(encoding="utf-8").lower()


def test_scores_floors_and_intervals_are_on_the_page(page: tuple[str, Result]) -> None:
    text, result = page
    for scores in (result.inside, result.outside, *(f.inside for f in result.floors.values())):
        for estimate in scores.values():
            if estimate.value is not None:
                assert f"{abs(estimate.value):.2f}" in text
    for floor in result.floors.values():
        assert floor.title in text


def test_downloads_hold_what_the_page_shows(page: tuple[str, Result]) -> None:
    links = {attributes["download"]: attributes["href"] for tag, attributes in Collected(page[0]).tags
             if tag == "a" and "download" in attributes}
    texts = {name: base64.b64decode(str(uri).split(",", 1)[1]).decode() for name, uri in links.items()}
    assert Result.model_validate(json.loads(texts["result.json"])) == page[1]
    scores = list(csv.DictReader(io.StringIO(texts["scores.csv"])))
    own = next(row for row in scores if row["partition"] == "outside")
    assert float(own["value"]) == pytest.approx(page[1].outside[own["metric"]].value, rel=1e-5)
    assert len(list(csv.DictReader(io.StringIO(texts["predictions.csv"])))) == 3 * (108 + 36)
    assert texts["references.bib"].count("@article") == len(words.REFERENCES)


def test_a_result_without_outside_floors_training_or_receipt_still_renders(simulated: Callable, tmp_path: Path) -> None:
    made = simulated("binary")
    bare = made.result.model_copy(update={
        "outside": {}, "floors": {}, "comparisons": (), "training": (), "receipt": None, "notes": (), "by_sex": {},
        "by_age": {}, "by_site": {}, "cohort": made.result.cohort[:1], "experiment": {}, "environment": {}})
    text = render(bare, made.predictions.part("inside"), tmp_path / "bare.html").read_text(encoding="utf-8")
    assert "no weights were transferred" in text
    assert "nothing to compare" in text


def test_undefined_scores_are_said_not_shown_as_numbers(simulated: Callable, tmp_path: Path) -> None:
    made = simulated("binary")
    undefined = Estimate(None, None, None, 36, "all scans are of one class")
    result = made.result.model_copy(update={"outside": {**made.result.outside, "auroc": undefined}})
    text = render(result, made.predictions, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "all scans are of one class" in text
    assert not re.search(r">\s*(None|nan)\b", text)


def test_the_summary_is_careful_with_few_seeds(simulated: Callable) -> None:
    result = simulated("regression").result
    comparisons = tuple(c.model_copy(update={"seeds": 2}) for c in result.comparisons)
    few = result.model_copy(update={"comparisons": comparisons})
    assert "beats" in words.summary(result)[0]
    assert "beats" not in " ".join(words.summary(few))


def test_formulas_in_a_table_stay_text(simulated: Callable, tmp_path: Path) -> None:
    made = simulated("regression")
    hostile = made.predictions.select(np.arange(len(made.predictions)))  # a copy
    hostile.site[0] = "=HYPERLINK(1)"
    text = render(made.result, hostile, tmp_path / "report.html").read_text(encoding="utf-8")
    uri = next(a["href"] for t, a in Collected(text).tags if a.get("download") == "predictions.csv")
    assert "'=HYPERLINK(1)" in base64.b64decode(str(uri).split(",", 1)[1]).decode()


def test_ticks_are_round_and_inside() -> None:
    assert Scale(0, 1, 0, 100).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    scale = Scale.around([3.1, 17.8], 10, 90)
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks())
    assert Scale.around([5.0, 5.0], 0, 1).low < 5 < Scale.around([5.0, 5.0], 0, 1).high


def test_nested_records_become_rows() -> None:
    assert list(flat({"a": {"b": 1, "c": []}, "d": [1, 2], "e": None})) == [
        ("a.b", "1"), ("a.c", "none"), ("d", "1, 2"), ("e", "none")]
