"""Pools in the cache: made once, whoever asks."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from headstart.brains.store import Store
from headstart.files import digest_json
from headstart.pretraining import data
from headstart.pretraining.data import probe_store
from headstart.simulation.base import DRAWN_VERSION


def ask(_: int) -> Path:
    return probe_store(3, "4mm", jobs=1)


def test_two_processes_that_need_the_same_pool_make_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as processes:
        one, two = processes.map(ask, range(2))
    assert one == two
    assert len(Store.open(one)) == 3


def test_a_simulator_that_draws_otherwise_makes_its_pool_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    before = ask(0)
    assert ask(0) == before
    monkeypatch.setattr("headstart.pretraining.data.DRAWN_VERSION", DRAWN_VERSION + 1)
    assert ask(0) != before


def test_a_pool_of_label_maps_is_known_by_what_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_made", lambda what, make: Path(digest_json(what)))

    def pool(name: str | None, content: bytes = b"") -> Path:
        if name is None:
            return data._simulated(3, 1, generator="anatomy", labelmaps=None, seed=0)
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.nii").write_bytes(content)
        return data._simulated(3, 1, generator="labelmaps", labelmaps=tmp_path / name, seed=0)

    assert pool("a", b"map") == pool("moved", b"map") != pool("other", b"another map")
    unmapped = [DRAWN_VERSION, {"generator": "anatomy", "labelmaps": None, "seed": 0}, 3]
    assert pool(None) == Path(digest_json(unmapped)), "pools that are in caches already are found again"
