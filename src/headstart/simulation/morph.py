"""What generators that deform a bank of tissue maps share: target volumes, pushes that reach them, chance of shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from headstart.brains.volumes import VolumeSpec
from headstart.simulation.ageing import INTRACRANIAL_ML, STRUCTURES, TRAJECTORIES
from headstart.simulation.anatomies import BANK_GRID, PUSH_GRID, PUSHES
from headstart.simulation.base import Subject
from headstart.simulation.fields import kept_world, sample, smooth_field

TEMPLATE_INTRACRANIAL_ML = 1880.0  # the template's own brain mask with its fluid
PUSH_LEVELS_MM = (-5.0, -2.5, 0.0, 2.5, 5.0, 8.0)


@dataclass(frozen=True)
class Chance:
    """How far shapes differ by chance; all but the knots are standard deviations.

    Attributes:
        warp_mm: (distance of the knots, displacement) of each smooth field.
        tilt_degrees, shift_mm, stretch: what an affine registration leaves.
    """

    warp_mm: tuple[tuple[float, float], ...]
    tilt_degrees: float
    shift_mm: float
    stretch: float


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
        count = len(wanted_ml)
        amounts, change = np.zeros(count), np.log(wanted_ml / self.rest_ml)
        own = [np.maximum.accumulate(self.log_change[i, i]) for i in range(count)]
        of_others = np.zeros((count, count))  # what pushing j does to i
        for _ in range(rounds):  # Gauss-Seidel: each in turn, given what the others do to it
            for i in range(count):
                wanted = change[i] - of_others[i].sum() + of_others[i, i]
                amounts[i] = np.interp(wanted, own[i], PUSH_LEVELS_MM)
                of_others[:, i] = _interpolated(amounts[i], self.log_change[:, i])
        return amounts


def _interpolated(amount: float, levels: np.ndarray) -> np.ndarray:
    """(k,) values of the rows of (k, levels) at a push of ``amount`` mm."""
    high = int(np.clip(np.searchsorted(PUSH_LEVELS_MM, amount), 1, len(PUSH_LEVELS_MM) - 1))
    share = (amount - PUSH_LEVELS_MM[high - 1]) / (PUSH_LEVELS_MM[high] - PUSH_LEVELS_MM[high - 1])
    return levels[:, high - 1] * (1 - share) + levels[:, high] * share


def measure_response(bank: torch.Tensor, pushes: torch.Tensor, columns: Sequence[str]) -> Response:
    """Push each structure of a bank alone, by each level, and measure all of them (on the 4 mm grid)."""
    places = [columns.index(name) for name in PUSHES]

    points = kept_world(PUSH_GRID)
    unit = unit_pushes(pushes, points)

    def volumes_ml(amounts_mm: np.ndarray) -> np.ndarray:
        values = sample(bank, BANK_GRID, points - pushed(unit, amounts_mm))
        return np.maximum(values.double().sum(0).numpy()[places] * PUSH_GRID.spacing_mm**3 / 1000, 1e-3)

    rest = volumes_ml(np.zeros(len(PUSHES)))
    alone = [[volumes_ml(level * unit) for level in PUSH_LEVELS_MM] for unit in np.eye(len(PUSHES))]
    return Response(rest, np.log(np.array(alone) / rest).transpose(2, 0, 1))  # from (pushed, levels, measured)


def unit_pushes(pushes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(n, k, 3) displacement at ``points`` (n, 3) for a push of 1 mm of each structure."""
    return sample(pushes, PUSH_GRID, points)[:, :3 * len(PUSHES)].reshape(len(points), len(PUSHES), 3)


def pushed(unit: torch.Tensor, amounts_mm: np.ndarray) -> torch.Tensor:
    """(n, 3) mm: ``unit_pushes`` by these amounts (k,), added up."""
    return torch.einsum("nkc,k->nc", unit, torch.from_numpy(amounts_mm).float())


def warped(rng: np.random.Generator, spec: VolumeSpec, chance: Chance) -> tuple[torch.Tensor, float]:
    """A subject's shape by chance: mirrored or not, misregistered a little, warped smoothly.

    Returns:
        (n, 3) mm, where each kept voxel looks in the bank; and how much smaller that makes every volume.
    """
    linear = np.eye(3) + chance.stretch * rng.standard_normal((3, 3)) * (0.4 + 0.6 * np.eye(3))
    linear = _rotation(np.deg2rad(chance.tilt_degrees) * rng.standard_normal(3)) @ linear
    if rng.random() < 0.5:
        linear = linear @ np.diag([-1.0, 1.0, 1.0])
    moved = kept_world(spec) @ torch.from_numpy(linear.T).float()
    moved = moved + torch.from_numpy(chance.shift_mm * rng.standard_normal(3)).float()
    for knots_mm, sd_mm in chance.warp_mm:
        moved = moved + sd_mm * smooth_field(rng, spec, knots_mm, 3)
    return moved, abs(float(np.linalg.det(linear)))


def _rotation(angles: np.ndarray) -> np.ndarray:
    """(3, 3) turn by ``angles`` (radians) about x, y and z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (k for k in range(3) if k != axis)
        turn = np.eye(3)
        turn[[i, j], [i, j]], turn[i, j], turn[j, i] = np.cos(angle), -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix
