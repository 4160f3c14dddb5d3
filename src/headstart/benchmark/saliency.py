"""What a cell's model looks at, on two example brains: kept when the cell ends, since its weights are not.

Only the first seed's cells at the largest training size do this; the examples are the same for every row of a task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from headstart.backbones.model import BrainModel
from headstart.benchmark.plan import Cell, Plan
from headstart.benchmark.shared import TaskData
from headstart.brains.cohort import ScanKey
from headstart.explanation.maps import explain
from headstart.files import atomic_write

FILE = "saliency.npz"
PLACES = (0.1, 0.9)  # of the tested people, ordered by the target
MOST_VOXELS = 150_000  # of a kept volume; a finer grid keeps every second or third voxel, and so on


@dataclass(frozen=True)
class Saliency:
    """Example brains and one model's maps of them.

    Attributes:
        keys: of the n scans.
        brains, maps: (n, X, Y, Z) float16, cropped to the brains and thinned alike; maps as ``explain`` gives them.
    """

    keys: tuple[ScanKey, ...]
    brains: np.ndarray
    maps: np.ndarray


def wanted(plan: Plan, cell: Cell) -> bool:
    """Whether a cell keeps maps; nearest neighbours have no gradient worth a look."""
    sizes = plan.sizes(plan.task(cell.task))
    largest = max(sizes, key=lambda size: math.inf if size == "full" else size)
    return cell.seed == plan.seeds[0] and cell.train_size == largest and cell.mode != "knn"


def examples(task: TaskData) -> np.ndarray:
    """The scans to look at, of held-out sites where there are any: a low and a high target, whatever is predicted."""
    tested = task.outside if len(task.outside) else task.test
    ordered = tested[np.argsort(task.data.targets[tested], kind="stable")]
    return ordered[[int(place * (len(ordered) - 1)) for place in PLACES]]


def keep_saliency(path: Path, model: BrainModel, task: TaskData) -> None:
    """Write SmoothGrad maps of the examples for the number, or for the last class."""
    chosen, spec = examples(task), task.data.store.spec
    brains = task.data.volumes(chosen).float().cpu()
    model = model.cpu()
    maps = np.stack([explain("gradient", model, brain[None], spec, task.data.task.num_outputs - 1) for brain in brains])
    part = _window((brains[:, 0] != 0).any(0))
    with atomic_write(path, "wb") as file:
        np.savez_compressed(file, keys=np.array([task.data.scans[i].key for i in chosen], dtype=str),
                            brains=brains[:, 0].numpy()[:, *part].astype(np.float16), maps=_halved(maps[:, *part]))


def read_saliency(path: Path) -> Saliency | None:
    """What a cell kept; None where it kept nothing."""
    if not path.exists():
        return None
    with np.load(path) as found:
        return Saliency(tuple(ScanKey(*key) for key in found["keys"].tolist()), found["brains"], found["maps"])


def _window(brain: torch.Tensor) -> tuple[slice, ...]:
    """The box around the brains, in steps that leave few enough voxels."""
    ends = [(int(where.min()), int(where.max()) + 1) for where in brain.nonzero(as_tuple=True)]
    step = math.ceil((math.prod(b - a for a, b in ends) / MOST_VOXELS) ** (1 / 3))
    return tuple(slice(a, b, max(step, 1)) for a, b in ends)


def _halved(maps: np.ndarray) -> np.ndarray:
    """As float16 with the strongest place of each map at 1: only where it is strong is ever shown."""
    top = np.abs(maps).max((1, 2, 3), keepdims=True)
    return (maps / np.where(top > 0, top, 1)).astype(np.float16)
