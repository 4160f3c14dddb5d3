"""The stores that pre-training reads: given, or made once and found again in the cache."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from headstart.brains.store_format import CONTRACT, INDEX
from headstart.errors import BusyError, HeadstartError
from headstart.files import cache_dir, digest_json
from headstart.pretraining.config import PROCEDURAL, PretrainConfig
from headstart.pretraining.procedural import write_pool
from headstart.pretraining.recorded.files import find_files, some_of
from headstart.pretraining.recorded.pool import ENDINGS
from headstart.pretraining.recorded.pool import write_pool as write_recorded
from headstart.simulation.base import DRAWN_VERSION
from headstart.simulation.cohort import write_store

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


def _recorded(config: PretrainConfig, data: Path, jobs: int) -> Path:
    """The store of the clips or pictures in a folder, or of as many of them as the pool may hold."""
    if (data / CONTRACT).exists():
        raise HeadstartError(f"is a store of prepared brains, and the source is {config.source}", path=data,
                             fix="Use --source real-mri or synthetic-mri, or give a folder of files.")
    files = some_of(find_files(data, ENDINGS[config.source]), config.pool, config.seed)
    states = [[str(file.path), file.label, file.path.stat().st_size, file.path.stat().st_mtime_ns] for file in files]
    return _made([config.source, config.seed, config.volume, states], lambda path: write_recorded(
        path, config.source, files, name=data.stem, seed=config.seed, volume=config.volume, jobs=jobs))


def probe_store(count: int, volume: str, *, jobs: int) -> Path:
    """Simulated brains that no upstream sees: other people, other scanners."""
    return _simulated(count, jobs, purpose="cohort", cohort="ageing", seed=PROBE_SEED, sites=4, volume=volume)


def _simulated(count: int, jobs: int, **design: Any) -> Path:
    return _made([DRAWN_VERSION, design, count], lambda path: write_store(path, n=count, jobs=jobs, **design))


def _made(what: list, make: Callable[[Path], Path]) -> Path:
    """The store of ``what`` in the cache. One process makes it, the others wait until it is whole or its maker gone."""
    path = cache_dir() / "pools" / digest_json(what)
    while not (path / INDEX).exists():
        with suppress(BusyError):
            if is_first():
                make(path)
        time.sleep(0.2)
    return path
