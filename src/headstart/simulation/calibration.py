"""Simulated brains held against real ones: slopes with age, spread and sex differences of every structure.

The reference is ``ageing.REFERENCE``: 291 IXI subjects of 40-86 years, volumes scaled to the mean intracranial volume.
Simulated volumes are measured on the tissue that is painted, tissue classes also on the images (``segment.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.brains.intensity import tissue_fractions
from headstart.errors import HeadstartError
from headstart.simulation.ageing import REFERENCE, Trajectory

FEWEST = 30  # people; below, a slope is noise
CLASSES = ("csf", "grey", "white")
FIGURES = ("slope", "late_slope", "residual_cv", "male")


@dataclass(frozen=True)
class Line:
    """One structure, in the terms of the reference.

    Attributes:
        mean_60: at 60 years, in the units given.
        slope, late_slope: % of ``mean_60`` per decade, over all ages and from 60 years on (NaN where nobody is older).
        r: correlation with age. residual_cv: % of ``mean_60``. male: male over female, %.
        n: people.
    """

    structure: str
    mean_60: float
    slope: float
    late_slope: float
    r: float
    residual_cv: float
    male: float
    n: int

    def close(self, figure: str, reference: Trajectory) -> bool:
        """Whether one of ``FIGURES`` is within 30 % of the reference, or one point where the reference is below 3."""
        ours, theirs = getattr(self, figure), getattr(reference, figure)
        return abs(ours - theirs) <= (0.3 * abs(theirs) if abs(theirs) >= 3 else 1.0)

    def agrees(self, reference: Trajectory) -> bool:
        """Whether both slopes are close, or the one that was measured."""
        return self.close("slope", reference) and (np.isnan(self.late_slope) or self.close("late_slope", reference))


def measure_line(structure: str, volumes: np.ndarray, ages: np.ndarray, male: np.ndarray) -> Line:
    """Least squares on age (years) of ``volumes``, each (n,); ``male`` is bool.

    Raises:
        HeadstartError: too few people.
    """
    if len(volumes) < FEWEST:
        raise HeadstartError(f"{len(volumes)} people are too few to measure a slope", fix=f"Simulate {FEWEST} or more.")
    slope, mean = np.polyfit(ages - 60, volumes, 1)
    old = ages >= 60
    late = np.polyfit(ages[old] - 60, volumes[old], 1)[0] if len(set(ages[old].tolist())) > 1 else np.nan
    residual = volumes - mean - slope * (ages - 60)
    per_mean = 100 / mean
    return Line(structure, float(mean), float(slope * 10 * per_mean), float(late * 10 * per_mean),
                float(np.corrcoef(ages, volumes)[0, 1]), float(residual.std() * per_mean),
                float((residual[male].mean() - residual[~male].mean()) * per_mean), len(volumes))


def label_of(structure: str) -> str:
    """The column of labels that holds a structure of the reference."""
    return "head_ml" if structure == "intracranial" else f"{structure}_rel"


def calibrate(labels: Mapping[str, np.ndarray]) -> list[Line]:
    """One line for each structure with a reference, from the labels of simulated brains (``base.Brains.labels``)."""
    ages, male = np.asarray(labels["age"], float), np.asarray(labels["sex"]) == "M"
    return [measure_line(name, np.asarray(labels[label_of(name)], float), ages, male) for name in REFERENCE]


def fractions_in_images(volumes: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Shares of fluid, grey and white matter in prepared scans (X, Y, Z), by intensity alone; class -> (n,)."""
    shares = np.array([tissue_fractions(volume[volume != 0]) for volume in volumes])
    return dict(zip(CLASSES, shares.T))


def measure_in_images(values: Mapping[str, np.ndarray], ages: np.ndarray, male: np.ndarray,
                      sites: Sequence[str]) -> list[Line]:
    """One line for each volume measured on images (``segment.tissue_ml``), site means removed."""
    return [measure_line(name, within(column, sites) + column.mean(), ages, male) for name, column in values.items()]


def to_markdown(lines: Sequence[Line]) -> str:
    """The lines as a table, the reference in brackets, what is not close to it in bold."""
    rows = ["| structure | slope, % per decade | from 60 years | residual CV, % | male / female, % | agrees |",
            "| --- | --- | --- | --- | --- | --- |"]
    for line in lines:
        real = REFERENCE[line.structure]
        cells = [f"{getattr(line, figure):+.1f} ({getattr(real, figure):+.1f})" for figure in FIGURES]
        marked = [cell if line.close(figure, real) else f"**{cell}**" for cell, figure in zip(cells, FIGURES)]
        rows.append(f"| {line.structure.replace('_', ' ')} | " + " | ".join(marked)
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
