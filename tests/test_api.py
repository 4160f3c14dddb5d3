"""headstart from Python: a line to create, a line to ask, and estimators that scikit-learn takes for its own."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

import headstart
from headstart.brains.store import Store
from headstart.errors import HeadstartError
from headstart.modelfolder import load_model
from headstart.tasks import DECLARED
from headstart.training import predict

sys.path.insert(0, str(Path(__file__).parent))
from tiny_model import scan_path, write_model, write_scans

QUICK = {"epochs": 12, "batch_size": 8, "learning_rate": 2e-3}


def test_importing_headstart_imports_nothing_heavy() -> None:
    code = "import sys, headstart; sys.exit(bool({'torch', 'numpy', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert "BrainAgeRegressor" in dir(headstart)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        headstart.nothing_of_the_kind  # noqa: B018


def test_a_model_is_created_as_timm_does(tmp_path: Path) -> None:
    first, second, other = (headstart.create_model("vit-mini", num_outputs=3, seed=seed) for seed in (0, 0, 1))
    volumes = torch.zeros(2, 1, 40, 48, 40)
    assert first(volumes).shape == (2, 3)
    assert torch.equal(first.head.weight, second.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    start = write_model(tmp_path / "start", None, 5)
    begun = headstart.create_model("cnn-small", upstream=start, num_outputs=1)
    saved = headstart.create_model("cnn-small", upstream=start, num_outputs=2, seed=9)
    assert torch.equal(begun.backbone.blocks[0][0].weight, saved.backbone.blocks[0][0].weight)
    with pytest.raises(HeadstartError, match="unknown backbone"):
        headstart.create_model("vit-giant")


def test_a_finished_model_is_asked(tmp_path: Path) -> None:
    model = headstart.load(write_model(tmp_path / "model", DECLARED["sex"], 2))
    scan = scan_path(write_scans(tmp_path / "bids", 1), "sub-00")
    (tmp_path / "broken.nii").write_text("no")
    good, broken = model.predict_many([scan, tmp_path / "broken.nii"])
    assert good.value in ("F", "M")
    assert sum(good.probabilities.values()) == pytest.approx(1)
    assert good.verdict in ("ok", "flag")
    assert "RAS+" in good.done
    assert isinstance(broken, HeadstartError)


@pytest.fixture(scope="module")
def toy(toy_store: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A store, the rows that have an age, and the ages."""
    scans = [stored.scan for stored in Store.open(toy_store).scans]
    rows = np.array([row for row, scan in enumerate(scans) if scan.age_years is not None])
    return toy_store, rows, np.array([scans[row].age_years for row in rows])


@pytest.fixture(scope="module")
def fitted(toy: tuple[Path, np.ndarray, np.ndarray]):
    store, rows, ages = toy
    return headstart.BrainAgeRegressor(store=store, validation_fraction=0.4, **QUICK).fit(rows, ages)


def test_a_regressor_learns_from_store_rows(toy, fitted) -> None:
    _, rows, ages = toy
    predicted = fitted.predict(rows)
    assert predicted.shape == ages.shape
    assert np.corrcoef(predicted, ages)[0, 1] > 0.5
    intervals = fitted.predict_interval(rows)
    assert ((intervals[:, 0] < predicted) & (predicted < intervals[:, 1])).all()


def test_a_regressor_begins_with_what_its_start_says(toy) -> None:
    store, rows, _ = toy
    says, _ = load_model(Path(headstart.__file__).parent / "starts" / "brain-age-synthetic" / "cnn-small-4mm")
    said = predict(says, Store.open(store), rows)[:, 0]
    settings = dict(upstream="synthetic-mri", store=store, epochs=1, learning_rate=1e-7)
    for target in (said, -said):
        predicted = headstart.BrainAgeRegressor(**settings).fit(rows, target).predict(rows)
        assert (np.corrcoef(predicted, target)[0, 1] > 0.99) == (target is said)


def test_volumes_and_rows_are_the_same_scans(toy, fitted) -> None:
    store, rows, _ = toy
    from_volumes = clone(fitted).set_params(store=None)
    from_volumes.__dict__ |= {name: value for name, value in vars(fitted).items() if name.endswith("_")}
    volumes = Store.open(store).volumes(rows[:4]).numpy()
    assert from_volumes.predict(volumes) == pytest.approx(fitted.predict(rows[:4]), abs=1e-4)
    assert from_volumes.predict(volumes[:, 0]) == pytest.approx(from_volumes.predict(volumes))


def test_a_fitted_estimator_survives_pickling_and_clones_forget(toy, fitted) -> None:
    _, rows, _ = toy
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict(rows[:3]), fitted.predict(rows[:3]))
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "network_")


def test_grid_search_cross_validation_and_pipelines(toy) -> None:
    store, rows, ages = toy
    young = (ages < 50).astype(int)
    classifier = headstart.BrainClassifier(store=store, epochs=1, batch_size=8)
    pipeline = make_pipeline(FunctionTransformer(np.asarray), classifier)
    search = GridSearchCV(pipeline, {"brainclassifier__learning_rate": [1e-3, 1e-4]}, cv=2).fit(rows, young)
    assert search.best_params_["brainclassifier__learning_rate"] in (1e-3, 1e-4)
    shares = cross_val_predict(classifier, rows, young, cv=2, method="predict_proba")
    assert shares.shape == (len(rows), 2)
    assert shares.sum(1) == pytest.approx(np.ones(len(rows)))
    names = headstart.BrainClassifier(store=store, epochs=1).fit(rows, np.where(young, "young", "old"))
    assert set(names.predict(rows)) <= {"young", "old"}
    assert names.classes_.tolist() == ["old", "young"]


def test_paths_are_prepared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    bids = write_scans(tmp_path / "bids", 1)
    paths = [scan_path(bids, "sub-00")] * 4
    estimator = headstart.BrainAgeRegressor(epochs=1, validation_fraction=0.25).fit(paths, [20.0, 30.0, 40.0, 50.0])
    (kept,) = (tmp_path / "cache" / "prepared").rglob("*.npy")
    before = kept.stat().st_mtime_ns
    assert len(set(estimator.predict(np.array([str(path) for path in paths])))) == 1
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize(("X", "y", "words"), [
    ([], [], "no scans"),
    (np.zeros((4, 10)), [1.0] * 4, r"shape \(4, 10\)"),
    (np.full((4, 40, 48, 40), np.nan), [1.0] * 4, "NaN"),
    (["/nowhere/a.nii"] * 4, [1.0] * 4, "/nowhere/a.nii: does not exist"),
    (np.zeros((4, 40, 48, 40)), [1.0, 2.0], "4 scans have 2 targets"),
    (np.zeros((4, 40, 48, 40)), [1.0, 2.0, np.nan, 3.0], "not a finite number"),
    (np.zeros((2, 40, 48, 40)), [1.0, 2.0], None),
])
def test_bad_input_is_refused_in_words(X, y, words: str | None) -> None:
    estimator = headstart.BrainAgeRegressor(epochs=1, validation_fraction=0.0 if words is None else 0.2)
    if words is None:
        assert np.isfinite(estimator.fit(X, y).predict(X)).all()
        return
    with pytest.raises(HeadstartError, match=words):
        estimator.fit(X, y)


def test_one_class_is_refused() -> None:
    with pytest.raises(HeadstartError, match="one class only"):
        headstart.BrainClassifier().fit(np.zeros((4, 40, 48, 40)), ["a"] * 4)


APPLICABLE = (  # the checks of check_estimator that do not feed tables of features
    "check_estimator_cloneable", "check_estimator_tags_renamed", "check_valid_tag_types", "check_estimator_repr",
    "check_no_attributes_set_in_init", "check_get_params_invariance", "check_set_params",
    "check_parameters_default_constructible", "check_mixin_order")


@pytest.mark.parametrize("name", APPLICABLE)
@pytest.mark.parametrize("kind", ["BrainAgeRegressor", "BrainClassifier"])
def test_what_of_check_estimator_applies(name: str, kind: str) -> None:
    getattr(estimator_checks, name)(kind, getattr(headstart, kind)())


