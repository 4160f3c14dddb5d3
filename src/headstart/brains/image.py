"""A 3D image, and its resampling by an affine.

Without aliasing: blocks of source voxels are averaged, then sampled trilinearly. Where the two grids are parallel,
both steps together are one sparse matrix per axis; for any other affine the averaged blocks are sampled by torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse

from headstart.brains.volumes import VolumeSpec

SLABS = 8  # 8 slabs of 256×256 float32 fit into the cache
PARALLEL_VOXELS = 0.02  # grids count as parallel if no voxel would move by more than this


@dataclass(frozen=True)
class Image:
    """A 3D image in the voxel order closest to RAS+.

    Attributes:
        data: (X, Y, Z), dtype as stored, or float32 where the header scales the values or they were float64.
        affine: voxel to world, (4, 4) float64, mm.
        notes: what was mended on reading, in plain words.
    """

    data: np.ndarray
    affine: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def spacing_mm(self) -> np.ndarray:
        """Voxel size along X, Y, Z: (3,)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


def resample(image: Image, affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """``image`` on another grid; 0 outside its field of view.

    Args:
        image: in the world of ``affine``.
        affine: (4, 4), target voxel to world in mm.
        shape: the target's (X, Y, Z).

    Returns:
        float32, C-contiguous, of ``shape``.
    """
    to_source = np.linalg.inv(image.affine) @ affine
    factors = np.maximum(1, np.rint(np.linalg.norm(to_source[:3, :3], axis=1))).astype(int)
    crossing = np.abs(to_source[:3, :3] - np.diag(np.diag(to_source[:3, :3]))) @ np.array(shape)
    if crossing.max() <= PARALLEL_VOXELS:
        return _separable(image.data, to_source, factors, shape)
    return _sampled(image.data, to_source, factors, shape)


def resample_to_grid(image: Image, spec: VolumeSpec) -> np.ndarray:
    """``image`` on a grid of ``spec``'s shape and spacing around its own centre: header only, no registration.

    Returns:
        float32 of ``spec.shape``, axes along the scanner's RAS+.
    """
    affine = np.diag([spec.spacing_mm] * 3 + [1.0])
    middle = image.affine[:3, :3] @ ((np.array(image.data.shape) - 1) / 2) + image.affine[:3, 3]
    affine[:3, 3] = middle - spec.spacing_mm * (np.array(spec.shape) - 1) / 2
    return resample(image, affine, spec.shape)


def scale_intensity(volume: np.ndarray) -> np.ndarray:
    """``volume`` with its smallest value at 0 and its largest at 1, float32."""
    low, high = volume.min(), volume.max()
    return (volume - low) * np.float32(1 / max(high - low, np.finfo(np.float32).tiny))


def _separable(data: np.ndarray, to_source: np.ndarray, factors: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    maps = []
    for axis in range(3):
        block, size = int(factors[axis]), data.shape[axis]
        position = to_source[axis, axis] * np.arange(shape[axis]) + to_source[axis, 3]
        average = _block_average(size, block)
        maps.append(_interpolation(_in_blocks(position, block), average.shape[0]) @ average)
    return _apply(data, maps)


def _sampled(data: np.ndarray, to_source: np.ndarray, factors: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Trilinear samples at ``to_source`` of every target voxel, from the averaged blocks."""
    if factors.max() > 1:
        data = _apply(data, [_block_average(size, int(block)) for size, block in zip(data.shape, factors)])
    to_blocks = np.diag([*(1 / factors), 1.0])
    to_blocks[:3, 3] = -(factors - 1) / (2 * factors)
    source = torch.from_numpy(np.ascontiguousarray(data, np.float32))
    return sample(source, to_blocks @ to_source, shape).numpy()


def sample(source: torch.Tensor, to_source: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    """``source`` (X, Y, Z) at ``to_source``, voxel to voxel (4, 4), of every voxel of ``shape``: trilinear."""
    # torch wants the last axis first, and [-1, 1] from the outer edge of the first voxel to that of the last
    scale = np.diag([*(2 / np.array(source.shape)), 1.0])
    scale[:3, 3] = 1 / np.array(source.shape) - 1
    matrix = (scale @ to_source)[[2, 1, 0]]
    axes = [torch.arange(n, dtype=torch.float32) for n in shape]
    grid = torch.empty(*shape, 3)
    for row in range(3):
        a, b, c, shift = matrix[row].tolist()
        grid[..., row] = (a * axes[0] + shift)[:, None, None] + (b * axes[1])[:, None] + c * axes[2]
    return torch.nn.functional.grid_sample(
        source[None, None], grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)[0, 0]


def _in_blocks(position: np.ndarray, block: int) -> np.ndarray:
    """Source voxel positions in units of blocks, whose centres are whole numbers."""
    return (position - (block - 1) / 2) / block


def _block_average(size: int, block: int) -> sparse.csr_array:
    """(ceil(size / block), size): the mean of each block; beyond the last voxel lies 0."""
    voxels = np.arange(size)
    return sparse.csr_array((np.full(size, 1 / block, np.float32), (voxels // block, voxels)),
                            shape=(-(-size // block), size))


def _interpolation(position: np.ndarray, size: int) -> sparse.csr_array:
    """(len(position), size): linear weights of the two neighbours; beyond the last voxel lies 0."""
    left = np.floor(position).astype(int)
    rows = np.arange(len(position))
    weights = np.concatenate([1 - (position - left), position - left]).astype(np.float32)
    rows, columns = np.concatenate([rows, rows]), np.concatenate([left, left + 1])
    inside = (columns >= 0) & (columns < size)
    return sparse.csr_array((weights[inside], (rows[inside], columns[inside])), shape=(len(position), size))


def _apply(data: np.ndarray, maps: list[sparse.csr_array]) -> np.ndarray:
    """Apply one map along each axis: (X, Y, Z) to the maps' numbers of rows, float32.

    The voxels are taken in the order in which they lie in memory, a few slabs at a time, so that what is read and
    written between the three maps stays in the processor's cache.
    """
    order = np.argsort([-abs(stride) for stride in data.strides], kind="stable")
    flips = [slice(None, None, -1 if data.strides[axis] < 0 else 1) for axis in order]
    outer, middle, inner = (maps[axis][:, flip] for axis, flip in zip(order, flips))
    slabs = data.transpose(order)[tuple(flips)]
    out = np.empty((outer.shape[0], middle.shape[0], inner.shape[0]), np.float32)
    across, along = sparse.kron(sparse.eye_array(SLABS, dtype=np.float32), middle, "csr"), inner.T.toarray()
    for start in range(0, len(out), SLABS):
        reduced = _apply_outer(slabs, outer[start:start + SLABS])  # (up to SLABS, middle × inner)
        rows, columns = len(reduced) * np.array(middle.shape)
        reduced = across[:rows, :columns] @ reduced.reshape(columns, -1) @ along
        out[start:start + SLABS] = reduced.reshape(-1, *out.shape[1:])
    return np.ascontiguousarray(out.transpose(np.argsort(order)))


def _apply_outer(slabs: np.ndarray, part: sparse.csr_array) -> np.ndarray:
    """``part`` (rows, n) applied to the first axis of ``slabs`` (n, a, b), touching only the slabs it needs."""
    used = slice(part.indices.min(), part.indices.max() + 1) if part.nnz else slice(0, 0)
    return part[:, used] @ slabs[used].astype(np.float32).reshape(-1, slabs[0].size)
