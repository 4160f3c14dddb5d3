"""The stores that pre-training reads: given, or made once and found again in the cache."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from headstart.brains.cohort import Scan
from headstart.brains.store import Store
from headstart.brains.store_format import CONTRACT, FAILED, INDEX
from headstart.brains.tables import read_table
from headstart.errors import BusyError, HeadstartError
from headstart.files import cache_dir, digest_json
from headstart.pretraining.config import PROCEDURAL, PretrainConfig
from headstart.pretraining.pool import NO_LABELS
from headstart.pretraining.procedural import write_pool
from headstart.pretraining.recorded.files import CLIPS, LAYOUT, PICTURES, find_files, say, some_of
from headstart.pretraining.recorded.pool import ENDINGS
from headstart.pretraining.recorded.pool import write_pool as write_recorded
from headstart.simulation.base import DRAWN_VERSION
from headstart.simulation.cohort import write_store
from headstart.simulation.labelmaps import LabelMapGenerator

PROBE_SEED = 404  # no upstream shares a random stream with a cohort, whatever its seed


def is_first() -> bool:
    """Whether this is the only process of the run, or the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def pool_of(config: PretrainConfig, *, jobs: int) -> Path:
    """The store to train on: the one given, or one in the cache, made or completed if need be."""
    if config.data is not None:
        return _recorded(config, config.data, jobs) if config.source in ENDINGS else config.data
    if config.source == "synthetic-mri":
        return _simulated(config.pool, jobs, purpose="upstream", cohort="ageing", seed=config.seed,
                          generator=config.generator, labelmaps=config.labelmaps, volume=config.volume)
    kind = PROCEDURAL[config.source]
    return _made([kind, config.seed, config.volume, config.pool], lambda path: write_pool(
        path, kind, n=config.pool, seed=config.seed, volume=config.volume))


def check_pool(config: PretrainConfig, store: Store) -> None:
    """HeadstartError where a given store is of another grid than asked for, or of clips where brains were."""
    if store.spec.name != config.volume:
        raise HeadstartError(f"is a store at {store.spec.name}, and --volume is {config.volume}", path=store.path,
                             fix=f"Give --volume {store.spec.name}, or another store.")
    brains = config.source not in PROCEDURAL
    if brains and any(_is_recorded(stored.scan) for stored in store.scans):
        raise HeadstartError(f"holds clips or pictures, and the source is {config.source}", path=store.path,
                             fix="Use --source video or natural-images with the files themselves.")


def _is_recorded(scan: Scan) -> bool:
    return scan.dataset.startswith("procedural-") or scan.path.suffix.lower() in (*CLIPS, *PICTURES)


def _recorded(config: PretrainConfig, data: Path, jobs: int) -> Path:
    """The store of the clips or pictures in a folder, or of as many of them as the pool may hold."""
    if (data / CONTRACT).exists():
        raise HeadstartError(f"is a store of prepared brains, and the source is {config.source}", path=data,
                             fix="Use --source real-mri or synthetic-mri, or give a folder of files.")
    found = find_files(data, ENDINGS[config.source])
    if config.objective == "supervised" and not any(file.label for file in found):
        raise HeadstartError("says of no file which class it is", path=data, fix=f"{LAYOUT} {NO_LABELS}")
    files = some_of(found, config.pool, config.seed)
    if len(files) < len(found) and is_first():
        say(f"{len(files):,} of the {len(found):,} files in {data} are read (--pool)")
    states = [[str(file.path), file.label, file.path.stat().st_size, file.path.stat().st_mtime_ns] for file in files]
    store = _made([config.source, config.seed, config.volume, states], lambda path: write_recorded(
        path, config.source, files, name=data.stem, seed=config.seed, volume=config.volume, jobs=jobs))
    _tell_of_damaged(store, len(files))
    return store


def _tell_of_damaged(store: Path, count: int) -> None:
    """Files that could not be read are left out, at the first run and at every later one."""
    failed = read_table(store / FAILED).rows if (store / FAILED).is_file() else []
    if failed and is_first():
        say(f"{len(failed)} of {count} files could not be read and are left out ({store / FAILED}); the first: "
            f"{failed[0]['reason']}")


def probe_store(count: int, volume: str, *, jobs: int) -> Path:
    """Simulated brains that no upstream sees: other people, other scanners."""
    return _simulated(count, jobs, purpose="cohort", cohort="ageing", seed=PROBE_SEED, sites=4, volume=volume)


def _simulated(count: int, jobs: int, **design: Any) -> Path:
    known = design
    if design.get("generator") == "labelmaps" and design["labelmaps"]:  # by content: maps may be moved, or replaced
        known = {**design, "labelmaps": LabelMapGenerator(design["labelmaps"]).digest()}
    return _made([DRAWN_VERSION, known, count], lambda path: write_store(path, n=count, jobs=jobs, **design))


def _made(what: list, make: Callable[[Path], Path]) -> Path:
    """The store of ``what`` in the cache. One process makes it, the others wait until it is whole or its maker gone."""
    path = cache_dir() / "pools" / digest_json(what)
    while not (path / INDEX).exists():
        with suppress(BusyError):
            if is_first():
                make(path)
        time.sleep(0.2)
    return path
