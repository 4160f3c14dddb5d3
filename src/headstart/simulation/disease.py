"""Alzheimer's and Parkinson's disease as losses of tissue that grow with stage.

Sizes at full stage are set so that a linear model on true volumes tells patients as well as it would in real cohorts
(AUC of 0.85-0.92 and 0.62-0.75 at ``default`` difficulty). At full stage Alzheimer's disease takes 20-23 % of
hippocampus and entorhinal cortex and enlarges the ventricles by 60 %, as in late disease (Frisoni et al., Nat Rev
Neurol 2010); over the stages of a cohort these are 14 and 16 %, and 35 %. Parkinson's disease changes the same places
as in ENIGMA-PD (Laansma et al., Mov Disord 2021), and more: d of -0.6 in putamen and amygdala, where real patients have
-0.1 to -0.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from headstart.errors import HeadstartError
from headstart.simulation.ageing import STRUCTURES
from headstart.simulation.base import Subject

DIFFICULTIES = {"easy": 1.7, "default": 1.0, "hard": 0.55}  # multiplies every effect
HETEROGENEITY = 0.35  # standard deviation, from patient to patient, of each region's effect over its mean


@dataclass(frozen=True)
class Disease:
    """What a disease does at full stage.

    Attributes:
        volumes: structure -> log change of its volume.
        losses: region -> share of its tissue lost, on top of what nature took (``Subject.losses``).
        stages: range of stage in which patients are seen, uniform.
    """

    diagnosis: str
    volumes: Mapping[str, float]
    losses: Mapping[str, float]
    stages: tuple[float, float] = (0.3, 1.0)

    def affect(self, subject: Subject, stage: float, difficulty: str = "default") -> Subject:
        """The same person with the disease at ``stage`` (0 healthy, 1 advanced).

        Raises:
            HeadstartError: no such difficulty, or a stage outside 0 to 1.
        """
        if difficulty not in DIFFICULTIES:
            raise HeadstartError(f"unknown difficulty '{difficulty}'", fix=f"Choose one of: {', '.join(DIFFICULTIES)}.")
        if not 0 <= stage <= 1:
            raise HeadstartError(f"stage {stage:g} is not between 0 and 1")
        rng = subject.rng("disease")
        size = stage * DIFFICULTIES[difficulty]
        change = np.zeros(len(STRUCTURES))
        for name, effect in self.volumes.items():
            change[STRUCTURES.index(name)] = effect * size * _varied(rng)
        taken = {name: share * size * _varied(rng) for name, share in self.losses.items()}
        losses = {name: lost + taken.get(name, 0.0) for name, lost in subject.losses.items()}
        return replace(subject, relative=subject.relative * np.exp(change), losses=losses, diagnosis=self.diagnosis,
                       stage=stage)

    def draw_stage(self, rng: np.random.Generator) -> float:
        return float(rng.uniform(*self.stages))


def _varied(rng: np.random.Generator) -> float:
    return max(1 + HETEROGENEITY * rng.standard_normal(), 0.0)


DISEASES = {
    "ad": Disease("AD", {"hippocampus": -0.22, "entorhinal": -0.26, "amygdala": -0.18, "lateral_ventricles": 0.48,
                         "third_ventricle": 0.3, "grey": -0.035, "white": -0.01, "thalamus": -0.04},
                  {"temporo_parietal": 0.10}),
    "pd": Disease("PD", {"putamen": -0.075, "amygdala": -0.075, "caudate": -0.035, "thalamus": -0.025, "grey": -0.015,
                         "hippocampus": -0.035, "lateral_ventricles": 0.1},
                  {"nigra": 0.3}),
}
