"""Tasks: declared ones, and any column looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.brains.cohort import Scan
from headstart.errors import HeadstartError
from headstart.tasks import find_task


def scans(column: str, *values: str) -> list[Scan]:
    return [Scan("d", f"sub-{i}", "", Path("x"), "s", columns={column: v} if v else {}) for i, v in enumerate(values)]


def people(*ages: float | None, censored: tuple[int, ...] = ()) -> list[Scan]:
    return [Scan("d", f"sub-{i}", "", Path("x"), "s", age_years=a, age_censored=i in censored, sex="FM"[i % 2])
            for i, a in enumerate(ages)]


def test_brain_age_leaves_out_unknown_and_censored_ages() -> None:
    cohort = people(30.5, None, 89.0, 41.0, censored=(2,))
    task = find_task("brain-age", "age", cohort)
    np.testing.assert_array_equal(task.labels(cohort), [30.5, np.nan, np.nan, 41.0])
    assert task.left_out(cohort) == ["1 scan left out: no value in column 'age'",
                                     "1 scan left out: age is only known to be above a limit (89+)"]


def test_diagnosis_leaves_other_groups_out() -> None:
    cohort = scans("diagnosis", "CN", "AD", "PD", "MCI", "AD")
    np.testing.assert_array_equal(find_task("ad", None, cohort).labels(cohort), [0, 1, np.nan, np.nan, 1])
    np.testing.assert_array_equal(find_task("pd", None, cohort).labels(cohort), [0, np.nan, 1, np.nan, np.nan])


def test_declared_task_reads_another_column() -> None:
    cohort = scans("dx", "CN", "AD")
    np.testing.assert_array_equal(find_task("ad", "dx", cohort).labels(cohort), [0, 1])


def test_target_alone_finds_the_declared_task() -> None:
    assert find_task(None, "age", people(20.0, 30.0)).name == "brain-age"
    assert find_task(None, "sex", people(20.0, 30.0)).classes == ("F", "M")


def test_column_with_numbers_is_a_regression() -> None:
    cohort = scans("score", *(f"{i},5" for i in range(12)), "")
    task = find_task(None, "score", cohort)
    assert task.kind == "regression"
    np.testing.assert_array_equal(task.labels(cohort), [*(i + 0.5 for i in range(12)), np.nan])


def test_few_distinct_numbers_are_classes() -> None:
    assert find_task(None, "cdr", scans("cdr", "0", "0.5", "1", "0")).classes == ("0", "0.5", "1")


def test_positive_value_stands_last_and_against_all_others() -> None:
    two = scans("group", "control", "depr", "depr")
    assert find_task(None, "group", two, "control").classes == ("depr", "control")
    many = scans("group", "a", "b", "c", "")
    task = find_task(None, "group", many, "b")
    assert task.classes == ("other", "b")
    np.testing.assert_array_equal(task.labels(many), [0, 1, 0, np.nan])


@pytest.mark.parametrize(("name", "target", "positive", "values", "says"), [
    (None, None, None, ["a", "b"], "nothing to predict"),
    (None, "other", None, ["a", "b"], "Columns that exist: age, group, sex, site"),
    ("alzheimer", None, None, ["a", "b"], "Choose one of: brain-age, ad, pd, sex"),
    (None, "group", "z", ["a", "b"], "Its values: a, b"),
    (None, "group", None, ["a", "a"], "holds only 'a'"),
    (None, "group", "a", ["a", "a"], "holds only 'a'"),
    (None, "group", None, [f"x{i}" for i in range(30)], "30 different values"),
    ("ad", None, "AD", ["a", "b"], "--positive does not go with"),
])
def test_errors_say_what_there_is(name, target, positive, values, says) -> None:
    with pytest.raises(HeadstartError, match=says):
        find_task(name, target, scans("group", *values), positive)
