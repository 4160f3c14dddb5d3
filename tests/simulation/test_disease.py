"""Diseases are as hard to tell as real ones are, and grow with stage."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.errors import HeadstartError
from headstart.simulation.base import LOSSES, draw_subject
from headstart.simulation.cohort import Design
from headstart.simulation.disease import DIFFICULTIES, DISEASES


def true_auc(cohort: str, difficulty: str, n: int = 1500, losses: bool = True) -> float:
    """Out-of-fold AUC of logistic regression on what is true of people: volumes, age and sex, and ``losses``."""
    design = Design(cohort=cohort, seed=5, difficulty=difficulty)
    people = [design.person(index) for index in range(n)]
    regions = LOSSES if losses else ()
    features = [[*np.log(person.relative), *(person.losses[name] for name in regions), person.age, person.sex == "M"]
                for person in people]
    ill = np.array([person.diagnosis != "CN" for person in people])
    model = make_pipeline(StandardScaler(), LogisticRegression())
    return roc_auc_score(ill, cross_val_predict(model, np.array(features), ill, cv=5, method="predict_proba")[:, 1])


@pytest.mark.parametrize(("cohort", "low", "high", "with_losses"), [("ad", 0.85, 0.92, 0.95), ("pd", 0.62, 0.75, 0.8)])
def test_default_difficulty_is_that_of_real_cohorts(cohort, low, high, with_losses):
    volumes = true_auc(cohort, "default", losses=False)
    assert low <= volumes <= high
    assert volumes < true_auc(cohort, "default") <= with_losses


@pytest.mark.parametrize("cohort", DISEASES)
def test_difficulties_are_in_order(cohort):
    easy, default, hard = (true_auc(cohort, name, 800) for name in ("easy", "default", "hard"))
    assert easy > default > hard


@pytest.mark.parametrize(("cohort", "region"), [("ad", "temporo_parietal"), ("pd", "nigra")])
def test_no_region_gives_patients_away(cohort, region):
    people = [Design(cohort=cohort, seed=6).person(index) for index in range(1000)]
    lost, ill = np.array([p.losses[region] for p in people]), np.array([p.diagnosis != "CN" for p in people])
    assert 0.65 < roc_auc_score(ill, lost) < 0.85


def test_loss_grows_with_stage_and_stage_zero_is_health():
    subject, disease = draw_subject(0, 0), DISEASES["ad"]
    hippocampus = [disease.affect(subject, stage).target("hippocampus") for stage in (0.0, 0.3, 0.6, 1.0)]
    assert hippocampus[0] == subject.target("hippocampus")
    assert hippocampus == sorted(hippocampus, reverse=True)
    ventricles = [disease.affect(subject, stage).target("lateral_ventricles") for stage in (0.0, 0.5, 1.0)]
    assert ventricles == sorted(ventricles)


def test_patients_are_as_old_as_controls():
    people = [Design(cohort="ad", seed=1).person(index) for index in range(1000)]
    ages = {name: np.mean([p.age for p in people if p.diagnosis == name]) for name in ("CN", "AD")}
    assert abs(ages["CN"] - ages["AD"]) < 2


@pytest.mark.parametrize(("stage", "difficulty"), [(1.5, "default"), (-0.1, "default"), (0.5, "brutal")])
def test_what_does_not_exist_is_refused(stage, difficulty):
    with pytest.raises(HeadstartError):
        DISEASES["pd"].affect(draw_subject(0, 0), stage, difficulty)


def test_difficulties_are_named_as_documented():
    assert set(DIFFICULTIES) == {"easy", "default", "hard"}
