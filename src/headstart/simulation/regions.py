"""Where the structures of the ICBM152 average lie: ellipsoids at MNI coordinates, cut to the tissue maps.

Centres and extents follow Mai, Majtanik and Paxinos, *Atlas of the Human Brain* (2016), in MNI152 coordinates. They
stand for shape, not for histology; the entorhinal cortex most of all is approximate. Sizes matter little: a generator
sets each structure's volume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from headstart.brains.volumes import Template


@dataclass(frozen=True)
class Ellipsoid:
    """One on the right and its mirror image; mm."""

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    tilt_degrees: float = 0.0  # about the left-right axis, front up

    def radius(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Distance from the centre in radii; 1 on the surface."""
        dx, dy, dz = np.abs(x) - self.centre[0], y - self.centre[1], z - self.centre[2]
        c, s = float(np.cos(np.deg2rad(self.tilt_degrees))), float(np.sin(np.deg2rad(self.tilt_degrees)))
        along, up = c * dy + s * dz, c * dz - s * dy
        return np.sqrt((dx / self.radii[0])**2 + (along / self.radii[1])**2 + (up / self.radii[2])**2)


# Deep grey matter; a voxel goes to the structure whose surface it lies deepest under.
DEEP = {
    "thalamus": (Ellipsoid((11.5, -19, 7), (12, 17, 11.5), 15),),
    "putamen": (Ellipsoid((25.5, 2, 0), (7.5, 18.5, 13), 8),),
    "pallidum": (Ellipsoid((19, -4, -1.5), (6.5, 10.5, 7.5), 8),),
    "caudate": (Ellipsoid((12.5, 15, 5), (7.5, 11.5, 13)), Ellipsoid((15, 1, 18), (6, 15, 7.5), -15)),
    "hippocampus": (Ellipsoid((24, -14, -20), (8.5, 8, 7)), Ellipsoid((28, -25, -13), (6.5, 11, 6), -35),
                    Ellipsoid((23, -36, -4), (6.5, 5.5, 6.5))),
    "amygdala": (Ellipsoid((22.5, -3.5, -19), (8.5, 7, 7.5)),),
}
BRAINSTEM = (Ellipsoid((0, -24, -33), (17, 14, 17), -15), Ellipsoid((0, -21, -13), (17, 13, 14), -15),
             Ellipsoid((0, -37, -56), (9.5, 10, 22), -10))
LATERAL_VENTRICLE = (Ellipsoid((10, 8, 14), (11, 34, 14), -5), Ellipsoid((20, -38, 12), (13, 16, 17)),
                     Ellipsoid((33, -18, -13), (8, 22, 9), -35), Ellipsoid((26, -60, 8), (8, 16, 9)))
THIRD_VENTRICLE = (Ellipsoid((0, -14, -1), (4.5, 20, 13)),)
CEREBELLUM = (Ellipsoid((25, -62, -37), (27, 27, 23)), Ellipsoid((0, -58, -26), (15, 22, 22)))
# Cortex that Alzheimer's disease thins most: temporal, and parietal with the precuneus.
TEMPORO_PARIETAL = (Ellipsoid((50, -25, -18), (22, 48, 22)), Ellipsoid((42, -58, 38), (28, 26, 24)),
                    Ellipsoid((6, -58, 34), (12, 22, 22)), Ellipsoid((24, -14, -26), (18, 24, 14)))


def radius(parts: tuple[Ellipsoid, ...], affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """(X, Y, Z) float32 least distance to the ``parts``, in their radii; below 1 is inside."""
    x, y, z = np.ogrid[tuple(slice(n) for n in shape)]
    world = [(axis * affine[i, i] + affine[i, 3]).astype(np.float32) for i, axis in enumerate((x, y, z))]
    return np.min([part.radius(*world) for part in parts], axis=0).astype(np.float32)


def label_regions(template: Template) -> dict[str, np.ndarray]:
    """Structure -> bool (X, Y, Z), disjoint; what is in none of them is cerebral cortex, white matter and CSF."""
    def near(*parts: Ellipsoid) -> np.ndarray:
        return radius(parts, template.spec.affine, template.spec.shape)

    csf = np.where(template.brain, np.clip(1 - template.grey - template.white, 0, 1), 0)
    regions = {"third_ventricle": (near(*THIRD_VENTRICLE) < 1) & (csf > 0.3)}
    regions["lateral_ventricles"] = (near(*LATERAL_VENTRICLE) < 1) & (csf > 0.3) & ~regions["third_ventricle"]
    taken = regions["third_ventricle"] | regions["lateral_ventricles"]
    regions.update(_deep(template, near, csf, taken))
    taken |= np.any([regions[name] for name in DEEP], axis=0)
    regions["brainstem"] = template.brain & (near(*BRAINSTEM) < 1) & (csf < 0.5) & ~taken
    cerebellum = _cerebellum(template, near, taken | regions["brainstem"])
    regions["cerebellum_white"] = cerebellum & (template.white > 0.5)
    regions["cerebellum_grey"] = cerebellum & ~regions["cerebellum_white"] & (csf < 0.4)
    return regions


def _deep(template: Template, near, csf: np.ndarray, taken: np.ndarray) -> dict[str, np.ndarray]:
    distances = np.stack([near(*parts) for parts in DEEP.values()])
    nearest, inside = distances.argmin(0), distances.min(0) < 1
    grey = template.brain & (csf < 0.4) & (template.white < 0.75) & ~taken
    bright = template.brain & (csf < 0.4) & ~taken  # thalamus and pallidum pass for white matter in T1w averages
    return {name: inside & (nearest == i) & (bright if name in ("thalamus", "pallidum") else grey)
            for i, name in enumerate(DEEP)}


def _cerebellum(template: Template, near, taken: np.ndarray) -> np.ndarray:
    """Everything below the tentorium, found by flooding from inside: dark gaps part it from the lobes above."""
    marks = np.zeros(template.spec.shape, np.int16)
    marks[(near(*CEREBELLUM) < 0.75) & ~taken] = 1
    marks[(near(*CEREBELLUM) > 1.25) | taken | ~template.brain] = 2
    dark = (255 * np.clip(1.1 - template.t1, 0, 1)).astype(np.uint8)
    return (ndimage.watershed_ift(dark, marks) == 1) & template.brain
