"""Every condition of the contract says ok, flag or refused where it should."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.brains.contract import Contract
from headstart.brains.facts import Facts
from headstart.brains.scan import Prepared
from headstart.prediction.quality import (
    Check,
    check_familiarity,
    check_preparation,
    check_range,
    clipped_share,
    overall,
    rotation_degrees,
)


def prepared(shape: tuple[int, ...] = (40, 48, 40), **changes: object) -> Prepared:
    """A scan as good as the median of 96 real ones, with some facts changed."""
    good = {"source_sha256": "", "already_extracted": True, "brain_volume_ml": 1366.0, "linear_scale": 1.14,
            "affine": tuple(map(tuple, 1.14 * np.eye(4))), "overlap": 0.95, "correlation": 0.68, "csf_fraction": 0.14,
            "grey_fraction": 0.64, "white_fraction": 0.22, "voxel_size_mm": (1.0, 1.0, 1.0)}
    return Prepared(np.full(shape, 0.7, np.float32), Facts(**{**good, **changes}), {})  # type: ignore[arg-type]


def turned(degrees: float) -> tuple[tuple[float, ...], ...]:
    a = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    return tuple(map(tuple, 1.1 * affine))


def doubts(scan: Prepared) -> dict[str, str]:
    return {check.name: check.verdict for check in check_preparation(scan, Contract()) if check.verdict != "ok"}


def test_a_good_scan_meets_every_condition() -> None:
    assert doubts(prepared()) == {}


@pytest.mark.parametrize(("name", "changes", "verdict"), [
    ("overlap", {"overlap": 0.88}, "flag"), ("overlap", {"overlap": 0.6}, "refused"),
    ("overlap", {"overlap": float("nan")}, "refused"),
    ("correlation", {"correlation": 0.4}, "flag"), ("correlation", {"correlation": 0.0}, "refused"),
    ("spacing", {"voxel_size_mm": (1.0, 1.0, 5.0)}, "flag"), ("spacing", {"voxel_size_mm": (1.0, 1.0, 9.0)}, "refused"),
    ("orientation", {"affine": turned(50)}, "flag"), ("orientation", {"affine": turned(150)}, "refused"),
    ("brain_volume", {"brain_volume_ml": 700.0}, "flag"),
    ("enlargement", {"linear_scale": 1.5}, "flag"), ("enlargement", {"linear_scale": 2.0}, "refused"),
    ("grid", {"shape": (40, 48, 41)}, "refused"),
])
def test_each_condition_is_looked_at(name: str, changes: dict, verdict: str) -> None:
    assert doubts(prepared(**changes)) == {name: verdict}


def test_intensities_that_are_cut_off_are_seen() -> None:
    volume = np.full((40, 48, 40), 0.7, np.float32)
    volume[:8] = 2.0
    assert clipped_share(volume) == pytest.approx(0.2)
    assert clipped_share(np.zeros((2, 2, 2))) == 1.0


def test_a_turn_is_measured_through_stretch() -> None:
    assert rotation_degrees(prepared(affine=turned(33)).facts) == pytest.approx(33)


def test_numbers_beyond_the_training_are_flagged() -> None:
    (inside,), (outside,) = (check_range(value, (20.0, 80.0), "years") for value in (50.0, 96.0))
    assert (inside.verdict, outside.verdict) == ("ok", "flag")
    assert outside.wanted == "20.0 years to 80.0 years, as in training"
    assert check_range(50.0, None, "years") == ()


def test_what_cannot_be_checked_is_said_and_does_not_count() -> None:
    unknown = check_familiarity(np.zeros(3), None)
    assert unknown.verdict == "unknown"
    assert "does not say" in unknown.found
    assert overall((unknown,)) == "ok"
    flag, refused = (Check("x", verdict, "", "") for verdict in ("flag", "refused"))
    assert overall((flag, unknown)) == "flag"
    assert overall((flag, refused)) == "refused"
