"""Registration and bias field, against transforms and fields that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from headstart.brains.bias import log_bias_field
from headstart.brains.image import Image, resample
from headstart.brains.nifti import read_nifti
from headstart.brains.registration import Alignment, as_itk, linear_scale, register
from headstart.brains.volumes import Template, template
from headstart.errors import HeadstartError


def moved_template(rotation_degrees: float, scale: float, shift_mm: tuple[float, float, float]) -> tuple:
    """The template seen through a known transform: image, its affine, and native world to template world."""
    target = template("4mm")
    angle = np.deg2rad(rotation_degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    to_template = np.eye(4)
    to_template[:3, :3] = turn * scale
    to_template[:3, 3] = shift_mm
    grid = np.diag([3.0, 3.0, 3.0, 1.0])
    grid[:3, 3] = (-105, -135, -115)
    brain = Image(np.where(target.brain, target.t1, 0), np.linalg.inv(to_template) @ target.spec.affine)
    return resample(brain, grid, (72, 90, 80)), grid, to_template


def error_mm(found: np.ndarray, true: np.ndarray) -> float:
    """Largest displacement over the corners of the brain's box."""
    corners = np.stack(np.meshgrid((-70, 70), (-108, 74), (-72, 82), [1], indexing="ij"), -1).reshape(-1, 4)
    native = corners @ np.linalg.inv(true).T
    return float(np.linalg.norm((native @ found.T - corners)[:, :3], axis=1).max())


@pytest.mark.parametrize(("rotation", "scale"), [(0, 1.0), (12, 1.15), (-15, 0.9)])
def test_recovers_a_known_affine(rotation: float, scale: float) -> None:
    brain, affine, true = moved_template(rotation, scale, (4, -6, 8))
    found = register(brain, affine, template("4mm"))
    assert error_mm(found.affine, true) < 2
    assert linear_scale(found.affine) == pytest.approx(scale, rel=0.01)
    assert found.correlation > 0.95


@pytest.fixture(scope="module")
def real_scan(real_data: Path) -> Image:
    return read_nifti(real_data / "ds002748/sub-01/anat/sub-01_T1w.nii.gz")


@pytest.fixture(scope="module")
def upright(real_scan: Image) -> Alignment:
    return register(*turned(real_scan, 0), template("4mm"))


@pytest.mark.parametrize("degrees", [30, 55, 90])
def test_a_real_head_that_nods_is_caught(real_scan: Image, upright: Alignment, degrees: float) -> None:
    """Turned about left-right, a scan ends where it ended before."""
    found = register(*turned(real_scan, degrees), template("4mm"))
    turn = rotation_about(centre_mm(real_scan), degrees)
    assert error_mm(found.affine @ turn @ np.linalg.inv(upright.affine), np.eye(4)) < 1
    assert found.correlation == pytest.approx(upright.correlation, abs=0.01)


def turned(scan: Image, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """An extracted brain turned about left-right, on a grid that holds it in any pose, and the grid's affine."""
    grid = np.diag([3.0, 3.0, 3.0, 1.0])
    grid[:3, 3] = centre_mm(scan) - 132
    moved = Image(scan.data.astype(np.float32), rotation_about(centre_mm(scan), degrees) @ scan.affine)
    return resample(moved, grid, (88, 88, 88)), grid


def centre_mm(scan: Image) -> np.ndarray:
    return scan.affine[:3, :3] @ np.argwhere(scan.data > 0).mean(0) + scan.affine[:3, 3]


def rotation_about(centre: np.ndarray, degrees: float) -> np.ndarray:
    """World to world (4, 4): about the left-right axis through ``centre``."""
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
    matrix = np.eye(4)
    matrix[1:3, 1:3] = [[cosine, -sine], [sine, cosine]]
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre
    return matrix


@pytest.mark.parametrize("degrees", [55, -90])
def test_finds_its_way_from_a_bad_pose(degrees: float) -> None:
    brain, affine, true = moved_template(degrees, 1.1, (10, 20, -15))
    assert error_mm(register(brain, affine, template("4mm")).affine, true) < 2


def test_rigid_does_not_scale() -> None:
    brain, affine, _ = moved_template(8, 1.1, (0, 0, 0))
    assert linear_scale(register(brain, affine, template("4mm"), "rigid").affine) == pytest.approx(1, abs=1e-6)


def test_gain_and_repetition_change_nothing() -> None:
    brain, affine, _ = moved_template(5, 1.05, (2, 2, 2))
    first, again = (register(brain, affine, template("4mm")).affine for _ in range(2))
    assert np.array_equal(first, again)
    assert np.allclose(register(brain * 1000, affine, template("4mm")).affine, first, atol=0.01)


def biased(target: Template) -> tuple[np.ndarray, np.ndarray]:
    """The template's brain under a field, and the field's logarithm."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in target.brain.shape], indexing="ij")
    field = 0.4 * x + 0.3 * y * z - 0.2 * z
    return np.where(target.brain, target.t1 * np.exp(field), 0).astype(np.float32), field


def test_n4_removes_a_known_field() -> None:
    target = template("2mm")
    brain, true = biased(target)
    found = log_bias_field(brain, target.brain, target.spec.affine)
    plain = log_bias_field(np.where(target.brain, target.t1, 0), target.brain, target.spec.affine)  # the template's own
    left = (true - (found - plain))[target.brain]
    assert left.std() < 0.25 * true[target.brain].std()


def test_n4_is_that_of_simpleitk() -> None:
    """To the filter's single precision, also where a part of the brain has no signal."""
    target = template("2mm")
    brain, _ = biased(target)
    brain[30:42, 40:52, 40:52] = 0
    found = log_bias_field(brain, target.brain, target.spec.affine)
    expected = itk_log_bias_field(brain, target.brain, target.spec.affine)
    assert np.abs(found - expected)[target.brain].max() < 5e-4  # of 0.1 and more in a real scan


def itk_log_bias_field(brain: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    image, shrink = as_itk(brain, affine), [3, 3, 3]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([50, 50, 50])
    n4.SetConvergenceThreshold(1e-3)
    n4.Execute(sitk.BinShrink(image, shrink), sitk.BinShrink(as_itk(mask, affine), shrink) > 0.9)
    field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).T
    return field - field[mask].mean()


def test_a_brain_without_thickness_has_no_field() -> None:
    mask = np.zeros((40, 40, 40), bool)
    mask[::2] = True
    with pytest.raises(HeadstartError, match="6 mm thick"):
        log_bias_field(mask.astype(np.float32), mask, np.diag([2.0, 2.0, 2.0, 1.0]))


def test_a_constant_brain_has_a_constant_field() -> None:
    mask = np.ones((40, 40, 40), bool)
    assert not log_bias_field(np.full(mask.shape, 7, np.float32), mask, np.diag([2.0, 2.0, 2.0, 1.0])).any()
