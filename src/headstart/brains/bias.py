"""Bias field: N4 on a coarse copy of the brain, where it is as smooth as the field is.

N. J. Tustison et al., "N4ITK: Improved N3 Bias Correction", IEEE Trans. Med. Imaging 29 (2010) 1310-1320. The numbers
are those of SimpleITK's filter to its own rounding. It scatters every voxel over its 64 control points; here the voxels
are known to lie on a grid, so that a fit is three small matrix products: it takes a twentieth of the time.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import SimpleITK as sitk

from headstart.brains.registration import as_itk
from headstart.errors import HeadstartError

COARSE_MM = 6.0
LEVELS, ITERATIONS = 3, 50  # each level halves the distance between control points
CONVERGENCE = 1e-3  # coefficient of variation of the ratio between two fields
BINS, PADDED_BINS = 200, 512
FWHM, WIENER_NOISE = 0.15, 0.01  # of the field's histogram, in natural logarithms; of its deconvolution
LAST_POINT = 1e-3  # spans by which the last voxel is moved into the last span


def log_bias_field(brain: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Natural logarithm of the multiplicative bias field on the brain's own grid, float32, mean 0 in the mask.

    Args:
        brain: intensities of the masked brain, (X, Y, Z).
        mask: bool, the same shape.
        affine: voxel to world (4, 4), diagonal but for the origin, mm.

    Raises:
        HeadstartError: there is not one coarse voxel of brain.
    """
    shrink = [max(1, round(COARSE_MM / float(spacing))) for spacing in np.diag(affine)[:3]]
    coarse = _shrunk(np.clip(brain, 0, None), affine, shrink)
    inside = _shrunk(mask, affine, shrink) > 0.9
    if not inside.any():
        raise HeadstartError(f"no brain was found (nothing in the mask is {COARSE_MM:g} mm thick)",
                             fix="Check that this is a T1-weighted scan of an adult head with the right voxel size.")
    log_image = np.log(coarse, out=np.zeros_like(coarse), where=coarse > 0)  # ITK, too, takes holes for 1
    field = _on_grid(_n4(log_image[inside], inside), brain.shape)
    return (field - field[mask].mean()).astype(np.float32)


def _shrunk(data: np.ndarray, affine: np.ndarray, factors: list[int]) -> np.ndarray:
    """Means of whole blocks."""
    return sitk.GetArrayFromImage(sitk.BinShrink(as_itk(data, affine), factors)).T.astype(np.float64)


def _n4(log_image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Control points (C, C, C) of the logarithmic field; ``log_image`` holds the voxels ``inside``."""
    lattice = np.zeros((4, 4, 4))
    field = np.zeros_like(log_image)
    for level in range(LEVELS):
        spline = _Spline(inside, 2**level)
        lattice = _refined(lattice, 2**level)
        for _ in range(ITERATIONS):
            corrected = log_image - field
            lattice = lattice + spline.fit(corrected - _sharpened(corrected))
            before, field = field, spline.values(lattice)
            ratio = np.exp(before - field)
            if ratio.std(ddof=1) / ratio.mean() <= CONVERGENCE:
                break
    return lattice


class _Spline:
    """Cubic B-splines over a coarse grid, ``spans`` along each axis, fitted at the voxels ``inside``.

    S. Lee et al., "Scattered Data Interpolation with Multilevel B-Splines", IEEE TVCG 3 (1997) 228-244, algorithm 1.
    """

    def __init__(self, inside: np.ndarray, spans: int) -> None:
        self._inside = inside
        self._bases = [_basis(size, spans) for size in inside.shape]
        self._volume = np.zeros(inside.shape)

    @cached_property
    def _norm(self) -> np.ndarray:
        """Sum of the squared weights of each voxel inside, (N,)."""
        x, y, z = ((basis**2).sum(1) for basis in self._bases)
        return (x[:, None, None] * y[:, None] * z)[self._inside]

    @cached_property
    def _weight(self) -> np.ndarray:
        """Sum of the squared weights of each control point, (C, C, C); no voxel is near where it is 0."""
        return _product(self._inside.astype(float), [(basis**2).T for basis in self._bases])

    def fit(self, values: np.ndarray) -> np.ndarray:
        """Control points (C, C, C) near ``values`` (N,)."""
        self._volume[self._inside] = values / self._norm
        total = _product(self._volume, [(basis**3).T for basis in self._bases])
        return np.divide(total, self._weight, out=np.zeros_like(total), where=self._weight != 0)

    def values(self, lattice: np.ndarray) -> np.ndarray:
        """The spline at the voxels inside, (N,)."""
        return _product(lattice, self._bases)[self._inside]


def _basis(size: int, spans: int) -> np.ndarray:
    """(size, spans + 3): weights of the control points at voxels from the first to the last."""
    position = np.linspace(0, spans, size)
    position[-1] -= LAST_POINT
    span = np.floor(position).astype(int)
    t = position - span
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], 1) / 6
    basis = np.zeros((size, spans + 3))
    np.put_along_axis(basis, span[:, None] + np.arange(4), weights, 1)
    return basis


def _product(volume: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """One matrix (rows, n) along each axis of ``volume`` (n, n, n)."""
    for matrix in matrices:  # each product moves the first axis to the end
        volume = np.tensordot(volume, matrix, (0, 1))
    return volume


def _refined(lattice: np.ndarray, spans: int) -> np.ndarray:
    """The same spline with ``spans`` along each axis."""
    size = 4 * spans + 1  # more points than control points, and none on a border between spans missed
    change = np.linalg.pinv(_basis(size, spans)) @ _basis(size, lattice.shape[0] - 3)
    return _product(lattice, [change] * 3)


def _on_grid(lattice: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return _product(lattice, [_basis(size, lattice.shape[0] - 3) for size in shape])


def _sharpened(values: np.ndarray) -> np.ndarray:
    """What ``values`` (N,) are expected to have been before a field with a Gaussian histogram blurred theirs.

    J. G. Sled et al., "A nonparametric method for automatic correction of intensity nonuniformity in MRI data", IEEE
    Trans. Med. Imaging 17 (1998) 87-97, section II.
    """
    low = values.min()
    width = (values.max() - low) / (BINS - 1)
    if width == 0:
        return values
    position = (values - low) / width
    left = np.minimum(position.astype(int), BINS - 2)
    share = position - left
    histogram = np.bincount(left, 1 - share, BINS) + np.bincount(left + 1, share, BINS)
    mapping = _expected(histogram, low, width)
    return mapping[left] + share * (mapping[left + 1] - mapping[left])


def _expected(histogram: np.ndarray, low: float, width: float) -> np.ndarray:
    """Expected sharp value of each bin of the blurred ``histogram``, (BINS,)."""
    offset = (PADDED_BINS - BINS) // 2
    blur = _blur(width)
    padded = np.zeros(PADDED_BINS)
    padded[offset:offset + BINS] = histogram
    sharp = np.fft.irfft(np.fft.rfft(padded) * blur / (blur**2 + WIENER_NOISE)).clip(0)
    levels = low + (np.arange(PADDED_BINS) - offset) * width
    total, mass = (np.fft.irfft(np.fft.rfft(part) * blur) for part in (levels * sharp, sharp))
    return np.divide(total, mass, out=np.zeros_like(total), where=mass != 0)[offset:offset + BINS]


def _blur(width: float) -> np.ndarray:
    """Spectrum of the field's Gaussian histogram with bins of ``width``, (PADDED_BINS / 2 + 1,), real."""
    fwhm = FWHM / width
    distance = np.minimum(np.arange(PADDED_BINS), PADDED_BINS - np.arange(PADDED_BINS))
    gaussian = 2 * np.sqrt(np.log(2) / np.pi) / fwhm * np.exp(-4 * np.log(2) * (distance / fwhm) ** 2)
    return np.fft.rfft(gaussian).real
