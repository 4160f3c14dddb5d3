"""A store of the clips or pictures in files, decoded once and read by every run that asks for the same files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headstart.brains.augment import sample_seeds
from headstart.brains.cohort import Scan
from headstart.brains.contract import Contract
from headstart.brains.progress import progress_bar
from headstart.brains.store import StoreWriter
from headstart.brains.volumes import VolumeSpec, template, volume_spec
from headstart.errors import HeadstartError
from headstart.pretraining.procedural import scenes
from headstart.pretraining.recorded.clips import read_clip
from headstart.pretraining.recorded.files import CLIPS, PICTURES, Recorded
from headstart.pretraining.recorded.pictures import read_picture

MEAN, DEVIATION = 0.5, 0.3  # of the intensities, about those of prepared brains
AT_ONCE = 64  # files between two writes to the store
ENDINGS = {"video": CLIPS, "natural-images": PICTURES}

Read = Callable[[int, Recorded], Tensor]  # the number of a file, and the file, to brain voxels (pieces, P)


def write_pool(path: Path, source: str, files: Sequence[Recorded], *, name: str, seed: int, volume: str,
               jobs: int = 1, progress: bool = True) -> Path:
    """Read files into a store; the same call goes on where a killed one stopped. Damaged files are set aside.

    Args:
        source: ``video`` or ``natural-images``.
        files: to be read, in order.
        name: of the data set.
        seed: of the camera that a picture is seen through.
        jobs: threads.

    Raises:
        HeadstartError: not one file could be read.
    """
    spec = volume_spec(volume)
    read = partial(_clip, spec) if source == "video" else partial(_picture, spec, seed)
    with StoreWriter(path, Contract(volume=volume)) as writer, ThreadPoolExecutor(jobs) as threads:
        numbered = list(enumerate(files))
        parts = [numbered[first : first + AT_ONCE] for first in range(0, len(files), AT_ONCE)]
        with progress_bar(f"Reading, {AT_ONCE} files at a time", len(parts), progress) as advance:
            for part in parts:
                todo = [item for item in part if _scan(name, *item).key not in writer]
                for item, found in zip(todo, threads.map(partial(_tried, read), todo)):
                    _write(writer, name, item, found, scenes.window_of(spec))
                advance()
        if not len(writer):
            raise HeadstartError(f"none of the {len(files)} files could be read ({_tried(read, numbered[0])})",
                                 path=files[0].path.parent, fix="Give a folder of files that open elsewhere.")
    return path


def _tried(read: Read, item: tuple[int, Recorded]) -> Tensor | HeadstartError:
    try:
        return _levelled(read(*item))
    except HeadstartError as error:
        return error


def _write(writer: StoreWriter, name: str, item: tuple[int, Recorded], found: Tensor | HeadstartError,
           window: scenes.Window) -> None:
    """The first piece goes last: where it stands, the others do."""
    if isinstance(found, HeadstartError):
        return writer.fail(_scan(name, *item), str(found))
    scans = [_scan(name, *item, piece) for piece in range(len(found))]
    writer.append_many(scans[::-1], scenes.rows(found, window)[::-1])


def _clip(spec: VolumeSpec, number: int, file: Recorded) -> Tensor:
    return torch.from_numpy(read_clip(file.path, spec)[:, template(spec.name).brain])


def _picture(spec: VolumeSpec, seed: int, number: int, file: Recorded) -> Tensor:
    rng = np.random.Generator(np.random.Philox(key=int(sample_seeds(seed, 0, [number])[0])))
    return read_picture(file.path, spec, rng)[None]


def _levelled(values: Tensor) -> Tensor:
    """Brain voxels (pieces, P) with the mean and deviation of brains."""
    deviation = values.std(1, keepdim=True).clamp(min=1e-3)
    level = (values - values.mean(1, keepdim=True)) / deviation * DEVIATION + MEAN
    return level.clamp(scenes.LOWEST, scenes.HIGHEST)


def _scan(name: str, number: int, file: Recorded, piece: int = 0) -> Scan:
    who = f"sub-{number + 1:06d}"
    return Scan(name, who, f"ses-{piece + 1}", file.path, name, subject=f"{name}/{who}",
                columns={"class": file.label} if file.label else {})
