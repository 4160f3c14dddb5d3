"""Brains from real anatomies: any folder of label maps with FreeSurfer ids becomes a population.

A subject takes one anatomy, mirrored or not and smoothly warped, whose structures are then dilated or shrunk, and whose
cortical ribbon is moved at both borders, until the volumes are those that age, sex and chance ask for. Real sulci stay
real. Space freed by tissue is filled by fluid, so volumes are true of the image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from headstart.brains.volumes import VolumeSpec
from headstart.errors import HeadstartError
from headstart.simulation.ageing import INTRACRANIAL_ML, STRUCTURES, TRAJECTORIES
from headstart.simulation.anatomies import (
    BANK_GRID,
    COLUMNS,
    FIXED,
    PIAL_MM,
    PUSH_GRID,
    PUSHES,
    WHITE_MM,
    Anatomy,
    load_anatomy,
)
from headstart.simulation.base import GREY, TISSUES, WHITE, Shape, Subject
from headstart.simulation.fields import kept_world, sample, smooth_field

TEMPLATE_INTRACRANIAL_ML = 1880.0  # the template's own brain mask with its fluid
PUSH_LEVELS_MM = (-5.0, -2.5, 0.0, 2.5, 5.0, 8.0)
WARP_MM = ((45.0, 1.8), (22.0, 0.8))  # distance of the knots, standard deviation of the displacement
TILT_DEGREES, SHIFT_MM, STRETCH = 1.2, 0.8, 0.012  # standard deviations of what an affine registration leaves
ROUNDS = 3  # of pushing and measuring
NEAR = (0.6, 0.8, 0.3, 0.4, 0.3, 0.3, 0.3)  # log distance, per structure of ``PUSHES``, one is readily pushed over
ENTORHINAL_ML = 1.9  # mean at 60 years of what the soft ball of the bank holds, thinned so that some keep more


@dataclass(frozen=True)
class LabelMapGenerator:
    """Generator over the label maps in ``folder`` (``*.nii[.gz]`` or ``*.mgz``).

    Raises:
        HeadstartError: the folder holds none.
    """

    folder: Path
    name: str = "labelmaps"
    paths: tuple[Path, ...] = field(init=False)

    def __post_init__(self) -> None:
        patterns = ("*.nii.gz", "*.nii", "*.mgz")
        found = tuple(sorted(path for pattern in patterns for path in Path(self.folder).glob(pattern)))
        if not found:
            raise HeadstartError("holds no label maps (*.nii, *.nii.gz, *.mgz)", path=self.folder,
                                 fix="Give a folder of FreeSurfer or SynthSeg segmentations.")
        object.__setattr__(self, "paths", found)

    def shape(self, subject: Subject, spec: VolumeSpec) -> Shape:
        """Tissue of one subject; see ``base.Shape``."""
        rng = subject.rng("shape")
        wanted = np.array([target_ml(subject, name) for name in PUSHES])
        anatomy, response = self._likely(rng, wanted, spec)
        native_over_rel = subject.head_ml / TEMPLATE_INTRACRANIAL_ML
        points = _warped(rng, spec)
        unit, aim = _unit_pushes(anatomy, points), wanted
        for _ in range(ROUNDS):  # the warp changes volumes too: measure what came out and aim again
            columns = _pushed(anatomy, points, unit, response.amounts(aim))
            aim = aim * np.clip(wanted / _structures_ml(columns, spec), 0.6, 1.6)
        return Shape(_mixed(columns, subject, spec), columns[:, COLUMNS.index("depth_mm")], native_over_rel)


    def _likely(self, rng: np.random.Generator, wanted_ml: np.ndarray, spec: VolumeSpec) -> tuple[Anatomy, Response]:
        """An anatomy drawn with odds that fall with the distance it would have to be pushed."""
        candidates = [_anatomy(path, spec) for path in self.paths]
        far = np.array([np.log(wanted_ml / response.rest_ml) for _, response in candidates]) / np.array(NEAR)
        odds = np.exp(-0.5 * (far**2).sum(1)) + 1e-6
        return candidates[int(rng.choice(len(candidates), p=odds / odds.sum()))]


def target_ml(subject: Subject, structure: str) -> float:
    """The volume in template space (mL) that the subject should have."""
    mean = TRAJECTORIES[structure].mean_ml * TEMPLATE_INTRACRANIAL_ML / INTRACRANIAL_ML
    return mean * float(subject.relative[STRUCTURES.index(structure)])


@dataclass(frozen=True)
class Response:
    """How volumes answer to pushes: pushing one structure also squeezes its neighbours.

    Attributes:
        rest_ml: (k,) volumes of ``PUSHES`` unpushed.
        log_change: (k, k, levels) log change of volume i when structure j alone is pushed by each of
            ``PUSH_LEVELS_MM``; changes of several pushes add up.
    """

    rest_ml: np.ndarray
    log_change: np.ndarray

    def amounts(self, wanted_ml: np.ndarray, rounds: int = 6) -> np.ndarray:
        """(k,) pushes in mm that bring every structure to its volume (k,), within the levels tried."""
        amounts = np.zeros(len(wanted_ml))
        own = [np.maximum.accumulate(self.log_change[i, i]) for i in range(len(amounts))]
        for _ in range(rounds):  # Gauss-Seidel: each in turn, given what the others do to it
            for i in range(len(amounts)):
                others = sum(np.interp(amounts[j], PUSH_LEVELS_MM, self.log_change[i, j])
                             for j in range(len(amounts)) if j != i)
                amounts[i] = np.interp(np.log(wanted_ml[i] / self.rest_ml[i]) - others, own[i], PUSH_LEVELS_MM)
        return amounts


@lru_cache(maxsize=64)
def _anatomy(path: Path, spec: VolumeSpec) -> tuple[Anatomy, Response]:
    anatomy = load_anatomy(path, spec)
    count = len(PUSHES)
    rest = _pushed_ml(anatomy, np.zeros(count), spec)
    alone = [[_pushed_ml(anatomy, level * np.eye(count)[j], spec) for level in PUSH_LEVELS_MM] for j in range(count)]
    log_change = np.log(np.maximum(np.array(alone), 1e-3) / rest)  # (pushed, levels, structures)
    return anatomy, Response(rest, log_change.transpose(2, 0, 1))


def _pushed_ml(anatomy: Anatomy, amounts_mm: np.ndarray, spec: VolumeSpec) -> np.ndarray:
    """(k,) volumes of the structures of ``PUSHES`` after these pushes, without a warp."""
    points = kept_world(spec)
    return _structures_ml(_pushed(anatomy, points, _unit_pushes(anatomy, points), amounts_mm), spec)


def _structures_ml(columns: torch.Tensor, spec: VolumeSpec) -> np.ndarray:
    """(k,) volumes of the structures of ``PUSHES``."""
    totals = columns.double().sum(0).numpy() * spec.spacing_mm**3 / 1000
    return np.maximum(totals[[COLUMNS.index(name) for name in PUSHES]], 1e-3)


def _unit_pushes(anatomy: Anatomy, points: torch.Tensor) -> torch.Tensor:
    """(n, k, 3) displacement of each point by a push of 1 mm of each structure."""
    return sample(anatomy.pushes, PUSH_GRID, points)[:, : 3 * len(PUSHES)].reshape(len(points), len(PUSHES), 3)


def _pushed(anatomy: Anatomy, points: torch.Tensor, unit: torch.Tensor, amounts_mm: np.ndarray) -> torch.Tensor:
    """(n, 24) columns of the bank at ``points`` after the pushes."""
    moved = torch.einsum("nkc,k->nc", unit, torch.from_numpy(amounts_mm).float())
    return sample(anatomy.bank, BANK_GRID, points - moved)


def _warped(rng: np.random.Generator, spec: VolumeSpec) -> torch.Tensor:
    """(n, 3) where each kept voxel looks in the anatomy: mirrored or not, misregistered a little, warped smoothly."""
    points = kept_world(spec)
    linear = np.eye(3) + STRETCH * rng.standard_normal((3, 3)) * (0.4 + 0.6 * np.eye(3))
    for axis, angle in enumerate(np.deg2rad(TILT_DEGREES) * rng.standard_normal(3)):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[[i, j], [i, j]], turn[i, j], turn[j, i] = np.cos(angle), -np.sin(angle), np.sin(angle)
        linear = turn @ linear
    if rng.random() < 0.5:
        linear = linear @ np.diag([-1.0, 1.0, 1.0])
    moved = points @ torch.from_numpy(linear.T).float()
    moved = moved + torch.from_numpy(SHIFT_MM * rng.standard_normal(3)).float()
    for knots_mm, sd_mm in WARP_MM:
        moved = moved + sd_mm * smooth_field(rng, spec, knots_mm, 3)
    return moved


def _mixed(columns: torch.Tensor, subject: Subject, spec: VolumeSpec) -> torch.Tensor:
    """(n, 24) columns -> (n, tissues): both borders of the cortex are put where grey and white have their volumes."""
    by = {name: columns[:, i] for i, name in enumerate(COLUMNS)}
    fixed = {name: by[name] for name in FIXED}
    ml = spec.spacing_mm**3 / 1000
    total = {name: float(value.double().sum()) * ml for name, value in fixed.items()}
    white = _at_total([by[f"white{w}"] for w in WHITE_MM],
                      target_ml(subject, "white") - sum(total[name] for name in WHITE if name in total), ml)
    rest = (1 - white - sum(fixed.values())).clamp(0, 1)
    grey_wanted = target_ml(subject, "grey") - sum(total[name] for name in GREY if name in total)
    csf = _at_total([torch.minimum(by[f"csf{s}"], rest) for s in PIAL_MM],
                    float(rest.double().sum()) * ml - grey_wanted, ml)
    ribbon = rest - csf
    entorhinal = ribbon * by["entorhinal"]
    lost = np.clip(1 - ENTORHINAL_ML * subject.target("entorhinal") / (float(entorhinal.sum()) * ml), 0, 0.6)
    tissues = {**fixed, "white": white, "entorhinal": entorhinal * (1 - lost), "cortex": ribbon - entorhinal,
               "csf": csf + entorhinal * lost}
    return torch.stack([tissues[name] for name in TISSUES], 1)


def _at_total(levels: list[torch.Tensor], wanted_ml: float, ml: float) -> torch.Tensor:
    """The mixture of two neighbouring ``levels`` (rising totals) whose total is ``wanted_ml``, or the nearest level."""
    totals = np.maximum.accumulate([float(level.double().sum()) * ml for level in levels])
    position = float(np.interp(wanted_ml, totals, np.arange(len(levels))))
    low = min(int(position), len(levels) - 2)
    return torch.lerp(levels[low], levels[low + 1], position - low)
