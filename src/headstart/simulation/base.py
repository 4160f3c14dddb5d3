"""What every generator shares: who is simulated (subjects), what comes out (brains), and how randomness is drawn.

A subject is a pure function of (seed, index): batch size, worker count and order never change it. Generators shape
tissue; one scanner (scanner.py) paints all of them, so that they differ in anatomy only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from headstart.brains.volumes import VolumeSpec
from headstart.errors import HeadstartError
from headstart.simulation.ageing import AGES_YEARS, STRUCTURES, draw_head_ml, draw_relative

# Tissue channels of every generator, in this order; fractions of a voxel, summing to 1 inside the head.
TISSUES = ("csf", "cortex", "entorhinal", "white", "lesion", "lateral_ventricles", "third_ventricle", "hippocampus",
           "amygdala", "thalamus", "putamen", "caudate", "pallidum", "cerebellum_grey", "cerebellum_white",
           "brainstem", "nigra")
GREY = ("cortex", "entorhinal", "hippocampus", "amygdala", "thalamus", "putamen", "caudate", "pallidum",
        "cerebellum_grey")
WHITE = ("white", "lesion", "cerebellum_white", "brainstem", "nigra")
VENTRICLES = ("lateral_ventricles", "third_ventricle")
VOLUMES = ("brain", "grey", "white", "csf", *VENTRICLES, "hippocampus", "amygdala", "thalamus", "putamen", "caudate",
           "entorhinal", "cortex")
# Regions without a trajectory: mean and standard deviation, among the healthy, of the share lost (``Subject.losses``).
LOSSES = {"temporo_parietal": (0.0, 0.045), "nigra": (0.3, 0.25)}
DRAWN_VERSION = 4  # of what generators and scanners draw; raised with every change, so that no cache gives old brains
PURPOSES = ("upstream", "cohort")  # their random streams and scanner ranges never meet


def rng_for(seed: int, index: int, part: str) -> np.random.Generator:
    """The random stream of one part ("shape", "scan", ...) of one subject."""
    entropy = (seed, index, *part.encode())
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


@contextmanager
def one_thread() -> Iterator[None]:
    """Draw on one thread, whose sums do not depend on what else is drawn; whoever trains next has theirs back."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Subject:
    """One simulated person.

    Attributes:
        age: years. sex: "F" or "M". diagnosis: CN, AD or PD. stage: 0 (healthy) to 1.
        head_ml: intracranial volume. relative: (k,) volumes of ``STRUCTURES`` over their means at 60 years.
        losses: share lost in regions that have no trajectory, by nature (``LOSSES``; negative where one has more than
            others) and to disease.
    """

    seed: int
    index: int
    age: float
    sex: str
    head_ml: float
    relative: np.ndarray
    losses: Mapping[str, float]
    diagnosis: str = "CN"
    stage: float = 0.0
    site: str = "sim"
    purpose: str = "upstream"

    def rng(self, part: str) -> np.random.Generator:
        """The stream of random numbers for one part of this subject, e.g. ``scanner``."""
        return rng_for(self.seed, self.index, f"{self.purpose}/{part}")

    def target(self, structure: str) -> float:
        """Relative volume that ``structure`` shall have."""
        return float(self.relative[STRUCTURES.index(structure)])


def draw_subject(seed: int, index: int, *, ages: tuple[float, float] = AGES_YEARS,
                 purpose: str = "upstream", men: float = 0.5) -> Subject:
    """A healthy subject, age uniform in ``ages`` (years); a function of its arguments alone.

    Args:
        men: probability of a man.

    Raises:
        HeadstartError: ages that cannot be simulated.
    """
    low, high = ages
    if not AGES_YEARS[0] <= low < high <= AGES_YEARS[1]:
        raise HeadstartError(f"ages {low}-{high} cannot be simulated",
                             fix=f"Choose a range within {AGES_YEARS[0]:.0f}-{AGES_YEARS[1]:.0f} years.")
    rng = rng_for(seed, index, f"{purpose}/subject")
    age, male = float(rng.uniform(low, high)), bool(rng.random() < men)
    return Subject(seed, index, age, "M" if male else "F", draw_head_ml(rng, male), draw_relative(rng, age, male),
                   _draw_losses(rng), purpose=purpose)


def _draw_losses(rng: np.random.Generator) -> dict[str, float]:
    """What nature took: without it whoever has lost anything there would be known for a patient."""
    return {region: mean + sd * float(np.clip(rng.standard_normal(), -2.5, 2.5))
            for region, (mean, sd) in LOSSES.items()}


@dataclass
class Shape:
    """One subject's tissue on a grid.

    Attributes:
        tissues: (channels, kept voxels) float32, ``TISSUES`` in order.
        depth_mm: (kept voxels,) distance into the brain's outline, negative outside.
        head_scale: native over registered volume.
    """

    tissues: torch.Tensor
    depth_mm: torch.Tensor
    head_scale: float


class Generator(Protocol):
    """Turns subjects into tissue; ``name`` goes into every label table."""

    @property
    def name(self) -> str: ...

    def shape(self, subject: Subject, spec: VolumeSpec) -> Shape: ...


@dataclass
class Brains:
    """Simulated scans, scaled like prepared real ones, and what is true of them.

    Attributes:
        volumes: (n, 1, X, Y, Z) float32, background exactly 0.
        labels: name -> (n,) array: age, sex, diagnosis, stage, site, head_ml, and each of ``VOLUMES`` as ``*_rel``
            (mL in template space) and ``*_ml`` (mL in the subject's own head).
    """

    volumes: torch.Tensor
    labels: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.volumes)


def measure(shape: Shape, spec: VolumeSpec) -> dict[str, float]:
    """Volumes in template space (mL), summed over the tissue fractions that are painted."""
    by = dict(zip(TISSUES, (shape.tissues.sum(1).double() * spec.spacing_mm**3 / 1000).tolist()))
    grey, white = sum(by[t] for t in GREY), sum(by[t] for t in WHITE)
    inside = (shape.depth_mm > 0) * shape.tissues[TISSUES.index("csf")]
    ventricles = sum(by[t] for t in VENTRICLES)
    return {"brain": grey + white + ventricles, "grey": grey, "white": white,
            "csf": float(inside.sum()) * spec.spacing_mm**3 / 1000 + ventricles,
            **{name: by[name] for name in VOLUMES[4:-2]},
            "entorhinal": by["entorhinal"], "cortex": by["cortex"] + by["entorhinal"]}


def labels_of(subject: Subject, shape: Shape, spec: VolumeSpec) -> dict[str, float | str]:
    """The label row of one subject."""
    relative = measure(shape, spec)
    return {"age": subject.age, "sex": subject.sex, "diagnosis": subject.diagnosis, "stage": subject.stage,
            "site": subject.site, "head_ml": subject.head_ml,
            **{f"{name}_rel": value for name, value in relative.items()},
            **{f"{name}_ml": value * shape.head_scale for name, value in relative.items()}}


def stack(volumes: Sequence[torch.Tensor], rows: Sequence[dict]) -> Brains:
    """Join single subjects into one batch."""
    return Brains(torch.stack(list(volumes)), {key: np.array([row[key] for row in rows]) for key in rows[0]})


def batches(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield indices[start:start + size]
