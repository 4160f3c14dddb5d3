"""Brains from real anatomies: any folder of label maps with FreeSurfer ids becomes a population.

A subject takes one anatomy, mirrored or not and smoothly warped, whose structures are then dilated or shrunk, and whose
cortical ribbon is moved at both borders, until the volumes are those that age, sex and chance ask for. Real sulci stay
real. Space freed by tissue is filled by fluid, so volumes are true of the image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch

from headstart.brains.volumes import VolumeSpec
from headstart.errors import HeadstartError
from headstart.files import digest_json
from headstart.simulation.anatomies import (
    BANK_GRID,
    COLUMNS,
    FIXED,
    PIAL_MM,
    PUSHES,
    WHITE_MM,
    build_anatomies,
    load_anatomy,
    sha256_of,
)
from headstart.simulation.base import GREY, TISSUES, WHITE, Shape, Subject
from headstart.simulation.fields import sample
from headstart.simulation.morph import TEMPLATE_INTRACRANIAL_ML, Chance, Deformable, target_ml, warped

CHANCE = Chance(warp_mm=((45.0, 1.8), (22.0, 0.8)), tilt_degrees=1.2, shift_mm=0.8, stretch=0.012)
NEAR = (0.6, 0.8, 0.3, 0.4, 0.3, 0.3, 0.3)  # log distance, per structure of ``PUSHES``, one is readily pushed over
ENTORHINAL_ML = 1.9  # mean at 60 years of what the soft ball of the bank holds, thinned so that some keep more


@dataclass(frozen=True)
class LabelMapGenerator:
    """Generator over the label maps in ``folder`` (``*.nii[.gz]`` or ``*.mgz``).

    Raises:
        HeadstartError: the folder holds none, or something of such a name is no file.
    """

    folder: Path
    name: str = "labelmaps"
    paths: tuple[Path, ...] = field(init=False)

    def __post_init__(self) -> None:
        patterns = ("*.nii.gz", "*.nii", "*.mgz")
        found = tuple(sorted(path for pattern in patterns for path in Path(self.folder).glob(pattern)))
        if not found:
            raise HeadstartError("holds no label maps (*.nii, *.nii.gz, *.mgz)", path=self.folder,
                                 fix="Give a folder of FreeSurfer or SynthSeg segmentations.")
        for path in found:
            if not path.is_file():
                raise HeadstartError("is called like a label map and is no file", path=path,
                                     fix="Remove it, or put the label map itself there.")
        object.__setattr__(self, "paths", found)

    def digest(self) -> str:
        """Of the maps' names and bytes: wherever they lie, equal maps make equal people."""
        return digest_json([[path.name, sha256_of(path)] for path in self.paths])

    def build(self, spec: VolumeSpec, *, jobs: int = 1, progress: bool = True) -> None:
        """Make every anatomy ready for grid ``spec``, ``jobs`` at a time; see ``anatomies.build_anatomies``."""
        build_anatomies(self.paths, spec, jobs=jobs, progress=progress)

    def shape(self, subject: Subject, spec: VolumeSpec) -> Shape:
        """Tissue of one subject; see ``base.Shape``."""
        rng = subject.rng("shape")
        wanted = np.array([target_ml(subject, name) for name in PUSHES])
        anatomy = self._likely(rng, wanted, spec)
        points, _ = warped(rng, spec, CHANCE)
        columns = sample(anatomy.maps, BANK_GRID, anatomy.fitted(points, wanted, spec), len(COLUMNS))
        return Shape(_mixed(columns, subject, spec), columns[COLUMNS.index("depth_mm")],
                     subject.head_ml / TEMPLATE_INTRACRANIAL_ML)

    def _likely(self, rng: np.random.Generator, wanted_ml: np.ndarray, spec: VolumeSpec) -> Deformable:
        """An anatomy drawn with odds that fall with the distance it would have to be pushed."""
        candidates = [_anatomy(path, spec) for path in self.paths]
        far = np.log(wanted_ml / np.array([anatomy.response.rest_ml for anatomy in candidates])) / np.array(NEAR)
        odds = np.exp(-0.5 * (far**2).sum(1)) + 1e-6
        return candidates[int(rng.choice(len(candidates), p=odds / odds.sum()))]


@cache  # a bank is mapped from its file: a hundred of them cost little memory
def _anatomy(path: Path, spec: VolumeSpec) -> Deformable:
    anatomy = load_anatomy(path, spec)
    return Deformable.of(anatomy.bank, [COLUMNS.index(name) for name in PUSHES], anatomy.pushes)


def _mixed(columns: torch.Tensor, subject: Subject, spec: VolumeSpec) -> torch.Tensor:
    """(tissues, n) from (columns, n): the cortex's borders are put where grey and white matter have their volumes."""
    ml, by = spec.spacing_mm**3 / 1000, dict(zip(COLUMNS, columns))
    fixed = columns[COLUMNS.index(FIXED[0]):COLUMNS.index(FIXED[-1]) + 1]
    total = dict(zip(FIXED, (fixed.sum(1) * ml).tolist()))
    white = _at_total([by[f"white{w}"] for w in WHITE_MM],
                      target_ml(subject, "white") - sum(total[name] for name in WHITE if name in total), ml)
    rest = fixed.sum(0).add_(white).neg_().add_(1).clamp_(0, 1)
    grey_wanted = target_ml(subject, "grey") - sum(total[name] for name in GREY if name in total)
    csf = _at_total([torch.minimum(by[f"csf{s}"], rest) for s in PIAL_MM], float(rest.sum()) * ml - grey_wanted, ml)
    ribbon = rest.sub_(csf)
    entorhinal = ribbon * by["entorhinal"]
    lost = np.clip(1 - ENTORHINAL_ML * subject.target("entorhinal") / (float(entorhinal.sum()) * ml), 0, 0.6)
    tissues = {**by, "white": white, "entorhinal": entorhinal * (1 - lost), "cortex": ribbon.sub_(entorhinal),
               "csf": csf.add_(entorhinal, alpha=float(lost))}
    return torch.stack([tissues[name] for name in TISSUES])


def _at_total(levels: list[torch.Tensor], wanted_ml: float, ml: float) -> torch.Tensor:
    """The mixture of two neighbouring ``levels`` (rising totals) whose total is ``wanted_ml``, or the nearest level."""
    totals = np.maximum.accumulate([float(level.sum()) * ml for level in levels])
    position = float(np.interp(wanted_ml, totals, np.arange(len(levels))))
    low = min(int(position), len(levels) - 2)
    return torch.lerp(levels[low], levels[low + 1], position - low)
