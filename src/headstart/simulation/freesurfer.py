"""FreeSurfer's label maps, also as SynthSeg writes them: which id is what, and files of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np

from headstart.errors import HeadstartError

# FreeSurfer ids; choroid plexus (136, 163) counts as ventricle, as in volumetry.
LABELS = {
    "lesion": (25, 57, 77), "lateral_ventricles": (4, 5, 43, 44, 31, 63, 136, 163, 137, 164),
    "third_ventricle": (14, 72),
    "hippocampus": (17, 53), "amygdala": (18, 54), "thalamus": (9, 10, 48, 49), "putamen": (12, 51),
    "caudate": (11, 50), "pallidum": (13, 52, 26, 58, 28, 60), "cerebellum_grey": (8, 47),
    "cerebellum_white": (7, 46), "brainstem": (16, 85),
}
WHITE_IDS = (2, 41, 30, 62, 251, 252, 253, 254, 255)
CORTEX_IDS = (3, 42)
# Parcels of recon-all's aparc+aseg, aparc.a2009s+aseg and wmparc: first id, id after the last, and what they are.
PARCELS = ((1000, 2000, 3), (2000, 3000, 42), (3000, 4000, 2), (4000, 5000, 41), (5001, 5002, 2), (5002, 5003, 41),
           (11100, 12000, 3), (12100, 13000, 42), (13100, 14000, 2), (14100, 15000, 41))
STRANGE = 60  # other values that a map may hold: SynthSeg's whole heads have 14, T1w scans of IXI 89 and more
KNOWN = (*(number for ids in LABELS.values() for number in ids), *WHITE_IDS, *CORTEX_IDS)
WHOLE = "Give whole segmentations at about 1 mm, such as aseg.mgz or SynthSeg output."


def read_labels(path: Path, structures: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """The label map in ``path``.

    Args:
        structures: of ``LABELS``, those that it must hold.

    Returns:
        Labels (X, Y, Z) int16, closest to RAS, parcels as what they are parcels of; and the affine, (4, 4).

    Raises:
        HeadstartError: not readable, an image, or without cortex, white matter or one of ``structures``.
    """
    try:
        image = nib.as_closest_canonical(nib.load(path))
        labels = np.asarray(image.dataobj)
    except Exception as error:
        raise HeadstartError(f"is not readable as a label map ({error})", path=path) from error
    if labels.ndim != 3:
        raise HeadstartError(f"has {labels.ndim} dimensions, and a label map has 3", path=path, fix=WHOLE)
    found = np.rint(np.nan_to_num(labels))
    labels = without_parcels(found)
    if (strange := len(np.unique(found[~np.isin(labels, KNOWN)]))) > STRANGE:
        raise HeadstartError(f"is an image, not a label map: {strange:,} of its values are no ids of tissue", path=path,
                             fix=WHOLE)
    if not (np.isin(labels, CORTEX_IDS).any() and np.isin(labels, WHITE_IDS).any()):
        raise HeadstartError("holds no FreeSurfer cortex and white matter", path=path,
                             fix="Give segmentations such as aseg.mgz or SynthSeg output.")
    check_structures(labels, path, structures)
    return labels, image.affine


def without_parcels(labels: np.ndarray) -> np.ndarray:
    """Parcels of cortex and white matter as what they are parcels of; other ids from 500 on as nothing."""
    plain = np.where((labels >= 500) | (labels < 0), 0, labels).astype(np.int16)
    for first, end, whole in PARCELS:
        plain[(labels >= first) & (labels < end)] = whole
    return plain


def check_structures(labels: np.ndarray, path: Path, structures: Iterable[str], when: str = "") -> None:
    """HeadstartError unless every one of ``structures`` is there."""
    missing = [name for name in structures if not np.isin(labels, LABELS[name]).any()]
    if missing:
        named = ", ".join(f"{name.replace('_', ' ')} (ids {' '.join(map(str, LABELS[name]))})" for name in missing)
        raise HeadstartError(f"holds no {named}{when}", path=path, fix=WHOLE)
