"""Brains from real anatomies: any folder of label maps with FreeSurfer ids becomes a population.

A subject takes one anatomy, mirrored or not and smoothly warped, whose structures are then dilated or shrunk, and whose
cortical ribbon is moved at both borders, until the volumes are those that age, sex and chance ask for. Real sulci stay
real. Space freed by tissue is filled by fluid (by brainstem where the nigra was), so volumes are true of the image.
"""

from __future__ import annotations

import re
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
from headstart.simulation.morph import (
    TEMPLATE_INTRACRANIAL_ML,
    Chance,
    Deformable,
    entorhinal_of,
    nigra_lost,
    target_ml,
    warped,
)

CHANCE = Chance(warp_mm=((45.0, 1.8), (22.0, 0.8)), tilt_degrees=1.2, shift_mm=0.8, stretch=0.012)
NEAR = (0.6, 0.8, 0.3, 0.4, 0.3, 0.3, 0.3)  # log distance, per structure of ``PUSHES``, one is readily pushed over
DRAWN = 4  # of what label maps give, beside ``base.DRAWN_VERSION``; raised with every change
THICKEST, AIMS, SLIGHT = 6.0, 6, 0.005  # levels of a thick cortex; corrections of a regional loss, and which need none
PATTERNS = ("*.nii.gz", "*.nii", "*.mgz")
RECON_ALL = "*/mri/aseg.mgz"  # in a SUBJECTS_DIR
AVERAGE = re.compile(r"fsaverage.*|.h\.EC_average|.*\.long\..*")  # nobody in particular, or someone a second time


@dataclass(frozen=True)
class LabelMapGenerator:
    """Generator over the label maps in ``folder``: ``*.nii[.gz]``, ``*.mgz``, or a SUBJECTS_DIR of recon-all.

    Raises:
        HeadstartError: the folder holds none, or something of such a name is no file.
    """

    folder: Path
    name: str = "labelmaps"
    paths: tuple[Path, ...] = field(init=False)

    def __post_init__(self) -> None:
        folder = Path(self.folder)
        found = tuple(path for path in sorted(folder.glob(RECON_ALL)) if not AVERAGE.match(path.parts[-3]))
        found = found or tuple(sorted(path for pattern in PATTERNS for path in folder.glob(pattern)
                                      if not path.name.startswith(".")))
        if not found:
            raise HeadstartError("holds no label maps (*.nii, *.nii.gz, *.mgz; or SUBJECT/mri/aseg.mgz)", path=folder,
                                 fix="Give a folder of FreeSurfer or SynthSeg segmentations, or a SUBJECTS_DIR.")
        for path in found:
            if not path.is_file():
                raise HeadstartError("is called like a label map and is no file", path=path,
                                     fix="Remove it, or put the label map itself there.")
        object.__setattr__(self, "paths", found)

    def digest(self) -> str:
        """Of the maps' names and bytes, and of how they are read: wherever they lie, equal maps make equal people."""
        named = [[path.relative_to(self.folder).as_posix(), sha256_of(path)] for path in self.paths]
        return digest_json([DRAWN, *named])

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
    by["brainstem"].add_(by["nigra"], alpha=nigra_lost(subject))
    by["nigra"].mul_(1 - nigra_lost(subject))
    fixed = columns[COLUMNS.index(FIXED[0]):COLUMNS.index(FIXED[-1]) + 1]
    total = dict(zip(FIXED, (fixed.sum(1) * ml).tolist()))
    whites = [by[f"white{w}"] for w in WHITE_MM]
    white = _between(whites, _position(whites, target_ml(subject, "white") - sum(total.get(n, 0.0) for n in WHITE), ml))
    rest = fixed.sum(0).add_(white).neg_().add_(1).clamp_(0, 1)
    fluid_ml = float(rest.sum()) * ml - target_ml(subject, "grey") + sum(total.get(name, 0.0) for name in GREY)
    csf = _fluid([torch.minimum(by[f"csf{s}"], rest) for s in PIAL_MM], fluid_ml, rest, by["temporo_parietal"],
                 subject.losses["temporo_parietal"], ml)
    ribbon = rest.sub_(csf)
    entorhinal, kept = entorhinal_of(by["entorhinal"], ribbon, subject, spec)
    tissues = {**by, "white": white, "entorhinal": kept * entorhinal, "cortex": ribbon.sub_(entorhinal),
               "csf": csf.add_(entorhinal, alpha=1 - kept)}
    return torch.stack([tissues[name] for name in TISSUES])


def _fluid(levels: list[torch.Tensor], wanted_ml: float, rest: torch.Tensor, region: torch.Tensor, lost: float,
           ml: float) -> torch.Tensor:
    """(n,) fluid in ``rest`` (n,), ``wanted_ml`` in all, with a share ``lost`` of the cortex in ``region`` (n,) gone.

    There the cortex's outer border moves inward by as much as takes that share of its volume; everywhere else it goes
    the other way, so that the whole stays as it was asked for.
    """
    position, last, stack = _position(levels, wanted_ml, ml), len(levels) - 1, torch.stack(levels)
    wanted_ml = min(max(wanted_ml, float(levels[0].sum()) * ml), float(levels[-1].sum()) * ml)  # what can be reached
    here, low = _between(levels, position), min(position, last - 1)
    rise = _between(levels, low + 1) - _between(levels, low)
    cortex_ml, step_ml = max(float(((rest - here) * region).sum()) * ml, 1e-3), max(float(rise.sum()) * ml, 1.0)
    further = lost * min(cortex_ml / max(float((rise * region).sum()) * ml, 1e-3), THICKEST)  # levels, in the region
    for _ in range(AIMS):
        here = _blended(stack, region * further + position)
        position = min(max(position + (wanted_ml - float(here.sum()) * ml) / step_ml, 0.0), float(last))
        if abs(lost) > SLIGHT:
            gone = 1 - float(((rest - here) * region).sum()) * ml / cortex_ml
            further *= float(np.clip(lost / gone, 0.7, 1.4)) if lost * gone > 0 else 1.4
    return _blended(stack, region * further + position)


def _position(levels: list[torch.Tensor], wanted_ml: float, ml: float) -> float:
    """Where between the ``levels`` (rising totals) the total is ``wanted_ml``; the first or last if out of reach."""
    totals = np.maximum.accumulate([float(level.sum()) * ml for level in levels])
    return float(np.interp(wanted_ml, totals, np.arange(len(levels))))


def _between(levels: list[torch.Tensor], position: float) -> torch.Tensor:
    """(n,) the mixture of the two neighbouring ``levels``."""
    low = min(int(position), len(levels) - 2)
    return torch.lerp(levels[low], levels[low + 1], position - low)


def _blended(levels: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """(n,) of ``levels`` (k, n) the mixture at a ``position`` (n,) of each voxel's own."""
    position = position.clamp(0, len(levels) - 1)
    low = position.long().clamp_(max=len(levels) - 2)[None]
    return torch.lerp(levels.gather(0, low)[0], levels.gather(0, low + 1)[0], position - low[0])
