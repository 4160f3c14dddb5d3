"""NIfTI to a 2 mm tensor: load, orient, resample, scale."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from isal import igzip

from benchmarks.common import Row, medians
from headstart.brains.image import resample_to_grid, scale_intensity
from headstart.brains.nifti import read_nifti, write_nifti
from headstart.brains.volumes import volume_spec

SPEC = volume_spec("2mm")
# As scanners write it: sagittal slices, the voxel axes run down, back and right.
SAGITTAL = np.array([[0.0, 0.0, 1.0, -88.0], [-1.0, 0.0, 0.0, 128.0], [0.0, -1.0, 0.0, 128.0], [0.0, 0.0, 0.0, 1.0]])


def run(repeats: int = 9) -> list[Row]:
    """One process each, the same file, all of it in the page cache."""
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "scan.nii.gz")
        write_nifti(path, _head(), SAGITTAL)
        times = medians({"headstart": lambda: _headstart(path), "MONAI": _monai(path), "TorchIO": _torchio(path),
                         "bare inflate (isal)": lambda: igzip.decompress(path.read_bytes())}, repeats)
        note = f"256×256×176 int16, {path.stat().st_size / 1e6:.1f} MB gzipped; {torch.get_num_threads()} threads"
    return [Row("NIfTI to 2 mm tensor", times.pop("headstart"), times, {"MONAI": 4, "TorchIO": 4}, note=note)]


def _head() -> np.ndarray:
    """A noisy ellipsoid with smooth contrast, which gzip shrinks about as much as a real head."""
    random = np.random.default_rng(0)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (256, 256, 176)), indexing="ij", sparse=True)
    radius = np.sqrt((x / 0.8) ** 2 + (y / 0.7) ** 2 + (z / 0.8) ** 2)
    tissue = np.where(radius < 1, 400 + 200 * np.cos(9 * radius) + 80 * x, 0)
    return (tissue + np.abs(random.normal(0, 5, tissue.shape)) + (radius < 1) * random.normal(0, 8, tissue.shape)
            ).clip(0).astype(np.int16)


def _headstart(path: Path) -> torch.Tensor:
    return torch.from_numpy(scale_intensity(resample_to_grid(read_nifti(path), SPEC)))[None]


def _monai(path: Path) -> Callable[[], object]:
    from monai import transforms

    steps = transforms.Compose([
        transforms.LoadImage(image_only=True), transforms.EnsureChannelFirst(), transforms.Orientation("RAS"),
        transforms.Spacing((SPEC.spacing_mm,) * 3, mode="bilinear"), transforms.ScaleIntensity(),
        transforms.ResizeWithPadOrCrop(SPEC.shape)])
    return lambda: steps(path)


def _torchio(path: Path) -> Callable[[], object]:
    import torchio

    steps = torchio.Compose([torchio.ToCanonical(), torchio.Resample(SPEC.spacing_mm), torchio.RescaleIntensity((0, 1)),
                             torchio.CropOrPad(SPEC.shape)])
    return lambda: steps(torchio.ScalarImage(path)).data
