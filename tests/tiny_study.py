"""A study small enough to be run, killed and run again through the command line in a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headstart.brains.cohort import Scan
from headstart.brains.contract import Contract
from headstart.brains.nifti import write_nifti
from headstart.brains.store import StoreWriter, pack
from headstart.brains.volumes import template

HEADSTART = [sys.executable, "-m", "headstart.cli"]
QUICK = ["--seeds", "1", "--folds", "2", "--epochs", "2", "--learning-rates", "0.001", "--jobs", "2"]
CHANGING = {"environment", "made_with", "seconds", "waited", "scans_per_second"}


def write_store(path: Path, ages: list[float] | None = None) -> Path:
    """A store of twelve noisy template brains at two sites, the older the darker."""
    target, ages = template("4mm"), ages or [20.0 + 5 * i for i in range(12)]
    with StoreWriter(path, Contract()) as writer:
        for i, age in enumerate(ages):
            noise = np.random.default_rng(i).normal(0, 0.05, target.t1.shape)
            volume = np.where(target.brain, target.t1 * (1 - age / 200) + noise, 0).astype(np.float32)
            scan = Scan("toy", f"sub-{i:02d}", "", Path("none"), "AB"[i % 2], age_years=age, sex="FM"[i // 2 % 2],
                        subject=f"toy/sub-{i:02d}",
                        columns={"group": "patient" if i % 3 else "control", "same": "one"})
            writer.append(scan, pack(volume, Contract().spec))
    return path


def write_bids(folder: Path, n: int = 3) -> Path:
    """A BIDS data set of ``n`` small brains."""
    target = template("4mm")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset_description.json").write_text('{"Name": "toy", "BIDSVersion": "1.9.0"}')
    rows = [f"sub-{i:02d}\t{20 + 5 * i}\t{'FM'[i % 2]}" for i in range(n)]
    (folder / "participants.tsv").write_text("\n".join(["participant_id\tage\tsex", *rows]) + "\n")
    for i in range(n):
        affine, rng = target.spec.affine.copy(), np.random.default_rng(i)
        affine[:3, 3] += rng.uniform(-5, 5, 3)
        data = np.where(target.brain, 500 * target.t1 + rng.normal(0, 10, target.t1.shape), 0).astype(np.float32)
        path = folder / f"sub-{i:02d}" / "anat" / f"sub-{i:02d}_T1w.nii.gz"
        path.parent.mkdir(parents=True)
        write_nifti(path, data, affine)
    return folder


def finetune(store: Path, out: Path, *more: str, task: str = "brain-age") -> list[str]:
    """The command that trains on a store."""
    return [*HEADSTART, "finetune", "--store", str(store), "--out", str(out), "--task", task, *QUICK, *more]


def prepare(bids: Path, store: Path, *more: str) -> list[str]:
    """The command that prepares a data set."""
    return [*HEADSTART, "prepare", str(bids), "--store", str(store), "--jobs", "2", *more]


def run(command: list[str], preexec: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    """Run to the end; what it says is captured."""
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), preexec_fn=preexec)


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def study(out: Path) -> dict[str, Any]:
    """All of a finished run that a repetition must reproduce, by file: everything but how long it took and where."""
    files = {str(path.relative_to(out)): path for path in sorted(out.rglob("*")) if path.is_file()}
    return {name: _lasting(path) for name, path in files.items() if name != ".lock"}


def _lasting(path: Path) -> Any:
    if path.suffix == ".json":
        return _without(json.loads(path.read_text()), CHANGING)
    return "there" if path.suffix in (".html", ".pt") else path.read_bytes()


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(part, names) for key, part in value.items() if key not in names}
    return [_without(part, names) for part in value] if isinstance(value, list) else value
