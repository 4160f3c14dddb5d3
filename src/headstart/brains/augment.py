"""Augmentation of whole batches: random numbers are drawn apart from being applied, and one resampling does it all.

The affine and the elastic part are one free-form deformation (Rueckert et al., IEEE TMI 1999): cubic B-splines
reproduce affine maps exactly, so the affine map only moves the control points. The elastic part moves them by far less
than 0.4 of their spacing, below which such a deformation cannot fold (Choi & Lee, 2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.brains.volumes import VOLUMES, VolumeSpec, template
from headstart.errors import HeadstartError

CONTROLS, BIAS_CONTROLS = 7, 4  # control points per axis
NOISE_BANK = 1 << 20
CHUNK_VOXELS = 1 << 19  # what is worked on at once stays in the processor's cache
# Stored intensities lie in [-0.5, 2]: shifted by the first, they are about what a scanner would measure.
LOWEST, HIGHEST = -0.5, 2.0


@dataclass(frozen=True)
class Augmentation:
    """How far each operation may go; every sample draws uniformly up to these limits.

    Attributes:
        rotation_degrees, translation_mm: about and along each axis.
        stretch: of each entry of the linear map (scaling; half of it for shear).
        elastic_mm: displacement of the control points, about 40 mm apart.
        bias: log of the multiplicative field at its control points.
        gamma: log of the exponent of the intensities; 1, about white matter, is the fixed point.
        blur_mm: standard deviation.
        noise: standard deviation of the Rician noise, in units of the stored intensities.
        flip: mirror left and right with probability one half.
    """

    rotation_degrees: float = 8.0
    translation_mm: float = 4.0
    stretch: float = 0.06
    elastic_mm: float = 5.0
    bias: float = 0.4
    gamma: float = 0.25
    blur_mm: float = 2.0
    noise: float = 0.04
    flip: bool = False

    def scaled(self, strength: float) -> Augmentation:
        """The same with every limit multiplied by ``strength``; 0 changes nothing but a flip."""
        limits = {f.name: strength * getattr(self, f.name) for f in fields(self) if f.name != "flip"}
        return Augmentation(**limits, flip=self.flip)


@dataclass(frozen=True)
class Draw:
    """What was drawn for each of n samples.

    Attributes:
        control: (n, 3, c, c, c), where the control points sample the input: (x, y, z) in voxels.
        log_bias: (n, b, b, b).
        gamma: (n,) exponent.
        blur: (n,) variance in voxels²; ``blur_passes``: how often the kernel runs, the same for every sample.
        noise: (n,) standard deviation, in units of the shifted signal.
        offset: (n, 2) int64, where the two windows into the bank of noise begin.
    """

    control: Tensor
    log_bias: Tensor
    gamma: Tensor
    blur: Tensor
    blur_passes: int
    noise: Tensor
    offset: Tensor


def sample_seeds(seed: int, epoch: int, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """One seed per sample, (n,) uint64, from (seed, epoch, index) alone: batches may be composed in any way."""
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    with np.errstate(over="ignore"):  # splitmix64: a bijection, so no two samples of an epoch share a seed
        z = state + (np.asarray(indices, np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def augment(volumes: Tensor, seeds: Sequence[int] | np.ndarray, limits: Augmentation) -> Tensor:
    """Augment a batch; background stays exactly 0 and each sample depends on its own seed only.

    Args:
        volumes: (n, 1, X, Y, Z) float32 on one of the known grids, scaled as in a store; 0 is background.
        seeds: n integers, see ``sample_seeds``.
        limits: how far to go.

    Returns:
        (n, 1, X, Y, Z) float32.
    """
    spec = spec_of(tuple(volumes.shape[2:]))
    size = _chunk(volumes)
    return torch.cat([
        apply_draw(volumes[i : i + size], draw(seeds[i : i + size], spec, limits)) for i in range(0, len(seeds), size)])


def _chunk(volumes: Tensor) -> int:
    """How many samples to work on at once: on a CPU about what its cache holds, and one a thread at least."""
    if volumes.device.type != "cpu":
        return len(volumes)
    return max(CHUNK_VOXELS // volumes[0].numel(), torch.get_num_threads())


def spec_of(shape: tuple[int, ...]) -> VolumeSpec:
    """The known grid with this shape."""
    for spec in VOLUMES.values():
        if spec.shape == shape:
            return spec
    known = ", ".join("×".join(map(str, spec.shape)) for spec in VOLUMES.values())
    raise HeadstartError(f"no known volume has the shape {shape}", fix=f"Use one of {known}.")


def draw(seeds: Sequence[int] | np.ndarray, spec: VolumeSpec, limits: Augmentation) -> Draw:
    """Draw the random numbers of n samples, each from its own counter-based generator."""
    sizes = [3, 9, 3, 3 * CONTROLS**3, BIAS_CONTROLS**3, 1, 1, 1, 1, 2]
    uniform = np.stack([np.random.Generator(np.random.Philox(key=int(s))).random(sum(sizes)) for s in seeds])
    angles, linear, shift, elastic, bias, gamma, blur, noise, flip, offset = np.split(
        uniform, np.cumsum(sizes)[:-1], axis=1)
    affine = _linear_maps(_signed(angles), _signed(linear), (flip[:, 0] < 0.5) & limits.flip, limits)
    moved = limits.translation_mm * _signed(shift)[:, None] + limits.elastic_mm * _signed(elastic).reshape(
        len(uniform), -1, 3)
    log_bias = _signed(bias) - _signed(bias).mean(1, keepdims=True)
    return Draw(
        control=_control_points(affine, moved, spec),
        log_bias=_tensor(limits.bias * log_bias).reshape(-1, *[BIAS_CONTROLS] * 3),
        gamma=_tensor(np.exp(limits.gamma * _signed(gamma[:, 0]))),
        blur=_tensor((limits.blur_mm / spec.spacing_mm * blur[:, 0]) ** 2),
        blur_passes=int(np.ceil(2 * (limits.blur_mm / spec.spacing_mm) ** 2)),
        noise=_tensor(limits.noise / (1 - LOWEST) * noise[:, 0]),
        offset=torch.from_numpy((offset * NOISE_BANK).astype(np.int64)),
    )


def apply_draw(volumes: Tensor, drawn: Draw) -> Tensor:
    """Apply what was drawn: blur, deformation, gamma, bias field, noise.

    The brain's mask travels beside its intensities, so that the brain neither grows nor darkens at its rim. From the
    deformation on, only the voxels that a store keeps are worked on.
    """
    spec = spec_of(tuple(volumes.shape[2:]))
    signal, mask = warp(blur(_with_mask(volumes), drawn.blur, drawn.blur_passes), drawn.control, spec).unbind(1)
    bias = _at_kept(_upsample(drawn.log_bias[:, None].to(volumes.device), spec, BIAS_CONTROLS), spec)[:, 0]
    gamma = drawn.gamma.to(volumes.device)[:, None]
    signal = signal.div_(mask.clamp(min=0.5).mul_(1 - LOWEST)).log_().mul_(gamma).add_(bias).exp_()
    signal = _add_rician_noise(signal, drawn)
    signal = signal.mul_(1 - LOWEST).add_(LOWEST).clamp_(max=HIGHEST).mul_(mask > 0.5)
    flat = torch.zeros_like(volumes).flatten(1)
    return flat.scatter_(1, kept_voxels(spec, volumes.device).expand(len(flat), -1), signal).view_as(volumes)


def _with_mask(volumes: Tensor) -> Tensor:
    """(n, 2, X, Y, Z): the intensities, shifted so that the brain's are positive and air is 0, and the brain's mask."""
    both = volumes.new_empty(len(volumes), 2, *volumes.shape[2:])
    signal, mask = both.split(1, 1)
    torch.ne(volumes, 0, out=mask)
    torch.add(volumes, mask, alpha=-LOWEST, out=signal)
    return both


def blur(volumes: Tensor, variance: Tensor, passes: int) -> Tensor:
    """Blur by ``passes`` three-tap kernels along each axis, whose variances (in voxels²) add up."""
    side = _per_sample(variance / max(2 * passes, 1), volumes)
    for axis in (2, 3, 4) * passes:
        volumes = _three_taps(volumes, side, axis)
    return volumes


def warp(volumes: Tensor, control: Tensor, spec: VolumeSpec) -> Tensor:
    """Resample (n, k, X, Y, Z) linearly along the free-form deformation with these control points; outside is 0.

    Plain gathers from a volume in a rim of zeros are several times as fast as ``grid_sample``.

    Returns:
        (n, k, m) at the voxels that a store keeps.
    """
    at = _at_kept(_upsample(control.to(volumes.device), spec, CONTROLS), spec)  # (n, 3, m) in voxels
    last = torch.tensor(spec.shape, device=at.device)[:, None] - 2**-16
    at = torch.minimum(at.clamp_(min=-1), last)
    low = at.floor()
    padded = F.pad(volumes, (1,) * 6)
    _, y, z = padded.shape[2:]
    first = ((low[:, 0] * y + low[:, 1]) * z + low[:, 2]).long().add_((y + 1) * z + 1)  # the rim shifts all by one
    corners = [(i * y + j) * z + k for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    weights = at.sub_(low).unbind(1)
    return torch.stack([_trilinear(channel, first, corners, weights) for channel in padded.flatten(2).unbind(1)], 1)


def _trilinear(flat: Tensor, first: Tensor, corners: Sequence[int], weights: Sequence[Tensor]) -> Tensor:
    """(n, m) blends of voxels of ``flat`` (n, voxels): those at ``first`` (n, m) plus each of the eight ``corners``."""
    length = flat.shape[1] - corners[-1]
    values = [flat[:, corner : corner + length].gather(1, first) for corner in corners]
    for weight in reversed(weights):  # z, then y, then x
        values = [low.lerp_(high, weight) for low, high in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def _at_kept(values: Tensor, spec: VolumeSpec) -> Tensor:
    """(n, k, X, Y, Z) -> (n, k, m) at the voxels that a store keeps."""
    rows = values.flatten(2).flatten(0, 1)
    kept = kept_voxels(spec, values.device).expand(len(rows), -1)
    return rows.gather(1, kept).unflatten(0, values.shape[:2])


def _three_taps(volumes: Tensor, side: Tensor, axis: int) -> Tensor:
    last = volumes.shape[axis] - 1
    out = volumes * (1 - 2 * side)
    out.narrow(axis, 1, last).addcmul_(volumes.narrow(axis, 0, last), side)
    out.narrow(axis, 0, last).addcmul_(volumes.narrow(axis, 1, last), side)
    return out


def _add_rician_noise(signal: Tensor, drawn: Draw) -> Tensor:
    """Magnitude of the (n, m) image plus complex noise, in place.

    Windows into one bank of white noise at random places are uncorrelated, and cost nothing to draw.
    """
    bank = _noise_bank(signal.shape[1], signal.device)
    for row, sd, (real, imaginary) in zip(signal, drawn.noise.tolist(), drawn.offset.tolist(), strict=True):
        row.add_(bank[real : real + len(row)], alpha=sd).square_()
        window = bank[imaginary : imaginary + len(row)]
        row.addcmul_(window, window, value=sd**2).sqrt_()
    return signal


@lru_cache(maxsize=4)
def _noise_bank(length: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(NOISE_BANK + length, generator=generator).to(device)


@lru_cache(maxsize=8)
def kept_voxels(spec: VolumeSpec, device: torch.device) -> Tensor:
    """(m,) int64 flat indices of the voxels that a store keeps; augmentation never fills others."""
    return torch.from_numpy(np.flatnonzero(template(spec.name).kept)).to(device)


def _upsample(control: Tensor, spec: VolumeSpec, controls: int) -> Tensor:
    """Cubic B-spline interpolation of control values (n, k, c, c, c) to (n, k, X, Y, Z), one axis at a time."""
    x, y, z = (_spline_matrix(size, controls, control.device) for size in spec.shape)
    n, k, c = control.shape[:3]
    values = (control.reshape(-1, c) @ z.T).view(n * k, c, -1)  # (nk, cx, cy Z)
    values = torch.matmul(x, values).view(-1, c, spec.shape[2])  # (nkX, cy, Z)
    return torch.matmul(y, values).view(n, k, *spec.shape)


@lru_cache(maxsize=32)
def _spline_matrix(size: int, controls: int, device: torch.device) -> Tensor:
    """(size, controls): the weight of each control point in each voxel."""
    t = np.abs(np.arange(size)[:, None] * (controls - 3) / (size - 1) - np.arange(-1, controls - 1))
    weights = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.where(t < 2, (2 - t) ** 3 / 6, 0))
    return _tensor(weights).to(device)


def _control_points(linear: np.ndarray, moved_mm: np.ndarray, spec: VolumeSpec) -> Tensor:
    """(n, 3, c, c, c) where each control point samples the input, in voxels."""
    half_mm = spec.spacing_mm * (np.array(spec.shape) - 1) / 2
    places = [(np.arange(-1, CONTROLS - 1) * 2 / (CONTROLS - 3) - 1) * half for half in half_mm]
    rest = np.stack(np.meshgrid(*places, indexing="ij"), -1).reshape(-1, 3)  # (c^3, 3) mm from the grid's centre
    sampled = (rest @ linear.transpose(0, 2, 1) + moved_mm + half_mm) / spec.spacing_mm
    return _tensor(sampled.transpose(0, 2, 1)).reshape(-1, 3, *[CONTROLS] * 3)


def _linear_maps(angles: np.ndarray, entries: np.ndarray, flip: np.ndarray, limits: Augmentation) -> np.ndarray:
    """(n, 3, 3): rotation, stretch and shear, and the mirror."""
    cos, sin = (f(np.deg2rad(limits.rotation_degrees) * angles) for f in (np.cos, np.sin))
    linear = np.eye(3) + limits.stretch * entries.reshape(-1, 3, 3) * (0.5 + 0.5 * np.eye(3))
    for axis, (i, j) in enumerate(((1, 2), (2, 0), (0, 1))):
        turn = np.tile(np.eye(3), (len(angles), 1, 1))
        turn[:, i, i] = turn[:, j, j] = cos[:, axis]
        turn[:, j, i], turn[:, i, j] = sin[:, axis], -sin[:, axis]
        linear = turn @ linear
    linear[flip, :, 0] *= -1  # the output's x, mirrored, before all else
    return linear


def _signed(uniform: np.ndarray) -> np.ndarray:
    return 2 * uniform - 1


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))


def _per_sample(values: Tensor, volumes: Tensor) -> Tensor:
    return values.to(volumes.device)[:, None, None, None, None]
