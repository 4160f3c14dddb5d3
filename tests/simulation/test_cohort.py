"""Cohorts on disk: valid BIDS, whole after a kill, the same bytes every time, and nothing of others overwritten."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from headstart.brains.bids import read_bids
from headstart.brains.nifti import read_nifti
from headstart.brains.store import Store
from headstart.cli import app
from headstart.errors import HeadstartError
from headstart.simulation.base import VOLUMES
from headstart.simulation.cohort import Design, scan_person, write_cohort, write_store
from headstart.simulation.scanner import draw_scanner

QUICK = {"volume": "4mm", "progress": False}


@pytest.fixture(scope="module")
def data_set(tmp_path_factory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("cohort") / "demo", cohort="ad", n=8, seed=3, **QUICK)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != ".lock"}


def test_it_reads_as_bids(data_set):
    cohort = read_bids([data_set])
    assert len(cohort) == 8
    assert not cohort.notes
    assert [scan.columns["diagnosis"] for scan in cohort] == ["CN", "CN", "AD", "AD"] * 2
    assert {scan.site for scan in cohort} == {"sim-a", "sim-b"}
    assert all(55 <= scan.age_years <= 90 and scan.sex in ("F", "M") for scan in cohort)
    assert all(float(scan.columns[f"{name}_ml"]) > 0 for scan in cohort for name in VOLUMES)


def test_it_says_that_it_is_simulated(data_set):
    description = json.loads((data_set / "dataset_description.json").read_text())
    assert description["GeneratedBy"][0]["Name"] == "headstart simulate"
    assert description["DatasetType"] == "raw"
    assert description["BIDSVersion"]
    columns = json.loads((data_set / "participants.json").read_text())
    header = (data_set / "participants.tsv").read_text().splitlines()[0].split("\t")
    assert set(header) == {"participant_id", *columns}


def test_images_have_the_size_of_the_head(data_set):
    """Voxels counted in the file's own space make the brain that the table names, whatever the head's size."""
    for scan in read_bids([data_set]):
        image = read_nifti(scan.path)
        assert image.data.dtype == np.int16
        brain_and_fluid = float(scan.columns["brain_ml"]) + float(scan.columns["csf_ml"])
        native = np.count_nonzero(image.data) * abs(np.linalg.det(image.affine[:3, :3])) / 1000
        assert native == pytest.approx(brain_and_fluid, rel=0.25)
        scale = np.cbrt(float(scan.columns["brain_ml"]) / float(scan.columns["brain_rel"]))
        assert np.linalg.norm(image.affine[:3, :3], axis=0) == pytest.approx([4 * scale] * 3, rel=1e-4)


def test_the_same_command_makes_the_same_bytes(data_set, tmp_path):
    again = write_cohort(tmp_path / "demo", cohort="ad", n=8, seed=3, **QUICK)
    assert contents(again) == contents(data_set)


def test_an_interrupted_write_goes_on(data_set, tmp_path):
    out = write_cohort(tmp_path / "demo", cohort="ad", n=5, seed=3, **QUICK)
    (out / "participants.tsv").unlink()
    kept = out / "sub-00001/anat/sub-00001_T1w.nii.gz"
    damaged = out / "sub-00003/anat/sub-00003_T1w.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:500])
    (out / "sub-00004/anat/sub-00004_T1w.json").unlink()
    before = kept.stat().st_mtime_ns
    write_cohort(out, cohort="ad", n=8, seed=3, **QUICK)
    assert contents(out) == contents(data_set)
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize("change", [{"seed": 4}, {"cohort": "pd"}, {"n": 4}, {"difficulty": "easy"}])
def test_another_simulation_is_not_overwritten(data_set, change):
    before = contents(data_set)
    with pytest.raises(HeadstartError, match="Give another folder"):
        write_cohort(data_set, **{"cohort": "ad", "n": 8, "seed": 3, **QUICK, **change})
    assert contents(data_set) == before


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(HeadstartError, match="not simulated here"):
        write_cohort(tmp_path, n=2, **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.docx"]


@pytest.mark.parametrize("bad", [{"cohort": "als"}, {"sites": 0}, {"sites": 27}, {"seed": -1}, {"volume": "5mm"},
                                 {"generator": "gan"}, {"generator": "labelmaps"}, {"difficulty": "nightmare"},
                                 {"ages": (10, 20)}, {"ages": (70, 60)}, {"n": 0}])
def test_bad_parameters_are_refused_before_anything_is_written(tmp_path, bad):
    for write in (write_cohort, write_store):
        with pytest.raises(HeadstartError) as refusal:
            write(tmp_path / "out", **{"n": 4, **QUICK, **bad})
        assert refusal.value.fix
        assert not (tmp_path / "out").exists()


def test_sites_differ_in_scanner_and_not_in_people():
    one, three = Design(seed=1, sites=1), Design(seed=1, sites=3)
    assert one.scanner(one.person(0)) == three.scanner(three.person(0)) != three.scanner(three.person(1))
    assert one.person(5).age == three.person(5).age


def test_a_store_holds_the_same_people(tmp_path):
    design = Design(cohort="pd", seed=2, volume="4mm")
    store = Store.open(write_store(tmp_path, n=4, cohort="pd", seed=2, **QUICK))
    store.verify()
    assert all(stored.scan.simulated for stored in store.scans)
    for index, stored in enumerate(store.scans):
        row = scan_person(design, design.make_generator(), index)[1]
        assert float(stored.scan.columns["grey_rel"]) == pytest.approx(row["grey_rel"], abs=1e-3)
        assert stored.scan.columns["diagnosis"] == row["diagnosis"]
    inside = store.volumes([0])[0, 0]
    assert 0.8 < float(inside[inside != 0].quantile(0.8)) < 1.2  # white matter near 1


def test_a_killed_store_ends_in_the_same_bytes(tmp_path):
    killed = tmp_path / "killed"
    work = multiprocessing.get_context("spawn").Process(
        target=write_store, args=(killed,), kwargs={"n": 70, "seed": 9, **QUICK})
    work.start()
    journal = killed / "journal.jsonl"
    until = time.monotonic() + 120
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(work.pid, signal.SIGKILL)
    work.join()
    assert not (killed / "index.jsonl").exists(), "it was killed too late to prove anything"
    write_store(killed, n=70, seed=9, **QUICK)
    write_store(tmp_path / "whole", n=70, seed=9, **QUICK)
    assert (killed / "voxels.f16").read_bytes() == (tmp_path / "whole/voxels.f16").read_bytes()
    assert (killed / "index.jsonl").read_bytes() == (tmp_path / "whole/index.jsonl").read_bytes()


def test_a_store_of_other_scans_is_refused(tmp_path):
    write_store(tmp_path, n=2, seed=1, **QUICK)
    with pytest.raises(HeadstartError, match="another simulation"):
        write_store(tmp_path, n=4, seed=2, **QUICK)
    (tmp_path / "simulation.json").unlink()  # as an older version left it
    with pytest.raises(HeadstartError, match="other scans"):
        write_store(tmp_path, n=4, seed=2, **QUICK)


def test_a_store_is_only_gone_on_with_by_the_simulation_that_began_it(tmp_path, monkeypatch):
    store, design = tmp_path / "store", {"cohort": "ad", "seed": 1, **QUICK}
    write_store(store, n=2, **design)
    before = contents(store)
    for change in ({"sites": 3}, {"difficulty": "easy"}, {"ages": (60, 70)}):
        with pytest.raises(HeadstartError, match=r"another simulation.*Give another folder"):
            write_store(store, n=4, **{**design, **change})
    with monkeypatch.context() as newer:
        newer.setattr("headstart.simulation.cohort.DRAWN_VERSION", 99)
        with pytest.raises(HeadstartError, match="another simulation"):
            write_store(store, n=4, **design)
    assert contents(store) == before
    with pytest.raises(HeadstartError, match="holds 2 people already, more than 1"):
        write_store(store, n=1, **design)
    (store / "simulation.json").unlink()  # begun by an older version
    assert len(Store.open(write_store(store, n=3, **design))) == 3


def test_a_store_is_not_written_into_a_data_set(data_set):
    before = contents(data_set)
    with pytest.raises(HeadstartError, match="holds a BIDS data set"):
        write_store(data_set, n=8, cohort="ad", seed=3, **QUICK)
    assert contents(data_set) == before


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("a")
    for write in (write_cohort, write_store):
        with pytest.raises(HeadstartError, match="is a file"):
            write(tmp_path / "file", n=2, **QUICK)


def test_simulating_leaves_the_threads_as_they_were(tmp_path):
    torch.set_num_threads(2)
    try:
        write_store(tmp_path / "store", n=1, **QUICK)
        write_cohort(tmp_path / "bids", n=1, **QUICK)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_sites_can_differ_in_whom_they_scan() -> None:
    people = [Design(sites=4, site_mix=1.0, seed=3).person(index) for index in range(1600)]
    ages = {site: [p.age for p in people if p.site == site] for site in ("sim-a", "sim-b", "sim-c", "sim-d")}
    men = [np.mean([p.sex == "M" for p in people if p.site == site]) for site in ages]
    assert all(30 < max(found) - min(found) <= 36 for found in ages.values())  # half of 18 to 90
    assert np.std([np.mean(found) for found in ages.values()]) > 4
    assert max(men) - min(men) > 0.2
    alike = [Design(sites=4, seed=3).person(index) for index in range(1600)]
    assert np.std([np.mean([p.age for p in alike if p.site == site]) for site in ages]) < 3


def test_the_dial_of_the_scanners() -> None:
    def greys(strength: float) -> tuple[list[float], list[float]]:
        drawn = [[draw_scanner(np.random.default_rng(i), purpose=purpose, strength=strength) for i in range(200)]
                 for purpose in ("upstream", "cohort")]
        assert all(min(s.noise, s.bias, s.texture, s.rim, *s.blur_mm) >= 0 for found in drawn for s in found)
        return [round(s.grey, 6) for s in drawn[0]], [round(s.grey, 6) for s in drawn[1]]

    assert [len(set(found)) for found in greys(0.0)] == [2, 1]
    upstream, cohort = greys(2.0)
    assert not any(min(cohort) <= grey <= max(cohort) for grey in upstream)  # no scanner of a cohort was ever seen
    assert np.std([draw_scanner(np.random.default_rng(i), strength=2.0).noise for i in range(200)]) > np.std(
        [draw_scanner(np.random.default_rng(i)).noise for i in range(200)])


@pytest.mark.parametrize(("arguments", "words"), [
    (["--recipe", "r.yaml"], "--fit"), (["--jobs", "0"], "--jobs"), (["--jobs", "-3"], "--jobs"), ([], "one output")])
def test_options_that_would_be_ignored_or_mean_nothing_are_refused(tmp_path: Path, arguments: list[str],
                                                                   words: str) -> None:
    out = [str(tmp_path / "out")] if arguments else []
    done = CliRunner().invoke(app, ["simulate", *out, "--n", "2", *arguments])
    assert done.exit_code == 2
    assert words in done.output
    assert not (tmp_path / "out").exists()


def test_people_of_another_version_of_the_simulator_are_not_mixed_in(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cohort(tmp_path, n=1, volume="4mm", progress=False)
    monkeypatch.setattr("headstart.simulation.cohort.DRAWN_VERSION", 99)
    with pytest.raises(HeadstartError, match=r"holds another simulation.*by version"):
        write_cohort(tmp_path, n=2, volume="4mm", progress=False)


def test_a_dial_that_is_moved_makes_another_simulation(tmp_path: Path) -> None:
    assert Design(strength=1.0, site_mix=0.0).describe() == Design().describe()
    write_store(tmp_path, n=2, volume="4mm", progress=False)
    for dial in ("strength", "site_mix"):
        with pytest.raises(HeadstartError, match="holds another simulation"):
            write_store(tmp_path, n=3, volume="4mm", progress=False, **{dial: 0.5})
        with pytest.raises(HeadstartError, match="is not between 0 and"):
            Design(**{dial: 2.5})
