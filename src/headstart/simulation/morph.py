"""What generators that deform a bank of tissue maps share: target volumes, pushes that reach them, chance of shape."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from headstart.brains.volumes import VolumeSpec
from headstart.simulation.ageing import INTRACRANIAL_ML, STRUCTURES, TRAJECTORIES
from headstart.simulation.anatomies import BANK_GRID, PUSH_GRID, PUSHES
from headstart.simulation.base import Subject
from headstart.simulation.fields import kept_world, sample, sample_sum, smooth_field

TEMPLATE_INTRACRANIAL_ML = 1880.0  # the template's own brain mask with its fluid
PUSH_LEVELS_MM = (-5.0, -2.5, 0.0, 2.5, 5.0, 8.0)
CORRECTIONS = 2  # rounds of pushing, measuring and pushing again
SOFT = (0.3, 0.3)  # range of a field over which one tissue gives way to the next: at 0 mm, and per mm of voxel
ROUNDS, FAR_ROUNDS, CLOSE = 6, 16, 1e-5  # of Newton's method at most, where the start is near or far; its error
ENTORHINAL_ML = 6.0  # in template space, of which the average subject has 5


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
        count = len(wanted_ml)  # plain lists: for so few numbers arrays are ten times as slow
        change = np.log(wanted_ml / self.rest_ml).tolist()
        own = [np.maximum.accumulate(self.log_change[i, i]).tolist() for i in range(count)]
        alone = self.log_change.transpose(1, 2, 0).tolist()  # [pushed][level][measured]
        amounts, effect = [0.0] * count, [[0.0] * count for _ in range(count)]  # effect[pushed][measured]
        for _ in range(rounds):  # Gauss-Seidel: each in turn, given what the others do to it
            for i in range(count):
                wanted = change[i] - sum(effect[j][i] for j in range(count) if j != i)
                low, share = _between(own[i], wanted)
                amounts[i] = (1 - share) * PUSH_LEVELS_MM[low] + share * PUSH_LEVELS_MM[low + 1]
                low, share = _between(PUSH_LEVELS_MM, amounts[i])
                effect[i] = [(1 - share) * a + share * b for a, b in zip(alone[i][low], alone[i][low + 1])]
        return np.array(amounts)


def _between(levels: Sequence[float], value: float) -> tuple[int, float]:
    """Which of the rising ``levels`` is below ``value``, and how far on to the next it is, from 0 to 1."""
    low = min(max(bisect_right(levels, value) - 1, 0), len(levels) - 2)
    step = levels[low + 1] - levels[low]
    return low, min(max((value - levels[low]) / step, 0.0), 1.0) if step > 0 else 0.0


@dataclass(frozen=True)
class Deformable:
    """A bank of tissue maps whose deep structures can be pushed to their volumes.

    Attributes:
        maps: (voxels of ``BANK_GRID``, at least k) whose column ``places[i]`` is the i-th structure of ``PUSHES``.
        pushes: (voxels of ``PUSH_GRID``, 24), three columns a structure of ``PUSHES``, unit vectors outward.
        response: how volumes answer to pushes.
        near: (voxels of ``PUSH_GRID``,) bool, where a structure may come to lie.
    """

    maps: torch.Tensor
    places: tuple[int, ...]
    pushes: torch.Tensor
    response: Response
    near: torch.Tensor

    @classmethod
    def of(cls, maps: torch.Tensor, places: Sequence[int], pushes: torch.Tensor,
           response: Response | None = None) -> Deformable:
        """With the response measured, unless it is known, and ``near`` found."""
        return cls(maps, tuple(places), pushes, response or measure_response(maps, places, pushes),
                   _within_reach(maps[:, list(places)]))

    def fitted(self, points: torch.Tensor, wanted_ml: np.ndarray, spec: VolumeSpec) -> torch.Tensor:
        """Where to read the bank, (3, n) mm, so that the structures have the volumes ``wanted_ml`` (k,).

        Args:
            points: (3, n) where each kept voxel looks in the bank, unpushed.
        """
        return points - self._pushed(points, self._amounts(points, wanted_ml, spec))

    def _amounts(self, points: torch.Tensor, wanted_ml: np.ndarray, spec: VolumeSpec) -> np.ndarray:
        """(k,) mm: the warp of ``points`` changes volumes too, so measure what comes out and aim again."""
        deep = points.index_select(1, _lookup(self.near, points))
        unit, aim = unit_pushes(self.pushes, deep), wanted_ml
        for _ in range(CORRECTIONS):
            moved = deep - pushed(unit, self.response.amounts(aim))
            aim = aim * np.clip(wanted_ml / _volumes_ml(self.maps, self.places, moved, spec), 0.6, 1.6)
        return self.response.amounts(aim)

    def _pushed(self, points: torch.Tensor, amounts_mm: np.ndarray) -> torch.Tensor:
        """(3, n) mm: all pushes, added up on their coarse grid before they are read."""
        matrix = F.pad(_stacked(amounts_mm), (0, self.pushes.shape[1] - 3 * len(PUSHES), 0, 1))  # rows of 16 bytes
        return sample((matrix @ self.pushes.float().T).T.contiguous(), PUSH_GRID, points, 3)


def measure_response(maps: torch.Tensor, places: Sequence[int], pushes: torch.Tensor) -> Response:
    """Push each structure of a bank alone, by each level, and measure all of them (on the 4 mm grid)."""
    points = kept_world(PUSH_GRID)
    unit = unit_pushes(pushes, points)

    def volumes_ml(amounts_mm: np.ndarray) -> np.ndarray:
        return _volumes_ml(maps, places, points - pushed(unit, amounts_mm), PUSH_GRID)

    rest = volumes_ml(np.zeros(len(PUSHES)))
    alone = [[volumes_ml(level * unit) for level in PUSH_LEVELS_MM] for unit in np.eye(len(PUSHES))]
    return Response(rest, np.log(np.array(alone) / rest).transpose(2, 0, 1))  # from (pushed, levels, measured)


def _volumes_ml(maps: torch.Tensor, places: Sequence[int], points: torch.Tensor, spec: VolumeSpec) -> np.ndarray:
    """(k,) volumes of the structures read at ``points`` (3, n), voxels of ``spec``; never quite zero."""
    return np.maximum(sample_sum(maps, BANK_GRID, points)[list(places)] * spec.spacing_mm**3 / 1000, 1e-3)


def unit_pushes(pushes: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(3 k, n) displacement at ``points`` (3, n) for a push of 1 mm of each structure."""
    return sample(pushes, PUSH_GRID, points, 3 * len(PUSHES))


def pushed(unit: torch.Tensor, amounts_mm: np.ndarray) -> torch.Tensor:
    """(3, n) mm: ``unit_pushes`` by these amounts (k,), added up."""
    return _stacked(amounts_mm) @ unit


def _stacked(amounts_mm: np.ndarray) -> torch.Tensor:
    """(3, 3 k) the matrix that adds up the pushes of each axis."""
    return torch.from_numpy(np.kron(amounts_mm, np.eye(3)).astype(np.float32))


def _within_reach(structures: torch.Tensor) -> torch.Tensor:
    """(voxels of ``PUSH_GRID``,) bool: within two voxels, the largest push, of any of ``structures`` (voxels, k)."""
    present = structures.amax(1).float().reshape(1, 1, *BANK_GRID.shape)
    coarse = F.max_pool3d(present, int(PUSH_GRID.spacing_mm / BANK_GRID.spacing_mm))
    return (F.max_pool3d(coarse, 5, stride=1, padding=2) > 0.01).ravel()


def _lookup(mask: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(m,) which of ``points`` (3, n) lie in a voxel of ``mask`` on ``PUSH_GRID``."""
    origin = torch.from_numpy(PUSH_GRID.affine[:3, 3:]).float()
    top = torch.tensor(PUSH_GRID.shape)[:, None] - 1.0
    x, y, z = torch.minimum(((points - origin) / PUSH_GRID.spacing_mm).round_().clamp_(min=0), top).int()
    return mask.index_select(0, (x * PUSH_GRID.shape[1] + y) * PUSH_GRID.shape[2] + z).nonzero()[:, 0]


def nigra_lost(subject: Subject) -> float:
    """Share of the substantia nigra that is gone; one that has more than others is whole."""
    return min(max(subject.losses["nigra"], 0.0), 0.9)


def above(phase: torch.Tensor, space: torch.Tensor, wanted_ml: float, spec: VolumeSpec,
          rounds: int = ROUNDS) -> torch.Tensor:
    """(n,) share of each voxel whose phase is above the threshold that gives ``wanted_ml`` (Newton's method)."""
    soft = SOFT[0] + SOFT[1] * spec.spacing_mm
    wanted = wanted_ml * 1000 / spec.spacing_mm**3
    level, share, threshold = phase / soft + 0.5, torch.empty_like(phase), 0.0
    for _ in range(rounds):
        share = torch.minimum(torch.sub(level, threshold / soft, out=share).clamp_(min=0), space, out=share)
        excess = float(share.sum()) - wanted
        if abs(excess) < CLOSE * wanted:
            break
        between = int((share < space).logical_and_(share > 0).sum())
        threshold += float(np.clip(excess / max(between / soft, 1.0), -0.5, 0.5))
    return share


def entorhinal_of(near: torch.Tensor, ribbon: torch.Tensor, subject: Subject,
                  spec: VolumeSpec) -> tuple[torch.Tensor, float]:
    """(n,) the entorhinal part of the cortex, as much in everyone, and the share of it that is not lost to fluid.

    Args:
        near: (n,) how near a place is to it.
        ribbon: (n,) all cortex, before that loss.
    """
    kept = min(1.0, target_ml(subject, "entorhinal") / ENTORHINAL_ML)
    return above(near, ribbon, ENTORHINAL_ML, spec, FAR_ROUNDS), kept


def warped(rng: np.random.Generator, spec: VolumeSpec, chance: Chance) -> tuple[torch.Tensor, float]:
    """A subject's shape by chance: mirrored or not, misregistered a little, warped smoothly.

    Returns:
        (3, n) mm, where each kept voxel looks in the bank; and how much smaller that makes every volume.
    """
    linear = np.eye(3) + chance.stretch * rng.standard_normal((3, 3)) * (0.4 + 0.6 * np.eye(3))
    linear = _rotation(np.deg2rad(chance.tilt_degrees) * rng.standard_normal(3)) @ linear
    if rng.random() < 0.5:
        linear = linear @ np.diag([-1.0, 1.0, 1.0])
    shift = torch.from_numpy(chance.shift_mm * rng.standard_normal((3, 1))).float()
    moved = torch.addmm(shift, torch.from_numpy(linear).float(), kept_world(spec))
    moved += smooth_field(rng, spec, chance.warp_mm, 3)
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
