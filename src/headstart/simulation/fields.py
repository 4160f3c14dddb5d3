"""Grids in millimetres, smooth random fields and trilinear sampling of many channels at once.

Channels come first everywhere: one structure's voxels lie side by side, and single structures are worked on in place.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as functional

from headstart.brains.volumes import VolumeSpec, template

Bands = tuple[tuple[float, float], ...]
CHUNK = 1 << 15  # points read at once: what is computed for them stays in the processor's cache


@lru_cache(maxsize=4)
def kept_voxels(spec: VolumeSpec) -> torch.Tensor:
    """(n,) flat indices of the voxels that a store keeps: the template brain and an 8 mm rim."""
    return torch.from_numpy(np.flatnonzero(template(spec.name).kept))


@lru_cache(maxsize=4)
def kept_world(spec: VolumeSpec) -> torch.Tensor:
    """(3, n) world coordinates in mm of ``kept_voxels``, float32."""
    ijk = np.stack(np.unravel_index(kept_voxels(spec).numpy(), spec.shape))
    return torch.from_numpy((ijk * spec.spacing_mm + spec.affine[:3, 3:]).astype(np.float32))


def scatter(values: torch.Tensor, spec: VolumeSpec, outside: float = 0.0) -> torch.Tensor:
    """(n,) values of the kept voxels -> (X, Y, Z), ``outside`` elsewhere."""
    flat = torch.full((int(np.prod(spec.shape)),), outside, dtype=values.dtype)
    return flat.index_copy_(0, kept_voxels(spec), values).reshape(spec.shape)


@lru_cache(maxsize=32)
def _basis(length: int, spacing_mm: float, knots_mm: float) -> torch.Tensor:
    """(length, knots) cubic B-spline basis along one axis."""
    at = np.arange(length) * spacing_mm / knots_mm + 1.5
    x = np.abs(at[:, None] - np.arange(int(at[-1]) + 3)[None])
    inner = 2 / 3 - x**2 + x**3 / 2
    outer = np.maximum(2 - x, 0) ** 3 / 6
    return torch.from_numpy(np.where(x < 1, inner, outer).astype(np.float32))


def smooth_volume(rng: np.random.Generator, spec: VolumeSpec, bands: Bands, channels: int = 1) -> torch.Tensor:
    """(channels, X, Y, Z) a smooth random field.

    Args:
        bands: (distance of the knots in mm, standard deviation) of each of the fields that are added up.
    """
    planes = [_planes(rng, spec, knots_mm, sd, channels) for knots_mm, sd in bands]
    along_x = torch.cat([_basis(spec.shape[0], spec.spacing_mm, knots_mm) for knots_mm, _ in bands], 1)
    return torch.matmul(along_x, torch.cat(planes, 1)).unflatten(2, spec.shape[1:])


def _planes(rng: np.random.Generator, spec: VolumeSpec, knots_mm: float, sd: float, channels: int) -> torch.Tensor:
    """(channels, knots along x, Y * Z) one band, its knots along x not yet blended."""
    x, y, z = (_basis(n, spec.spacing_mm, knots_mm) for n in spec.shape)
    knots = rng.standard_normal((channels, x.shape[1], y.shape[1], z.shape[1]), dtype=np.float32)
    scaled = torch.from_numpy(knots) * (3.0 * sd)  # a cubic B-spline sum of unit knots has variance 0.479**3 = 1 / 9.1
    return torch.matmul(y, scaled @ z.T).flatten(2)


def smooth_field(rng: np.random.Generator, spec: VolumeSpec, bands: Bands, channels: int = 1) -> torch.Tensor:
    """(channels, kept voxels) of ``smooth_volume``."""
    return smooth_volume(rng, spec, bands, channels).flatten(1).index_select(1, kept_voxels(spec))


def sample(bank: torch.Tensor, grid: VolumeSpec, points: torch.Tensor, channels: int) -> torch.Tensor:
    """Trilinear values of the first ``channels`` columns of ``bank`` (voxels of ``grid``, columns).

    Args:
        points: (3, n) in mm.

    Returns:
        (channels, n) float32.
    """
    out = torch.empty(channels, points.shape[1])
    for part, into in zip(points.split(CHUNK, 1), out.split(CHUNK, 1)):
        into.copy_(_read(bank, grid, part)[:, :channels].T)
    return out


def sample_sum(bank: torch.Tensor, grid: VolumeSpec, points: torch.Tensor) -> np.ndarray:
    """(columns,) float64, the sum over ``points`` (3, n) of what ``sample`` reads there."""
    parts = [_read(bank, grid, part).float().sum(0).double() for part in points.split(CHUNK, 1)]
    return torch.stack(parts).sum(0).numpy()


def _read(bank: torch.Tensor, grid: VolumeSpec, points: torch.Tensor) -> torch.Tensor:
    """(n, columns) trilinear values at ``points`` (3, n).

    An embedding bag reads whole rows of columns and is some twenty times as fast as ``grid_sample`` here.
    """
    rows, weights = _corners(grid, points, bank.dtype)
    return functional.embedding_bag(rows, bank, per_sample_weights=weights, mode="sum")


def _corners(grid: VolumeSpec, points: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, 8) the voxels of ``grid`` around each of ``points`` (3, n), flat, and their trilinear weights."""
    (origin, top), (_, ny, nz) = _extent(grid), grid.shape
    at = torch.add(origin, points, alpha=1 / grid.spacing_mm).clamp_(min=0)
    at = torch.minimum(at, top, out=at)
    low = at.int()
    (x, y, z), (rx, ry, rz) = (high := at - low), 1 - high
    weights = torch.empty(points.shape[1], 8, dtype=dtype)
    for i, xy in enumerate((rx * ry, rx * y, x * ry, x * y)):
        weights[:, 2 * i].copy_(xy * rz)
        weights[:, 2 * i + 1].copy_(xy * z)
    corners = [(i * ny + j) * nz + k for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    return ((low[0] * ny + low[1]) * nz + low[2])[:, None] + torch.tensor(corners, dtype=torch.int32), weights


@lru_cache(maxsize=4)
def _extent(grid: VolumeSpec) -> tuple[torch.Tensor, torch.Tensor]:
    """(3, 1) minus the first voxel's place, and just below the last's, in voxels."""
    first = torch.from_numpy(-grid.affine[:3, 3:] / grid.spacing_mm).float()
    return first, torch.tensor(grid.shape)[:, None] - 1.001
