"""How large each structure is at a given age and sex: means, trajectories and correlated residuals.

Means and slopes from 40 to 86 years are those of 291 IXI subjects (DLMUSE volumes scaled to the mean intracranial
volume; docs/simulation.md has the table). Slopes below 40 follow the lifespan curves of Bethlehem et al. 2022
(Nature 604:525): grey matter falls from childhood on, white matter peaks at about 29 years, ventricles hardly grow
before 40.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

INTRACRANIAL_ML = 1367.0  # mean of the reference subjects
AGES_YEARS = (18.0, 90.0)
REFERENCE_YEARS = (40.0, 86.0)
# The least-squares line over the reference's years of max(age - 60, 0) is LATE * (age - 60) + BEND_YEARS.
LATE, BEND_YEARS = 0.5973, 5.556


@dataclass(frozen=True)
class Trajectory:
    """One structure after scaling to the mean intracranial volume.

    Attributes:
        mean_ml: of the least-squares line over 40-86 years at 60, sexes averaged.
        slope, late_slope: % of ``mean_ml`` per decade over 40-86 years, and over 60-86 years.
        early_slope: % per decade between 18 and 40 years.
        residual_cv: standard deviation of what age alone leaves, % of the mean.
        male: male over female, %.
    """

    mean_ml: float
    slope: float
    late_slope: float
    early_slope: float
    residual_cv: float
    male: float

    def relative(self, age: np.ndarray) -> np.ndarray:
        """Expected volume at ``age`` (years) over the mean at 60.

        Mean and slopes are least-squares lines'. People of 40-86 years, evenly spread, whose volumes bend at 60, have
        them if the bend lies ``BEND_YEARS`` times the change of slope below the line (and ``LATE`` of the slope is the
        late one's).
        """
        age = np.asarray(age, float)
        middle = (self.slope - LATE * self.late_slope) / (1 - LATE)
        change = (self.late_slope * (np.maximum(age - 60, 0) - BEND_YEARS)
                  + middle * (np.clip(age - 60, -20, 0) + BEND_YEARS)
                  + self.early_slope * np.minimum(age - 40, 0))
        return np.maximum(1 + change / 1000, 0.2)

    @property
    def within_sex(self) -> float:
        """Standard deviation of what age and sex leave, over the mean."""
        return float(np.sqrt(self.residual_cv**2 - (self.male / 2) ** 2)) / 100


TRAJECTORIES = {
    "grey": Trajectory(607.0, -3.6, -4.0, -3.5, 3.7, -1.9),
    "white": Trajectory(531.0, -0.5, -0.7, 1.0, 3.6, 0.0),
    "lateral_ventricles": Trajectory(22.4, 26.7, 40.5, 5.0, 45.5, 14.6),
    "third_ventricle": Trajectory(1.0, 27.6, 42.0, 5.0, 43.0, 17.1),
    "hippocampus": Trajectory(7.5, -1.5, -2.7, 0.0, 8.2, -5.7),
    "amygdala": Trajectory(2.0, -2.3, -4.3, 0.0, 8.8, -3.5),
    "thalamus": Trajectory(14.9, -4.0, -5.1, -3.0, 6.4, -4.3),
    "putamen": Trajectory(7.9, -2.6, -0.9, -4.0, 9.0, -5.1),
    "caudate": Trajectory(6.2, -0.9, 2.2, -3.0, 10.6, -6.7),
    "entorhinal": Trajectory(3.6, -2.8, -5.6, 0.0, 10.8, 0.4),
}
STRUCTURES = tuple(TRAJECTORIES)
# The reference's whole brain holds the ventricles, as its slope shows (grey + white alone would fall faster).
WHOLE_BRAIN = Trajectory(1182.0, -1.5, -1.5, -1.5, 2.1, -0.7)
INTRACRANIAL = Trajectory(INTRACRANIAL_ML, -0.9, 0.8, 0.0, 10.9, 15.6)  # unscaled
# What grey and white matter leave of the reference's head is fluid: its slopes follow, its spread is not known.
FLUID = Trajectory(229.0, 10.7, 12.2, 10.0, float("nan"), float("nan"))
REFERENCE = {"intracranial": INTRACRANIAL, "brain": WHOLE_BRAIN, **TRAJECTORIES}  # all that brains are held against

# Correlations of the residuals: grey and white trade places at a fixed brain size (their CVs of 3.7 and 3.6 % leave
# 2.1 % for the whole brain only then), ventricles take from both, neighbours go together.
_CORRELATED = {
    ("grey", "white"): -0.35, ("grey", "lateral_ventricles"): -0.25, ("white", "lateral_ventricles"): -0.2,
    ("lateral_ventricles", "third_ventricle"): 0.65, ("grey", "third_ventricle"): -0.2,
    ("hippocampus", "amygdala"): 0.5, ("hippocampus", "entorhinal"): 0.4, ("amygdala", "entorhinal"): 0.3,
    ("grey", "hippocampus"): 0.25, ("grey", "amygdala"): 0.2, ("grey", "entorhinal"): 0.3,
    ("grey", "thalamus"): 0.2, ("grey", "putamen"): 0.2, ("grey", "caudate"): 0.15,
    ("thalamus", "putamen"): 0.3, ("thalamus", "caudate"): 0.3, ("putamen", "caudate"): 0.45,
    ("thalamus", "hippocampus"): 0.3, ("thalamus", "lateral_ventricles"): -0.15,
    ("hippocampus", "lateral_ventricles"): -0.15,
}


def residual_correlation() -> np.ndarray:
    """(k, k) correlation of the residuals of ``STRUCTURES``."""
    matrix = np.eye(len(STRUCTURES))
    for (first, second), value in _CORRELATED.items():
        i, j = STRUCTURES.index(first), STRUCTURES.index(second)
        matrix[i, j] = matrix[j, i] = value
    return matrix


_CHOLESKY = np.linalg.cholesky(residual_correlation())


def expected_relative(age: float, male: bool) -> np.ndarray:
    """(k,) expected volume of ``STRUCTURES`` over the mean at 60 years, at one fixed head size."""
    sexed = [t.relative(np.array(age)) * (1 + (0.5 if male else -0.5) * t.male / 100) for t in TRAJECTORIES.values()]
    return np.array(sexed, float)


def draw_relative(rng: np.random.Generator, age: float, male: bool) -> np.ndarray:
    """(k,) one subject's volumes of ``STRUCTURES`` over the means at 60 years, at one fixed head size.

    Residuals are normal on the log scale, so that ventricles are skewed to the right and no volume is negative.
    """
    mean = expected_relative(age, male)
    spread = np.array([t.within_sex for t in TRAJECTORIES.values()])
    # A CV is given over the mean at 60; expressed at this age it keeps ventricles from exploding in the old.
    sigma = np.sqrt(np.log1p((spread / np.sqrt(mean)) ** 2))
    z = np.clip(_CHOLESKY @ rng.standard_normal(len(STRUCTURES)), -2.8, 2.8)
    return mean * np.exp(sigma * z - sigma**2 / 2)


def draw_head_ml(rng: np.random.Generator, male: bool) -> float:
    """One subject's intracranial volume in mL."""
    mean = INTRACRANIAL_ML * (1 + (0.5 if male else -0.5) * INTRACRANIAL.male / 100)
    return float(mean * (1 + INTRACRANIAL.within_sex * np.clip(rng.standard_normal(), -2.5, 2.5)))
