"""Supervised pre-training on simulated brains: age, sex and the volumes that are true of each image, jointly.

Volumes are those in template space (``*_rel``), since registration takes a head's size away; their logarithm makes an
error a proportion. A pool of brains is simulated once and re-augmented in every epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from headstart.brains.cohort import Scan
from headstart.brains.store import Store
from headstart.errors import HeadstartError

VOLUMES = ("grey", "white", "csf", "lateral_ventricles", "third_ventricle", "hippocampus", "amygdala", "thalamus",
           "putamen", "caudate", "entorhinal", "cortex")
TARGETS = ("age", "sex", *(f"log_{name}" for name in VOLUMES))


@dataclass(frozen=True, eq=False)
class Pool:
    """The scans of a store with every target that its table holds; training reads it as its examples.

    Attributes:
        names: those of ``TARGETS`` that vary in this store.
        targets: (n, len(names)) float64, NaN where a scan has no such label.
    """

    store: Store
    names: tuple[str, ...]
    targets: np.ndarray

    def volumes(self, indices: np.ndarray) -> Tensor:
        """float32 (len(indices), 1, X, Y, Z)."""
        return self.store.volumes(indices)

    @classmethod
    def open(cls, path: Path) -> Pool:
        """The pool in a store.

        Raises:
            HeadstartError: no scan has any of the labels.
        """
        store = Store.open(path)
        targets = np.array([_targets(stored.scan) for stored in store.scans], np.float64).reshape(-1, len(TARGETS))
        varies = [len(np.unique(column[np.isfinite(column)])) > 1 for column in targets.T]
        if not any(varies):
            raise HeadstartError("has no scan with age, sex or regional volumes", path=path,
                                 fix="Pre-train on a store of simulated brains: headstart simulate --store.")
        return cls(store, tuple(np.array(TARGETS)[varies].tolist()), targets[:, varies])


def _targets(scan: Scan) -> list[float]:
    sex = {"F": 0.0, "M": 1.0}.get(scan.sex or "", np.nan)
    age = np.nan if scan.age_years is None or scan.age_censored else scan.age_years
    return [age, sex, *(_log(scan.columns.get(f"{name}_rel")) for name in VOLUMES)]


def _log(text: str | None) -> float:
    try:
        return float(np.log(float(text))) if text is not None and float(text) > 0 else np.nan
    except ValueError:
        return np.nan
