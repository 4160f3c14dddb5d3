from __future__ import annotations

import base64
import csv
import io
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pretend import AD, AGE, HOSTILE, INSIDE, OUTSIDE, PD, plan, task, write_pretend

from headstart.benchmark import read
from headstart.benchmark_report import csv_files, figures, tables, words
from headstart.benchmark_report.claims import CLAIMS, findings
from headstart.benchmark_report.collect import Study, domain_of, family_of, floor_title
from headstart.benchmark_report.comparisons import compare_all, task_gains
from headstart.benchmark_report.curves import scans_saved
from headstart.benchmark_report.groups import gaps, trust
from headstart.benchmark_report.page import thinned, write
from headstart.errors import HeadstartError
from headstart.evaluation.few_shot import Worth

sys.path.insert(0, str(Path(__file__).parents[1]))
from pages import Collected

REPLICATES = 200


@pytest.fixture(scope="module")
def study(report: Path) -> Study:
    return Study.of(read(report.parent), REPLICATES)


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


# --- the numbers


def test_every_start_is_compared_with_scratch_on_the_same_people(report: Path) -> None:
    found = rows(report.parent / "comparisons.csv")
    assert len(found) == 3 * 2 * 2 * 4 * 2  # tasks, sizes, backbones, starts, partitions
    assert {row["people"] for row in found if row["partition"] == "inside"} == {str(INSIDE)}
    assert {row["people"] for row in found if row["partition"] == "outside"} == {str(OUTSIDE)}
    row = found[0]
    assert 100 * (float(row["start"]) - float(row["scratch"])) == pytest.approx(float(row["gain"]), abs=1e-3)
    assert float(row["gain"]) / float(row["scratch"]) == pytest.approx(float(row["gain_percent"]), abs=1e-3)
    assert float(row["gain_low"]) <= float(row["gain"]) <= float(row["gain_high"])


def test_a_gain_in_years_is_a_smaller_error(study: Study) -> None:
    found = [one for one in compare_all(study) if one.key.task == "brain-age"]
    assert all(one.gain.absolute.value == pytest.approx(one.scratch.value - one.start.value) for one in found)


def test_the_start_that_knows_is_told_apart_and_the_control_is_not(study: Study) -> None:
    found = compare_all(study)
    assert any(one.verdict == "better" for one in found if one.key.upstream == "synthetic-mri")
    assert all(one.verdict == "cannot be told" for one in found if one.key.upstream == "control")
    assert {one.overlaps != () for one in found if one.key.upstream == "procedural-images"} == {True}


def test_holm_is_taken_within_a_training_size(study: Study) -> None:
    found = [one for one in compare_all(study) if one.key.size == 25 and one.gain.p is not None]
    smallest = min(found, key=lambda one: one.gain.p)
    assert smallest.p_holm == pytest.approx(min(1, len(found) * smallest.gain.p))


def test_two_identical_starts_are_rarely_told_apart(tmp_path: Path, long: bool) -> None:
    """Any false alarm in a whole benchmark: at most one in twenty, up to chance."""
    benchmarks = 300 if long else 25
    made = plan((AD,), ("scratch", "control"), ("full",), backbones=("vit-mini",))
    alarms = 0
    for draw in range(benchmarks):
        folder = write_pretend(tmp_path / str(draw), made, draw=draw + 1)
        found = compare_all(Study.of(read(folder), 150))
        assert len(found) == 2
        alarms += any(one.verdict != "cannot be told" for one in found)
    assert alarms <= benchmarks * 0.05 + 3 * np.sqrt(benchmarks * 0.05 * 0.95)


def test_scans_saved_follow_from_scratchs_own_curve(study: Study) -> None:
    """Scratch's signal is 0.35 log10(n): 0.9 more at 25 scans is worth thousands, beyond the curve's end."""
    found = [one for one in scans_saved(study) if one.key.upstream == "synthetic-mri"]
    assert len(found) == 3 * 2 * 2
    assert all(one.worth.scans == 25 and one.worth.value > 25 for one in found)
    assert any(one.worth.at_least[0] for one in found)


@pytest.mark.parametrize(("below", "beyond", "shown", "between"), [
    ((False, False, False), (True, False, True), "+108 or more", "+5 to +108 or more"),
    ((True, True, False), (False, False, False), "0 or fewer", "0 or fewer to +108"),
    ((False, True, False), (False, False, True), "≈ cannot be told", "")])
def test_scans_saved_end_with_scratchs_curve(below: tuple, beyond: tuple, shown: str, between: str) -> None:
    low = 25.0 if below[1] else 30.0
    cell = tables._saved(Worth(25.0, 25.0 if below[0] else 133.0, low, 133.0, below, beyond))
    assert (cell.text, cell.small) == (shown, between)


def test_an_interval_that_leaves_the_forest_plot_ends_in_an_arrow(study: Study) -> None:
    """And what can be told from chance never leaves it."""
    found = [one for one in compare_all(study) if one.key.task == "ad" and one.key.size == "full"]
    assert "arrow" not in figures.forest(found, "x")
    gain = replace(found[0].gain.absolute, low=-5000.0, high=5000.0)
    wild = replace(found[0], gain=replace(found[0].gain, absolute=gain, p=0.9), p_holm=0.9)
    assert figures.forest([wild, *found[1:]], "x").count("arrow") == 2
    assert "arrow" not in figures.forest([replace(wild, p_holm=0.001), *found[1:]], "x")


def test_starts_of_one_kind_have_lines_of_their_own() -> None:
    drawn = figures.strokes(["scratch", "procedural-video", "procedural-images", "synthetic-mri"])
    assert len(set(drawn.values())) == 4
    assert {style.split()[0] for name, style in drawn.items() if "procedural" in name} == {"d-procedural"}


def test_the_best_floor_is_the_best_on_the_same_people(study: Study) -> None:
    for one in compare_all(study):
        here = {floor_title(name): study.score(tables[one.partition], one.partition, one.metric)
                for (name, size), tables in study.floors[one.key.task].items()
                if size == one.key.size and one.partition in tables}
        title, found = one.floor
        best = max if one.metric.better == "higher" else min
        assert found.value == best(score.value for score in here.values() if score.value is not None)
        assert here[title] == found
        assert found.n == one.start.n


def test_outside_is_worse_and_the_gap_of_scratch_is_not_narrowed_by_itself(study: Study) -> None:
    found = gaps(study)
    assert np.mean([one.loss.value > 0 for one in found]) > 0.5
    floors = {one.key.upstream for one in found if one.key.backbone == "floor"}
    assert "Constant" in floors
    assert all((one.narrowed is None) == (one.key.upstream in {"scratch", *floors}) for one in found)


def test_task_gains_pick_nothing_out(study: Study) -> None:
    found = {(one.task, one.partition): one for one in task_gains(study)}
    assert len(found) == 6
    assert found["ad", "inside"].starts == 2 * 3  # the control is no head start


# --- claims


def test_each_claim_is_answered_and_figures_are_the_papers(report: Path) -> None:
    found = {row["claim"]: row for row in rows(report.parent / "claims.csv")}
    assert set(found) == {claim.name for claim in CLAIMS}
    assert {row["cohort"] for row in found.values()} == {"simulated"}
    figures = {name: row["paper"].lstrip("'") for name, row in found.items()}  # a spreadsheet would reckon with +7.4 %
    assert figures["vit-ad"].startswith("+7.4 %")
    assert figures["vit-pd"].startswith("+4.6 %")
    assert figures["cnn-pd"] == "+19.1 %"
    assert figures["cnn-age"] == "−1.26 years"
    assert found["vit-ad"]["tasks"] == "ad"
    assert found["cnn-domain"]["starts"] == "1"
    assert found["control"]["verdict"] == "cannot be told"


def test_what_is_true_holds_and_what_is_absent_cannot_be_told(study: Study) -> None:
    found = {one.claim.name: one for one in findings(study)}
    assert found["vit-synthetic"].verdict == "holds"
    assert found["generalises"].gain.n == 3 * OUTSIDE  # other people in every simulated cohort


def test_simulated_and_real_are_kept_apart_and_two_seeds_tell_nothing(tmp_path: Path) -> None:
    real = task("brain-age", "regression", simulated=False)
    made = plan((PD, real), ("scratch", "synthetic-mri"), ("full",), seeds=2)
    found = findings(Study.of(read(write_pretend(tmp_path, made)), REPLICATES))
    assert len(found) == 2 * len(CLAIMS)
    assert {one.tasks for one in found if one.simulated and one.gain.value is not None} == {("pd",)}
    assert {one.tasks for one in found if not one.simulated and one.gain.value is not None} == {("brain-age",)}
    assert {one.verdict for one in found} == {"cannot be told"}
    assert next(one for one in found if one.claim.name == "vit-ad").remark == "this benchmark has no such rows"


@pytest.mark.parametrize(("upstream", "domain"), [
    ("scratch", "scratch"), ("control", "control"), ("procedural-video", "procedural"),
    ("procedural-images", "procedural"), ("my-procedural-clips", "procedural"), ("videomae-base", "video"),
    ("imagenet-resnet18", "natural-images"), ("synthetic-mri", "synthetic-mri"), ("ldm100k", "synthetic-mri"),
    ("shuffled-labels", "control"), ("simulated-brains", "synthetic-mri"), ("my-start", "other")])
def test_what_a_start_was_trained_on(upstream: str, domain: str) -> None:
    assert domain_of(upstream) == domain
    assert [family_of(name) for name in ("vit-mini", "swin3d-tiny", "densenet121")] == ["ViT", "ViT", "CNN"]


def test_rendered_clips_do_not_answer_for_video(report: Path) -> None:
    found = {row["claim"]: row for row in rows(report.parent / "claims.csv")}
    assert found["vit-video"]["gain"] == ""
    assert found["vit-synthetic"]["gain"] != ""


# --- the page


def test_the_page_reaches_for_nothing_and_text_is_escaped(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    tags = Collected(page).tags
    links = [value for _, attributes in tags for name, value in attributes.items()
             if name in ("src", "href", "srcset", "action", "data")]
    assert all(link.startswith(("data:", "#")) for link in links if link)
    assert HOSTILE not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not [attributes for _, attributes in tags if "style" in attributes]  # the policy would refuse it


def test_floors_failures_overlaps_and_simulated_are_on_the_page(report: Path) -> None:
    page = report.read_text(encoding="utf-8")
    for said in ("Linear on voxels", "2 cells failed", "procedural-images †", "Simulated brains", "bias correction"):
        assert said in page
    assert not re.search(r">\s*(None|nan)\b", page)


def test_downloads_are_the_files_beside_the_page(report: Path) -> None:
    links = {attributes["download"]: str(attributes["href"])
             for tag, attributes in Collected(report.read_text(encoding="utf-8")).tags if "download" in attributes}
    for name in ("comparisons.csv", "claims.csv"):
        embedded = base64.b64decode(links[name].split(",", 1)[1]).decode()
        assert embedded == (report.parent / name).read_text(encoding="utf-8")
    assert {"scores.csv", "scans-saved.csv", "gaps.csv", "trust.csv", "groups.csv", "starts.csv", "cells.csv",
            "plan.json", "references.bib"} < set(links)
    assert "pooled.csv" not in links  # nothing is pooled here


def test_tables_for_machines_hold_what_the_page_shows(report: Path, study: Study) -> None:
    lost, trusted = gaps(study), trust(study)
    narrowed = list(csv.DictReader(io.StringIO(csv_files.gaps_csv(study, lost))))
    assert [row["upstream"] for row in narrowed] == [one.key.upstream for one in lost]
    assert [bool(row["narrowed"]) for row in narrowed] == [one.narrowed is not None for one in lost]
    assert float(narrowed[0]["loss"]) == pytest.approx(lost[0].loss.value, rel=1e-4)
    found = list(csv.DictReader(io.StringIO(csv_files.trust_csv(trusted))))
    assert {(row["metric"], row["corrected"]) for row in found} == {
        ("brier", "no"), ("ece", "no"), ("mae", "no"), ("r", "no"), ("mae", "yes"), ("r", "yes")}
    assert len(list(csv.DictReader(io.StringIO(csv_files.starts_csv(study))))) == len(study.benchmark.plan.rows)


def test_the_summary_says_what_the_simple_predictors_reach_and_that_features_were_frozen(study: Study) -> None:
    said = " ".join(words.summary(study, compare_all(study), findings(study)))
    assert "Only a read-out learned from the labels" in said
    best = [one for one in compare_all(study) if one.key.size == "full" and one.key.upstream != "control"]
    assert f"In {sum(map(words.beats, best))} of {len(best)} the start does better" in said
    assert re.fullmatch(r"AUROC 0\.\d+, scratch 0\.\d+; the best simple predictor, linear on voxels, 0\.\d+",
                        words._scores(next(one for one in best if one.key.task == "ad")))


def test_a_benchmark_of_scratch_alone_still_has_a_page(tmp_path: Path) -> None:
    page = write(write_pretend(tmp_path, plan((AGE,), ("scratch",), ("full",))), REPLICATES).read_text(encoding="utf-8")
    assert "no start to compare with scratch" in page
    assert "one training size" in page


def test_nothing_done_yet_is_said(tmp_path: Path) -> None:
    made = plan((AD,), ("scratch",), ("full",), seeds=1)
    with pytest.raises(HeadstartError, match="no cell"):
        write(write_pretend(tmp_path, made, failed=len(made.cells)))


def test_scatter_plots_are_thinned_evenly(study: Study) -> None:
    table = next(tables["outside"] for key, tables in study.tables.items() if key.task == "brain-age")
    assert thinned(table).num_subjects == min(250, OUTSIDE)
