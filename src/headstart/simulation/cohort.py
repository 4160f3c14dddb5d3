"""Simulated cohorts on disk: as a BIDS data set, or straight into a store."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from headstart.brains.cohort import Scan, ScanKey
from headstart.brains.contract import Contract
from headstart.brains.nifti import read_nifti, write_nifti
from headstart.brains.progress import progress_bar
from headstart.brains.store import StoreWriter, pack
from headstart.brains.volumes import VolumeSpec
from headstart.brains.workers import run_each
from headstart.errors import HeadstartError
from headstart.files import atomic_write, one_writer, read_json, write_json
from headstart.simulation import diffusion
from headstart.simulation.base import DRAWN_VERSION, VOLUMES, Generator, Subject, one_thread
from headstart.simulation.design import Design, scan_person
from headstart.simulation.labelmaps import LabelMapGenerator
from headstart.simulation.scanner import as_prepared

WHITE_LEVEL = 1000  # of white matter in the int16 files
POSE_DEGREES, POSE_MM = 5.0, 6.0  # standard deviations of how a head lies in its scanner
CHUNK = 50  # people between two writes to a store
NAME = "headstart simulate"
MARKER, BIDS_MARKER = "simulation.json", "dataset_description.json"  # what was simulated here: in a store, in BIDS
OTHER_FOLDER = "Give another folder, or remove this one."
COLUMNS = {
    "age": {"Description": "Age of the simulated person", "Units": "years"},
    "sex": {"Description": "Sex", "Levels": {"F": "female", "M": "male"}},
    "site": {"Description": "Simulated scanner"},
    "diagnosis": {"Description": "Simulated disease", "Levels": {
        "CN": "control", "AD": "Alzheimer's disease", "PD": "Parkinson's disease"}},
    "stage": {"Description": "Stage of the disease, 0 (healthy) to 1 (advanced)"},
    "head_ml": {"Description": "Intracranial volume", "Units": "mL"},
    **{f"{name}_ml": {"Description": f"Volume of {name.replace('_', ' ')} in the person's own head", "Units": "mL"}
       for name in VOLUMES},
    **{f"{name}_rel": {"Description": f"Volume of {name.replace('_', ' ')} in template space, as registration leaves "
                                      "it", "Units": "mL"} for name in VOLUMES},
}


def participant(index: int) -> str:
    return f"sub-{index + 1:05d}"


# --- as a BIDS data set


def write_cohort(out: str | Path, *, n: int, jobs: int = 1, progress: bool = True, **design: Any) -> Path:
    """Write ``n`` simulated people as a BIDS data set; the same command goes on where a killed one stopped.

    Size and pose of the head are in the images' affines, so that preparation has its real work to do and nothing is
    resampled twice. The table is written last.

    Args:
        out: new, empty, or begun by the same command.
        n: people.
        jobs: processes.
        progress: show a bar.
        **design: see ``Design``.

    Raises:
        HeadstartError: a parameter that does not exist, or ``out`` holds something else.
    """
    plan, out = Design(**design), Path(out)
    if n < 1:
        raise HeadstartError(f"{n} people cannot be simulated", fix="Choose 1 or more.")
    _check_folder(out, plan, n)
    _make_ready(plan, jobs, progress)
    with one_writer(out):
        _write_description(out, plan)
        todo = [index for index in range(n) if not _is_written(_image_path(out, index))]
        with progress_bar("Simulating", len(todo), progress) as advance:
            for _, result in _each(partial(_write_person, out, plan), todo, jobs):
                if isinstance(result, BaseException):
                    raise result
                advance()
        _write_table(out, n, list(_columns(plan)))
    return out


def _columns(plan: Design) -> Mapping[str, Any]:
    return COLUMNS if plan.model is None else diffusion.COLUMNS


def _image_path(out: Path, index: int) -> Path:
    name = participant(index)
    return out / name / "anat" / f"{name}_T1w.nii.gz"


def _sidecar(image: Path) -> Path:
    return image.with_name(image.name.replace(".nii.gz", ".json"))


def _check_folder(out: Path, plan: Design, n: int) -> None:
    """Only an empty folder, or one that this very design has begun, is written to."""
    _check_no_file(out)
    if not out.exists() or not any(path for path in out.iterdir() if path.name != ".lock"):
        return
    marker = out / BIDS_MARKER
    made_by = read_json(marker).get("GeneratedBy", [{}])[0] if marker.exists() else {}
    if made_by.get("Name") != NAME:
        raise HeadstartError("holds something that was not simulated here", path=out, fix=OTHER_FOLDER)
    _check_same(out, _told(made_by), _told(_marker(plan)))
    _check_count(out, len(list(out.glob("sub-*"))), n)


def _check_no_file(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise HeadstartError("is a file, not a folder", path=out, fix="Give another folder.")


def _check_same(out: Path, there: object, wanted: object) -> None:
    if there != wanted:
        raise HeadstartError(f"holds another simulation ({there})", path=out, fix=OTHER_FOLDER)


def _check_count(out: Path, there: int, n: int) -> None:
    if there > n:
        raise HeadstartError(f"holds {there} people already, more than {n}", path=out, fix=OTHER_FOLDER)


def _write_description(out: Path, plan: Design) -> None:
    write_json(out / BIDS_MARKER, {
        "Name": f"Simulated cohort ({plan.cohort})", "BIDSVersion": "1.9.0", "DatasetType": "raw", "License": "CC0",
        "GeneratedBy": [{"Version": version("headstart"), **_marker(plan)}]})
    write_json(out / "participants.json", _columns(plan))
    with atomic_write(out / "README") as file:
        file.write(f"{plan.describe()}.\nEvery image and every value was made by a program.\n")


def _is_written(image: Path) -> bool:
    """Image and labels are there and whole; the labels are written second."""
    try:
        read_json(_sidecar(image))
        read_nifti(image)
    except (HeadstartError, OSError):
        return False
    return True


def _write_person(out: Path, plan: Design, index: int) -> None:
    with one_thread():
        volume, row = scan_person(plan, plan.make_generator(), index)
    image = _image_path(out, index)
    whole = (volume * WHITE_LEVEL).round().clamp(0, np.iinfo(np.int16).max)
    affine = (native_affine(plan.person(index), plan.spec, row) if plan.model is None
              else diffusion.DiffusionGenerator(plan.model).affine())
    write_nifti(image, whole.numpy().astype(np.int16), affine)
    write_json(_sidecar(image), {"Manufacturer": NAME, "SkullStripped": True, "Labels": row})


def native_affine(subject: Subject, spec: VolumeSpec, row: dict[str, float | str]) -> np.ndarray:
    """(4, 4) voxel to scanner: the grid shrunk to the head's own size, turned and shifted a little."""
    rng = subject.rng("pose")
    scale = (float(row["brain_ml"]) / float(row["brain_rel"]))**(1 / 3)
    pose = np.eye(4)
    pose[:3, :3] = scale * _rotation(np.deg2rad(POSE_DEGREES) * rng.standard_normal(3))
    pose[:3, 3] = POSE_MM * rng.standard_normal(3)
    return pose @ spec.affine


def _rotation(vector: np.ndarray) -> np.ndarray:
    """(3, 3) turn about ``vector`` by its length in radians."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(vector).as_matrix()


def _write_table(out: Path, n: int, columns: Sequence[str]) -> None:
    with atomic_write(out / "participants.tsv") as file:
        file.write("\t".join(["participant_id", *columns]) + "\n")
        for index in range(n):
            row = read_json(_sidecar(_image_path(out, index)))["Labels"]
            file.write("\t".join([participant(index), *(_text(row[name], name) for name in columns)]) + "\n")


def _text(value: float | str, name: str) -> str:
    return value if isinstance(value, str) else f"{value:.1f}" if name == "age" else f"{value:.3f}"


# --- straight into a store


def write_store(path: str | Path, *, n: int, jobs: int = 1, progress: bool = True, **design: Any) -> Path:
    """Write ``n`` simulated people into a store as preparation would leave them: no files, no registration.

    Memory does not grow with the images of ``n``; the same command goes on where a killed one stopped.

    Args:
        path: new, or begun by the same call.
        n: people.
        jobs: processes.
        progress: show a bar.
        **design: see ``Design``; ``volume`` is the store's.

    Raises:
        HeadstartError: a parameter that does not exist, or the folder holds something else or more people.
    """
    plan, path = Design(**design), Path(path)
    if n < 1:
        raise HeadstartError(f"{n} people cannot be simulated", fix="Choose 1 or more.")
    if plan.model is not None:
        diffusion.check_grid(plan.model, plan.volume, store=True)
    _check_store(path, plan)
    _make_ready(plan, jobs, progress)
    dataset = _dataset_name(plan)
    with StoreWriter(path, Contract(volume=plan.volume)) as writer:
        done = _begun(path, plan, dataset, writer)
        _check_count(path, done, n)
        chunks = [tuple(range(start, min(start + CHUNK, n))) for start in range(done, n, CHUNK)]
        with progress_bar(f"Simulating, {CHUNK} at a time", len(chunks), progress) as advance:
            for chunk, (rows, labels) in _in_order(_each(partial(_rows, plan), chunks, jobs), chunks):
                writer.append_many([_scan(dataset, index, row) for index, row in zip(chunk, labels)], rows)
                advance()
    return path


def _check_store(path: Path, plan: Design) -> None:
    """Nothing is written among scans of a BIDS data set, or of another simulation."""
    _check_no_file(path)
    if (path / BIDS_MARKER).exists() or (path / "participants.tsv").exists():
        raise HeadstartError("holds a BIDS data set", path=path, fix="Give another folder for the store.")
    if (path / MARKER).exists():  # a store that an older version has begun has none
        _check_same(path, _told(read_json(path / MARKER)), _told(_marker(plan)))


def _marker(plan: Design) -> dict[str, Any]:
    return {"Name": NAME, "Description": plan.describe(), "Drawn": DRAWN_VERSION}


def _told(marker: Any) -> str:
    """A marker in words; equal ones have drawn equal people."""
    known = marker if isinstance(marker, dict) else {}
    drawn = f"version {known['Drawn']}" if "Drawn" in known else "an older version"
    return f"{known.get('Description')}, by {drawn} of the simulator"


def _begun(path: Path, plan: Design, dataset: str, writer: StoreWriter) -> int:
    """How many people are there; where there are none yet, it is written down who will be."""
    done = len(writer)
    if any(ScanKey(dataset, participant(index)) not in writer for index in range(done)):
        raise HeadstartError("holds other scans than this simulation", path=path, fix="Give another folder.")
    if not done:
        write_json(path / MARKER, _marker(plan))
    return done


def _dataset_name(plan: Design) -> str:
    model = f"-{diffusion.identity(plan.model)}" if plan.model is not None else ""
    return re.sub(r"[^\w.-]+", "-", f"simulated-{plan.cohort}-{plan.generator}{model}-{plan.purpose}-{plan.seed}")


def _rows(plan: Design, chunk: Sequence[int]) -> tuple[np.ndarray, list[dict[str, float | str]]]:
    """(n, kept voxels) float16 and the labels of a chunk of people."""
    generator = plan.make_generator()
    with one_thread():
        rows, labels = zip(*(_row(plan, generator, index) for index in chunk))
    return np.stack(rows), list(labels)


def _row(plan: Design, generator: Generator | None, index: int) -> tuple[np.ndarray, dict[str, float | str]]:
    volume, labels = scan_person(plan, generator, index)
    if plan.model is None:  # a learned model draws scans as preparation left them
        volume = as_prepared(volume, plan.spec)
    return pack(volume.numpy(), plan.spec), labels


def _scan(dataset: str, index: int, row: dict[str, float | str]) -> Scan:
    own = ("age", "sex", "site")
    columns = {sys.intern(name): _text(value, name) for name, value in row.items() if name not in own}
    return Scan(dataset, participant(index), "", Path(f"{participant(index)}_T1w.nii.gz"), str(row["site"]),
                age_years=round(float(row["age"]), 1), sex=str(row["sex"]), columns=columns,
                subject=f"{dataset}/{participant(index)}", simulated=True)


# --- shared


def _make_ready(plan: Design, jobs: int, progress: bool) -> None:
    """What all people share is made before any of them is: two workers would make it twice."""
    if plan.model is not None:
        diffusion.check_weights(plan.model)
    generator = plan.make_generator()
    if isinstance(generator, LabelMapGenerator):
        generator.build(plan.spec, jobs=jobs, progress=progress)


def _each(function, items: Sequence, jobs: int) -> Iterator[tuple]:
    if jobs == 1 or len(items) <= 1:
        return ((item, function(item)) for item in items)
    return run_each(function, items, jobs)


def _in_order(results: Iterator[tuple], order: Sequence) -> Iterator[tuple]:
    """Results in the order of their items; what comes early waits."""
    early: dict = {}
    position = 0
    for item, result in results:
        if isinstance(result, BaseException):
            raise result
        early[item] = result
        while position < len(order) and order[position] in early:
            yield order[position], early.pop(order[position])
            position += 1
