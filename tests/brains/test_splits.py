"""A split never leaks, tests everybody once, and does not depend on the order of the scans."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from headstart.brains.cohort import Scan
from headstart.brains.splits import Cell, Split, make_split
from headstart.errors import HeadstartError, LeakError


def scan(subject: int, site: str, session: int = 0, dataset: str = "lab") -> Scan:
    name = f"sub-{subject:03d}"
    return Scan(dataset, name, f"ses-{session}" if session else "", Path("x.nii"), site, subject=f"lab/{name}")


def cohort(n: int, sites: str = "AB", sessions: int = 1) -> list[Scan]:
    return [scan(i, sites[i % len(sites)], s) for i in range(n) for s in range(sessions)]


def ages(scans: list[Scan]) -> np.ndarray:
    return np.array([20 + 7 * int(s.participant_id[-3:]) % 61 for s in scans], float)


@st.composite
def requests(draw):
    n = draw(st.integers(24, 60))
    visits = draw(st.lists(st.lists(st.sampled_from("AABC"), min_size=1, max_size=3), min_size=n, max_size=n))
    scans = [scan(i, site, s) for i, own in enumerate(visits) for s, site in enumerate(own)]
    kind = draw(st.sampled_from(["regression", "classification"]))
    target = ages(scans) if kind == "regression" else ages(scans) // 7 % 2
    options = {"seeds": draw(st.lists(st.integers(0, 99), min_size=1, max_size=2, unique=True)), "stratify": kind,
               "folds": draw(st.integers(2, 4)), "test_sites": draw(st.sampled_from([(), ("C",)])),
               "loso": draw(st.booleans())}
    return scans, target, options, draw(st.randoms(use_true_random=False))


def attempt(scans, target, options) -> Split | None:
    try:
        return make_split(scans, target, **options)
    except HeadstartError:  # a site without which nothing is left, a class that is too rare
        return None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(requests())
def test_properties(request):
    scans, target, options, random = request
    split = attempt(scans, target, options)
    assume(split is not None)  # hypothesis fails if that is rare
    outside = {s.subject for s in scans if s.site in options["test_sites"]}
    for seed in options["seeds"]:
        tested: Counter[str] = Counter()
        for cell in (cell for cell in split.cells if cell.seed == seed):
            train, validation, test = ({scans[i].subject for i in part} for part in
                                       (cell.train, cell.validation, cell.test))
            assert not train & validation
            assert not (train | validation) & test
            assert not (train | validation) & outside
            if not cell.outside:
                tested.update(test)
                assert train
                assert validation
            if cell.fold.startswith("site:"):
                assert {scans[i].site for i in cell.test} == {cell.fold[5:]}
                assert cell.fold[5:] not in {scans[i].site for i in (*cell.train, *cell.validation)}
        assert tested == Counter({s.subject for s in scans} - outside)
    order = list(range(len(scans)))
    random.shuffle(order)
    assert make_split([scans[i] for i in order], target[order], **options).digest == split.digest


def test_strata_are_even():
    scans = cohort(100)
    target = np.array([i % 5 == 0 for i in range(100)], int)
    split = make_split(scans, target, seeds=[3], stratify="classification")
    for cell in split.cells[:5]:
        assert target[cell.test].sum() == 4
        assert target[cell.validation].sum() in (3, 4)
        assert abs(sum(scans[i].site == "A" for i in cell.test) - 10) <= 1
    by_age = make_split(scans, ages(scans), seeds=[3], stratify="regression")
    means = [ages(scans)[cell.test].mean() for cell in by_age.cells[:5]]
    assert max(means) - min(means) < 5


def test_seeds_differ_and_repeat():
    scans = cohort(40)
    first, again = (make_split(scans, ages(scans), seeds=[0, 1], stratify="regression") for _ in range(2))
    assert first.digest == again.digest
    assert not np.array_equal(first.cell(0, "0").test, first.cell(1, "0").test)
    assert first.cell(1, "2").test.tolist() == make_split(
        scans, ages(scans), seeds=[1], stratify="regression").cell(1, "2").test.tolist()


def test_refit_trains_inside_and_tests_outside():
    scans = cohort(60, "ABC")
    split = make_split(scans, ages(scans), seeds=[0], train_sites=["A"], test_sites=["C"], stratify="regression")
    refit = split.cell(0, "refit")
    assert {scans[i].site for i in refit.train} == {"A"}
    assert {scans[i].site for i in refit.test} == {"C"}
    assert len(refit.validation) == 0
    assert split.folds == ("0", "1", "2", "3", "4", "refit")


def test_who_travels_to_an_outside_site_is_not_trained_on():
    scans = [*cohort(20, "A"), scan(0, "C", 2), scan(99, "C")]
    split = make_split(scans, ages(scans), seeds=[0], test_sites=["C"], stratify="regression")
    assert all(0 not in part for cell in split.cells for part in (cell.train, cell.validation, cell.test))


def test_file_round_trip_in_another_order(tmp_path):
    scans = [*cohort(30, "AB", sessions=2), *(scan(200 + i, "D") for i in range(3))]
    split = make_split(scans, ages(scans), seeds=[0, 4], train_sites=["A"], test_sites=["B"], stratify="regression")
    split.write_tsv(tmp_path / "split.tsv")
    read = Split.read_tsv(tmp_path / "split.tsv", scans[::-1])
    assert read.digest == split.digest
    assert [read.scans[i].key for i in read.cell(4, "1").test[::-1]] == [
        scans[i].key for i in split.cell(4, "1").test]


def edited(tmp_path, change) -> Path:
    scans = cohort(30, "AB")
    path = tmp_path / "split.tsv"
    make_split(scans, ages(scans), seeds=[0], test_sites=["B"], stratify="regression").write_tsv(path)
    path.write_text(change(path.read_text()))
    return path


@pytest.mark.parametrize(("change", "message"), [
    (lambda text: text + "lab\tsub-777\tn/a\tlab/sub-777\tA\t0\t0\ttrain\n", "1 are not among the data"),
    (lambda text: text.replace("sub-004", "sub-006"), "1 are not in the split"),
    (lambda text: text.replace("\tpartition\n", "\tpart\n"), "has no column partition"),
    (lambda text: text.replace("train", "trian"), "no usable seed or partition"),
    (lambda text: "", "has no column"),
])
def test_a_file_that_does_not_fit(tmp_path, change, message):
    with pytest.raises(HeadstartError, match=message) as caught:
        Split.read_tsv(edited(tmp_path, change), cohort(30, "AB"))
    assert "split.tsv" in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("row", [
    "lab\tsub-{test}\tn/a\tx\tA\t0\t0\ttrain\n",  # the tested subject is trained on
    "lab\tsub-001\tn/a\tx\tB\t0\t0\tvalidation\n",  # a scan of the outside site chooses the model
])
def test_a_leak_in_a_file_names_the_subject(tmp_path, row):
    scans = cohort(30, "AB")
    test = make_split(scans, ages(scans), seeds=[0], test_sites=["B"], stratify="regression").cell(0, "0").test[0]
    path = edited(tmp_path, lambda text: text + row.format(test=f"{test:03d}"))
    with pytest.raises(LeakError, match=r"lab/sub-"):
        Split.read_tsv(path, scans)


def test_a_leak_between_sessions_is_found():
    scans = cohort(4, "A", sessions=2)
    with pytest.raises(LeakError, match="lab/sub-000"):
        Split(tuple(scans), (Cell(0, "0", np.array([0]), np.array([4]), np.array([1])),))


@pytest.mark.parametrize(("options", "message"), [
    ({"scans": cohort(3)}, "3 subjects .* too few"),
    ({"target": np.ones(30)}, "all 30 subjects .* same target"),
    ({"target": np.arange(30) < 3, "stratify": "classification"}, "class True has 3 subjects"),
    ({"test_sites": ["Z"]}, "no usable scan is of site Z"),
    ({"train_sites": ["A"], "test_sites": ["A"]}, "both inside and outside"),
    ({"train_sites": ["A"], "loso": True}, "nothing left to learn"),
    ({"folds": 1}, "1 folds"),
    ({"seeds": []}, "0 folds|seeds"),
    ({"scans": [*cohort(29), scan(0, "A")]}, "lab/sub-000 is there twice"),
])
def test_what_cannot_be_split_says_why(options, message):
    scans = options.pop("scans", None) or cohort(30)
    target = options.pop("target", ages(scans))
    with pytest.raises(HeadstartError, match=message) as caught:
        make_split(scans, target, **{"seeds": [0], "stratify": "regression", **options})
    assert caught.value.fix


def test_an_unknown_cell_lists_those_there_are():
    split = make_split(cohort(20), ages(cohort(20)), seeds=[0], stratify="regression")
    with pytest.raises(HeadstartError, match="seeds 0 and folds 0, 1"):
        split.cell(7, "0")
