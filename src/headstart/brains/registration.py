"""Affine or rigid registration of a brain to the ICBM152 2009a symmetric template, by SimpleITK.

Transforms map native world to template world (mm, RAS+). The metric is the correlation of T1 intensities, evaluated
at every voxel of the template grid, so that a run is repeatable to the bit.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import SimpleITK as sitk
import torch
from scipy.ndimage import gaussian_filter

from headstart.brains.image import sample
from headstart.brains.volumes import Template

Kind = Literal["affine", "rigid"]
Linear = sitk.AffineTransform | sitk.Euler3DTransform
Pose = tuple[float, ...]  # rotations about x, y and z, radians
REST: Pose = (0.0, 0.0, 0.0)
GRID = "4mm"  # a grid twice as fine has eight times the voxels
NODS_DEGREES = range(-120, 121, 30)  # about left-right: heads that look down, or that lie
TURNS_DEGREES = range(-60, 61, 30)  # about the other two axes
CLEARLY_BETTER = 0.005  # in correlation: two starts that end in the same place differ by less
LOOK_EVERY, LOOK_SMOOTH_MM = 2, 6.0  # template voxels between the points that poses are compared at


@dataclass(frozen=True)
class Alignment:
    """``affine`` (4, 4): native world to template world; ``correlation``: of intensities at the end."""

    affine: np.ndarray
    correlation: float


def register(brain: np.ndarray, affine: np.ndarray, template: Template, kind: Kind = "affine") -> Alignment:
    """Align a masked brain with the template.

    Args:
        brain: intensities, zero outside the brain, (X, Y, Z).
        affine: voxel to world (4, 4), diagonal but for the origin, mm.
        template: the target, on a coarse grid.
        kind: ``affine`` (12 parameters) or ``rigid`` (6).
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    centres = _centre(template.brain, template.spec.affine), _centre(brain > 0, affine)

    def arrive(pose: Pose) -> Alignment:  # each with images of its own: ITK may not read one from two threads
        fixed = as_itk(np.where(template.brain, template.t1, 0), template.spec.affine)
        return _optimise(fixed, as_itk(brain, affine), _initial(centres, kind, pose))

    with ThreadPoolExecutor(1) as beside:
        at_rest = beside.submit(arrive, REST)
        pose = _likeliest_pose(brain, affine, template, centres)
        turned = arrive(pose) if pose != REST else None
    best = at_rest.result()
    return turned if turned is not None and turned.correlation > best.correlation + CLEARLY_BETTER else best


def linear_scale(affine: np.ndarray) -> float:
    """Mean scaling per axis of a transform: the cube root of its determinant."""
    return float(np.cbrt(np.linalg.det(affine[:3, :3])))


def as_itk(data: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """An image whose physical space is RAS+ world; ``affine`` may only scale and shift."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(data.T, np.float32))
    image.SetSpacing(np.diag(affine)[:3].tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def _likeliest_pose(brain: np.ndarray, affine: np.ndarray, template: Template,
                    centres: tuple[np.ndarray, np.ndarray]) -> Pose:
    """The pose in which the brain, only turned about its centre, is most like the template."""
    every = (slice(None, None, LOOK_EVERY),) * 3
    wanted = np.where(template.brain, template.t1, 0)[every]
    grid = template.spec.affine @ np.diag([LOOK_EVERY] * 3 + [1])
    smooth = torch.from_numpy(gaussian_filter(brain.astype(np.float32), LOOK_SMOOTH_MM / np.diag(affine)[:3]))
    to_voxels = np.linalg.inv(affine)

    def likeness(pose: Pose) -> float:
        turn = np.eye(4)
        turn[:3, :3] = np.reshape(sitk.Euler3DTransform((0.0, 0.0, 0.0), *pose).GetMatrix(), (3, 3))
        turn[:3, 3] = centres[1] - turn[:3, :3] @ centres[0]
        seen = sample(smooth, to_voxels @ turn @ grid, wanted.shape)
        return float(np.corrcoef(seen.numpy().ravel(), wanted.ravel())[0, 1])

    degrees = product(NODS_DEGREES, TURNS_DEGREES, TURNS_DEGREES)
    return max((tuple(np.deg2rad(pose).tolist()) for pose in degrees), key=likeness)


def _centre(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    voxel = np.array([axis.mean() for axis in np.nonzero(mask)])
    return affine[:3, :3] @ voxel + affine[:3, 3]


def _optimise(fixed: sitk.Image, moving: sitk.Image, transform: Linear) -> Alignment:
    """The alignment reached from ``transform``, which is moved there."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetInitialTransform(transform, True)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=0.01, numberOfIterations=100, relaxationFactor=0.6, gradientMagnitudeTolerance=1e-6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([4, 2])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.Execute(fixed, moving)
    return Alignment(np.linalg.inv(_matrix(transform)), float(-method.GetMetricValue()))


def _initial(centres: tuple[np.ndarray, np.ndarray], kind: Kind, pose: Pose) -> Linear:
    """Centres of mass on each other, turned by ``pose``. ITK transforms map fixed (template) to moving points."""
    fixed_centre, moving_centre = centres
    rotation = sitk.Euler3DTransform(fixed_centre.tolist(), *pose, (moving_centre - fixed_centre).tolist())
    if kind == "rigid":
        return rotation
    transform = sitk.AffineTransform(3)
    transform.SetCenter(rotation.GetCenter())
    transform.SetMatrix(rotation.GetMatrix())
    transform.SetTranslation(rotation.GetTranslation())
    return transform


def _matrix(transform: Linear) -> np.ndarray:
    linear = np.reshape(transform.GetMatrix(), (3, 3))
    centre = np.asarray(transform.GetCenter())
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.asarray(transform.GetTranslation()) + centre - linear @ centre
    return matrix
