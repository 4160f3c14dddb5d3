"""What tells real from simulated scans is found where it was put, and nothing is found where there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.brains.store import Store, StoreWriter
from headstart.brains.volumes import VOLUMES, template
from headstart.errors import HeadstartError
from headstart.report.calibration import write_calibration
from headstart.simulation.base import draw_subject
from headstart.simulation.calibration import image_slope
from headstart.simulation.realism import features, nearest, separations, ventricles_ml
from headstart.simulation.regions import label_regions
from headstart.simulation.segment import CLASSES

SPEC = VOLUMES["4mm"]


def brains(n: int, seed: int, noise: float = 0.03, tilt: float = 0.0) -> np.ndarray:
    """The template with noise and a person's own contrast: (n, X, Y, Z)."""
    icbm, rng = template("4mm"), np.random.default_rng(seed)
    own = rng.normal(0.5 + tilt, 0.03, (n, 1, 1, 1))
    volumes = own * icbm.t1 + 0.5 * icbm.white + noise * rng.standard_normal((n, *SPEC.shape))
    return np.where(icbm.brain, volumes, 0).astype(np.float32)


@pytest.fixture(scope="module")
def real() -> dict[str, np.ndarray]:
    return features(brains(24, 0), SPEC)


def test_what_is_alike_cannot_be_told_apart(real):
    whole = separations(real, features(brains(24, 1), SPEC), ["a"] * 24)[0]
    assert 0.25 < whole.linear < 0.75


def test_noise_is_found_and_named(real):
    found = separations(real, features(brains(24, 2, noise=0.06), SPEC), ["a"] * 12 + ["b"] * 12)
    assert [row.name for row in found] == ["all sites", "a", "b"]
    assert all(row.linear > 0.95 and row.groups["gradient"] > 0.95 for row in found)
    assert found[0].cues[0][1] > 0.99
    assert any(name.startswith("gradient") and not higher for name, _, higher in found[0].cues)


def test_a_site_of_a_few_scans_is_left_out(real):
    found = separations(real, features(brains(10, 3), SPEC), ["a"] * 22 + ["b"] * 2)
    assert [row.name for row in found] == ["all sites", "a"]
    with pytest.raises(HeadstartError, match="cannot be told apart"):
        separations({key: column[:3] for key, column in real.items()}, real, ["a"] * 3)


def test_ventricles_are_counted_by_darkness():
    regions = label_regions(template("4mm"))
    small = brains(1, 0)[0]
    large = np.where(regions["lateral_ventricles"], 0.01, small)
    bright = np.where(regions["lateral_ventricles"], 0.9, small)
    assert ventricles_ml(large, SPEC) > ventricles_ml(small, SPEC) > ventricles_ml(bright, SPEC)


def test_a_duplicate_has_no_distance():
    simulated = brains(6, 4)
    simulated[3] = simulated[1]
    found = nearest(brains(6, 5), simulated, SPEC)
    assert found.simulated[1] == found.simulated[3] < 1e-3
    assert found.simulated[0] > 0.03
    assert found.real.min() > 0.03


def test_slopes_within_sites():
    rng = np.random.default_rng(0)
    ages, sites = rng.uniform(20, 80, 200), ["a"] * 100 + ["b"] * 100
    values = 100 - 0.3 * (ages - 50) + 20 * (np.array(sites) == "b") + rng.standard_normal(200)
    found = image_slope("grey", values, ages, sites, label=values)
    assert found.low < -300 / values.mean() < found.high  # % of the mean in ten years
    assert found.r < -0.9
    assert found.truth == pytest.approx(1)


def copy_as_real(source: Path, out: Path) -> Path:
    """The toy store again, said to be real, and noisier."""
    store, rng = Store.open(source), np.random.default_rng(0)
    rows = store.rows(range(len(store)))
    rows = (rows + np.where(rows != 0, 0.05 * rng.standard_normal(rows.shape), 0)).astype(np.float16)
    with StoreWriter(out, store.contract) as writer:
        writer.append_many([replace(stored.scan, dataset="real", simulated=False) for stored in store.scans], rows)
    return out


def test_the_page_says_what_was_found(toy_store: Path, tmp_path: Path):
    against = copy_as_real(toy_store, tmp_path / "real")
    page = write_calibration(toy_store, against, tmp_path / "page.html").read_text()
    assert "AUROC of 1.00" in page
    assert "gradient" in page
    assert page.count('alt="real brain') == page.count('alt="simulated brain') > 6
    assert "AD: the same simulated person" in page
    assert "PD: the same simulated person" in page
    assert "http" not in page.replace("http-equiv", "")
    for wrong, problem in (((against, against), "holds real scans"), ((toy_store, toy_store), "holds simulated")):
        with pytest.raises(HeadstartError, match=problem):
            write_calibration(*wrong, tmp_path / "no.html")
    assert not (tmp_path / "no.html").exists()


def changed(source: Path, out: Path, age: Callable[[float], float | None], **change: Any) -> Path:
    """A store again, with other ages."""
    store = Store.open(source)
    scans = [replace(s.scan, age_years=s.scan.age_years and age(s.scan.age_years), **change) for s in store.scans]
    with StoreWriter(out, store.contract) as writer:
        writer.append_many(scans, store.rows(range(len(store))))
    return out


def test_a_page_of_people_below_60_leaves_the_late_slope_empty(toy_store: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("headstart.report.calibration.FEWEST", 5)
    monkeypatch.setattr("headstart.simulation.calibration.FEWEST", 5)
    monkeypatch.setattr("headstart.report.calibration.DIAGNOSES", ())
    young = changed(toy_store, tmp_path / "young", lambda age: 41 + age / 5, columns={"diagnosis": "CN"})
    real = changed(toy_store, tmp_path / "real", lambda age: age, dataset="real", simulated=False)
    page = write_calibration(young, real, tmp_path / "page.html").read_text()
    assert page.count("<td></td>") == len(CLASSES)  # measured on images
    assert "nan" not in page.split("<section id=\"images\">")[1].split("</section>")[0]
    assert page.count("Residual CV, %") == 1  # of images, where fluid has no reference; these people have no labels


def test_real_scans_without_any_age_are_refused(toy_store: Path, tmp_path: Path):
    real = changed(toy_store, tmp_path / "real", lambda _: None, dataset="real", simulated=False)
    with pytest.raises(HeadstartError, match="says nobody's age"):
        write_calibration(toy_store, real, tmp_path / "no.html")


def test_no_two_people_are_alike(long):
    """100,000 in the long form."""
    n = 100_000 if long else 4_000
    people = [draw_subject(i % 7, i, purpose=("upstream", "cohort")[i % 2]) for i in range(n)]
    parameters = np.array([[person.age, person.head_ml, *person.relative] for person in people])
    assert len(np.unique(parameters, axis=0)) == n
