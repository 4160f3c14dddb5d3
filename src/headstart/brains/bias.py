"""Bias field: N4 on a coarse copy of the brain, where it is as smooth as the field is.

N. J. Tustison et al., "N4ITK: Improved N3 Bias Correction", IEEE Trans. Med. Imaging 29 (2010) 1310-1320.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from headstart.brains.registration import as_itk

COARSE_MM = 6.0
ITERATIONS = (50, 50, 50)
CONVERGENCE = 1e-3


def log_bias_field(brain: np.ndarray, mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Natural logarithm of the multiplicative bias field on the brain's own grid, float32, mean 0 in the mask.

    Args:
        brain: intensities of the masked brain, (X, Y, Z).
        mask: bool, the same shape.
        affine: voxel to world (4, 4), diagonal but for the origin, mm.
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # sums in a fixed order
    image = as_itk(np.clip(brain, 0, None), affine)
    shrink = [max(1, round(COARSE_MM / spacing)) for spacing in image.GetSpacing()]
    coarse = sitk.BinShrink(image, shrink)
    inside = sitk.BinShrink(as_itk(mask.astype(np.float32), affine), shrink) > 0.9
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(ITERATIONS)
    n4.SetConvergenceThreshold(CONVERGENCE)
    n4.Execute(coarse, inside)
    field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)).T
    return (field - field[mask].mean()).astype(np.float32)
