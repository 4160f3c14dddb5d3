"""Simulated brains held against real ones: slopes with age, spread and sex differences of every structure.

The reference is ``ageing.TRAJECTORIES``: 291 IXI subjects of 40-86 years, volumes scaled to the mean intracranial
volume. Simulated volumes are measured on the tissue that is painted, tissue classes also on the images by an intensity
mixture that knows no parameter of the simulation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.brains.intensity import tissue_fractions
from headstart.errors import HeadstartError
from headstart.simulation.ageing import TRAJECTORIES, Trajectory

FEWEST = 30  # people; below, a slope is noise
CLASSES = ("csf", "grey", "white")


@dataclass(frozen=True)
class Line:
    """One structure, in the terms of the reference.

    Attributes:
        mean_60: at 60 years, in the units given.
        slope, late_slope: % of ``mean_60`` per decade, over all ages and from 60 years on.
        r: correlation with age. residual_cv: % of ``mean_60``. male: male over female, %.
    """

    structure: str
    mean_60: float
    slope: float
    late_slope: float
    r: float
    residual_cv: float
    male: float

    def agrees(self, reference: Trajectory) -> bool:
        """Slope within 30 % of the reference, or within one point where the reference is below 3 %."""
        tolerance = 0.3 * abs(reference.slope) if abs(reference.slope) >= 3 else 1.0
        return abs(self.slope - reference.slope) <= tolerance


def measure_line(structure: str, volumes: np.ndarray, ages: np.ndarray, male: np.ndarray) -> Line:
    """Least squares on age (years) of ``volumes``, each (n,); ``male`` is bool.

    Raises:
        HeadstartError: too few people.
    """
    if len(volumes) < FEWEST:
        raise HeadstartError(f"{len(volumes)} people are too few to measure a slope", fix=f"Simulate {FEWEST} or more.")
    slope, mean = np.polyfit(ages - 60, volumes, 1)
    late = np.polyfit(ages[ages >= 60] - 60, volumes[ages >= 60], 1)[0]
    residual = volumes - mean - slope * (ages - 60)
    per_mean = 100 / mean
    return Line(structure, float(mean), float(slope * 10 * per_mean), float(late * 10 * per_mean),
                float(np.corrcoef(ages, volumes)[0, 1]), float(residual.std() * per_mean),
                float((residual[male].mean() - residual[~male].mean()) * per_mean))


def calibrate(labels: Mapping[str, np.ndarray]) -> list[Line]:
    """One line for each structure with a reference, from the labels of simulated brains (``base.Brains.labels``)."""
    ages, male = np.asarray(labels["age"], float), np.asarray(labels["sex"]) == "M"
    return [measure_line(name, np.asarray(labels[f"{name}_rel"], float), ages, male) for name in TRAJECTORIES]


def fractions_in_images(volumes: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Shares of fluid, grey and white matter in prepared scans (X, Y, Z), by intensity alone; class -> (n,)."""
    shares = np.array([tissue_fractions(volume[volume != 0]) for volume in volumes])
    return dict(zip(CLASSES, shares.T))


def to_markdown(lines: Sequence[Line]) -> str:
    """The lines as a table, the reference in brackets."""
    rows = ["| structure | slope, % per decade | from 60 years | residual CV, % | male / female, % | agrees |",
            "| --- | --- | --- | --- | --- | --- |"]
    for line in lines:
        real = TRAJECTORIES[line.structure]
        cells = [f"{ours:+.1f} ({theirs:+.1f})" for ours, theirs in (
            (line.slope, real.slope), (line.late_slope, real.late_slope), (line.residual_cv, real.residual_cv),
            (line.male, real.male))]
        rows.append(f"| {line.structure.replace('_', ' ')} | " + " | ".join(cells)
                    + f" | {'yes' if line.agrees(real) else '**no**'} |")
    return "\n".join(rows) + "\n"


@dataclass(frozen=True)
class ImageSlope:
    """A measure taken on images by intensity alone, against age, site means removed.

    Attributes:
        slope: % of the mean per decade. low, high: its 95 % interval (least squares). r: with age. n: scans.
        truth: correlation with the label of the same name, where the scans have one.
    """

    measure: str
    slope: float
    low: float
    high: float
    r: float
    n: int
    truth: float | None = None


def image_slope(measure: str, values: np.ndarray, ages: np.ndarray, sites: Sequence[str],
                label: np.ndarray | None = None) -> ImageSlope:
    """``values`` (n,) against ``ages`` (years) within sites; ``label``: what is true of the same scans."""
    if len(values) < FEWEST:
        raise HeadstartError(f"{len(values)} scans are too few to measure a slope", fix=f"Give {FEWEST} or more.")
    x, y = within(ages, sites), within(values, sites)
    slope = float(x @ y / (x @ x))
    variance = float(((y - slope * x) ** 2).sum() / (len(x) - 1 - len(set(sites))))
    error = 1.96 * float(np.sqrt(variance / (x @ x)))
    scale = 1000 / float(np.mean(values))
    return ImageSlope(measure, slope * scale, (slope - error) * scale, (slope + error) * scale,
                      float(np.corrcoef(x, y)[0, 1]), len(values),
                      None if label is None else float(np.corrcoef(y, within(label, sites))[0, 1]))


def within(values: np.ndarray, sites: Sequence[str]) -> np.ndarray:
    """``values`` (n,) less the mean of each one's site."""
    site, out = np.asarray(sites), np.asarray(values, float).copy()
    for name in set(site.tolist()):
        out[site == name] -= out[site == name].mean()
    return out
