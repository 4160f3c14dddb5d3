"""What pre-training reads: the volumes of a store, and every label that its table holds.

Simulated brains have age, sex and the volumes that are true of each image: those in template space (``*_rel``), since
registration takes a head's size away; their logarithm makes an error a proportion. Clips and pictures have classes and
the numbers they were rendered from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from headstart.brains.cohort import Scan
from headstart.brains.store import Store
from headstart.errors import HeadstartError

VOLUMES = ("brain", "grey", "white", "csf", "lateral_ventricles", "third_ventricle", "hippocampus", "amygdala",
           "thalamus", "putamen", "caudate", "entorhinal", "cortex")
# What clips and pictures were rendered from, and what LDM100K's brains were drawn for.
NUMBERS = ("speed", "object_size", "thickness", "objects", "contrast", "covered", "age_scaled", "ventricular_volume",
           "brain_volume")
NO_LABELS = ("Use --objective masked or contrastive, which need no labels; or fill participants.tsv, or put files into "
             "one folder for each class.")
CLASSES = ("class", "motion", "shape", "texture", "ground")


@dataclass(frozen=True)
class Label:
    """What is to be said of a sample: one of ``classes``, or where there are none a number."""

    name: str
    classes: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """How many outputs of a network it needs."""
        return len(self.classes) or 1


@dataclass(frozen=True, eq=False)
class Pool:
    """The samples of a store with every label that its table holds; training reads it as its examples.

    Attributes:
        labels: those known ones that vary in this store; none where there are none.
        targets: (n, len(labels)) float64, classes as 0, 1, 2, …; NaN where a sample has no such label.
    """

    store: Store
    labels: tuple[Label, ...]
    targets: np.ndarray

    def volumes(self, indices: np.ndarray) -> Tensor:
        """float32 (len(indices), 1, X, Y, Z)."""
        return self.store.volumes(indices)

    @property
    def outputs(self) -> int:
        """How many outputs a network needs for all labels."""
        return sum(label.outputs for label in self.labels)

    @property
    def output_names(self) -> list[str]:
        """The label that each output of such a network belongs to."""
        return [label.name for label in self.labels for _ in range(label.outputs)]

    @classmethod
    def open(cls, path: Path) -> Pool:
        """The pool in a store."""
        store = Store.open(path)
        scans = [stored.scan for stored in store.scans]
        found = [*_numbers(scans), *(_classes(scans, name) for name in CLASSES)]
        found = [(label, values) for label, values in found if len(np.unique(values[np.isfinite(values)])) > 1]
        targets = np.stack([values for _, values in found], 1) if found else np.empty((len(scans), 0))
        return cls(store, tuple(label for label, _ in found), targets)

    def check_labels(self, indices: np.ndarray) -> None:
        """HeadstartError if none of the samples ``indices`` has any of the labels."""
        if not np.isfinite(self.targets[indices]).any():
            raise HeadstartError("none of the samples to learn from has an age, sex, regional volumes or a class",
                                 path=self.store.path, fix=NO_LABELS)

    def with_shuffled_labels(self, seed: int) -> Pool:
        """The same samples, each with the labels of another."""
        order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 1]))).permutation(len(self.targets))
        return replace(self, targets=self.targets[order])

    def with_ages_only(self) -> Pool:
        """The same samples with their ages in years as the one target, NaN where unknown."""
        names = [label.name for label in self.labels]
        unknown = np.full((len(self.targets), 1), np.nan)
        ages = self.targets[:, [names.index("age")]] if "age" in names else unknown
        return replace(self, labels=(Label("age"),), targets=ages)


def _numbers(scans: list[Scan]) -> list[tuple[Label, np.ndarray]]:
    sex = {"F": 0.0, "M": 1.0}
    columns = {
        "age": [np.nan if scan.age_years is None or scan.age_censored else scan.age_years for scan in scans],
        "sex": [sex.get(scan.sex or "", np.nan) for scan in scans],
        **{f"log_{name}": [_log(_number(scan, f"{name}_rel")) for scan in scans] for name in VOLUMES},
        **{name: [_number(scan, name) for scan in scans] for name in NUMBERS}}
    return [(Label(name), np.array(values, np.float64)) for name, values in columns.items()]


def _classes(scans: list[Scan], name: str) -> tuple[Label, np.ndarray]:
    said = [scan.columns.get(name) for scan in scans]
    classes = tuple(sorted({text for text in said if text is not None}))
    return Label(name, classes), np.array([np.nan if text is None else classes.index(text) for text in said])


def _number(scan: Scan, column: str) -> float:
    try:
        return float(scan.columns.get(column, "nan"))
    except ValueError:
        return np.nan


def _log(value: float) -> float:
    return float(np.log(value)) if value > 0 else np.nan
