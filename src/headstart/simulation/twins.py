"""The same simulated person with and without a disease: what the disease changes, and nothing else."""

from __future__ import annotations

import numpy as np

from headstart.brains.volumes import VolumeSpec
from headstart.simulation.anatomy import AnatomyGenerator
from headstart.simulation.base import Subject, draw_subject
from headstart.simulation.disease import DISEASES
from headstart.simulation.scanner import acquire, as_prepared, draw_scanner

DIAGNOSES = tuple(disease.diagnosis for disease in DISEASES.values())
AGES = (69.0, 71.0)  # years


def twins(diagnosis: str, spec: VolumeSpec, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Subject]:
    """(healthy, ill, the person): prepared scans (X, Y, Z) from one scanner, the disease at full stage."""
    disease = next(d for d in DISEASES.values() if d.diagnosis == diagnosis)
    subject = draw_subject(seed, 0, ages=AGES, purpose="cohort")
    scanner = draw_scanner(subject.rng("scanner"), purpose="cohort")
    generator = AnatomyGenerator()
    healthy, ill = (as_prepared(acquire(generator.shape(person, spec), person, scanner, spec), spec).numpy()
                    for person in (subject, disease.affect(subject, 1.0)))
    return healthy, ill, subject
