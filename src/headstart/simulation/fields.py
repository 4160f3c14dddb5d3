"""Grids in millimetres, smooth random fields and trilinear sampling of many channels at once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as functional

from headstart.brains.volumes import VolumeSpec, template


@lru_cache(maxsize=4)
def kept_voxels(spec: VolumeSpec) -> torch.Tensor:
    """(n,) flat indices of the voxels that a store keeps: the template brain and an 8 mm rim."""
    return torch.from_numpy(np.flatnonzero(template(spec.name).kept))


@lru_cache(maxsize=4)
def kept_world(spec: VolumeSpec) -> torch.Tensor:
    """(n, 3) world coordinates in mm of ``kept_voxels``, float32."""
    ijk = np.stack(np.unravel_index(kept_voxels(spec).numpy(), spec.shape), 1)
    return torch.from_numpy((ijk * spec.spacing_mm + spec.affine[:3, 3]).astype(np.float32))


def scatter(values: torch.Tensor, spec: VolumeSpec) -> torch.Tensor:
    """(n,) values of the kept voxels -> (X, Y, Z), zero elsewhere."""
    flat = torch.zeros(int(np.prod(spec.shape)), dtype=values.dtype)
    flat[kept_voxels(spec)] = values
    return flat.reshape(spec.shape)


@lru_cache(maxsize=32)
def _basis(length: int, spacing_mm: float, knots_mm: float) -> torch.Tensor:
    """(length, knots) cubic B-spline basis along one axis."""
    at = np.arange(length) * spacing_mm / knots_mm + 1.5
    x = np.abs(at[:, None] - np.arange(int(at[-1]) + 3)[None])
    inner = 2 / 3 - x**2 + x**3 / 2
    outer = np.maximum(2 - x, 0) ** 3 / 6
    return torch.from_numpy(np.where(x < 1, inner, outer).astype(np.float32))


def smooth_field(rng: np.random.Generator, spec: VolumeSpec, knots_mm: float, channels: int = 1) -> torch.Tensor:
    """(kept voxels, channels) a random field of unit variance, smooth at the scale of ``knots_mm``."""
    bases = [_basis(n, spec.spacing_mm, knots_mm) for n in spec.shape]
    knots = rng.standard_normal((channels, *(b.shape[1] for b in bases)), dtype=np.float32)
    field = torch.einsum("zk,cijk->cijz", bases[2], torch.from_numpy(knots))
    field = torch.einsum("yj,cijz->ciyz", bases[1], field)
    field = torch.einsum("xi,ciyz->cxyz", bases[0], field).reshape(channels, -1)
    return field[:, kept_voxels(spec)].T * 3.0  # a cubic B-spline sum of unit knots has variance 0.479**3 = 1 / 9.1


def sample(bank: torch.Tensor, grid: VolumeSpec, points: torch.Tensor) -> torch.Tensor:
    """Trilinear values of ``bank`` (voxels of ``grid``, channels) at ``points`` (n, 3) in mm -> (n, channels) float32.

    An embedding bag reads whole rows of channels and is some twenty times as fast as ``grid_sample`` here.
    """
    rows, weights = _corners(grid, points)
    return functional.embedding_bag(rows, bank, per_sample_weights=weights.to(bank.dtype), mode="sum").float()


def _corners(grid: VolumeSpec, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, 8) the voxels of ``grid`` around each of ``points`` (n, 3), flat, and their trilinear weights."""
    _, ny, nz = grid.shape
    at = ((points - torch.from_numpy(grid.affine[:3, 3]).float()) / grid.spacing_mm).T.contiguous()
    at = torch.stack([axis.clamp(0, size - 1.001) for axis, size in zip(at, grid.shape)])
    low = at.int()
    (x, y, z), (rx, ry, rz) = at - low, 1 - (at - low)
    weights = torch.stack([a * b for a in (rx * ry, rx * y, x * ry, x * y) for b in (rz, z)], 1)
    corners = [(i * ny + j) * nz + k for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    return ((low[0] * ny + low[1]) * nz + low[2])[:, None] + torch.tensor(corners, dtype=torch.int32), weights
