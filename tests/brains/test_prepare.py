"""Preparation: of single scans against what is known of them, and of cohorts that are stopped and broken."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from headstart.brains.cohort import Cohort, Scan
from headstart.brains.contract import Contract
from headstart.brains.extraction import brain_mask
from headstart.brains.intensity import scale_robust, tissue_fractions
from headstart.brains.nifti import write_nifti
from headstart.brains.prepare import prepare, prepare_scan
from headstart.brains.store import Store
from headstart.brains.volumes import template
from headstart.brains.workers import WorkerDied, run_each
from headstart.errors import HeadstartError

QUICK = Contract(bias_correction="none")


def write_brain(path: Path, seed: int = 0, offset: float = 0.0, noise: float = 10.0) -> Path:
    """The template's brain, 12 % smaller, shifted and noisy, on a background that is constant."""
    target, rng = template("4mm"), np.random.default_rng(seed)
    data = np.where(target.brain, 500 * target.t1 + rng.normal(0, noise, target.t1.shape), 0) + offset
    affine = target.spec.affine.copy()
    affine[:3, :3] *= 0.88
    affine[:3, 3] += rng.uniform(-5, 5, 3)
    write_nifti(path, data.astype(np.float32), affine)
    return path


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Three small brains and a file that is no scan."""
    folder = tmp_path_factory.mktemp("brains")
    paths = [write_brain(folder / f"sub-{i}_T1w.nii.gz", i) for i in range(3)]
    paths.insert(1, folder / "broken.nii.gz")
    paths[1].write_text("this is no scan")
    return Cohort(tuple(Scan("toy", f"sub-{i}", "", path, "A") for i, path in enumerate(paths)))


@pytest.fixture(scope="module")
def whole(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run that nothing disturbed."""
    path = tmp_path_factory.mktemp("whole") / "store"
    prepare(cohort, path, QUICK, jobs=2, progress=False)
    return path


def test_a_known_brain_comes_back(tmp_path: Path) -> None:
    prepared = prepare_scan(write_brain(tmp_path / "brain.nii.gz"), QUICK)
    target, facts = template("4mm"), prepared.facts
    assert facts.already_extracted
    assert facts.overlap > 0.95
    assert facts.correlation > 0.9
    assert facts.linear_scale == pytest.approx(1 / 0.88, rel=0.02)
    assert facts.brain_volume_ml == pytest.approx(target.brain.sum() * (4 * 0.88) ** 3 / 1000, rel=0.001)
    assert prepared.volume.shape == target.spec.shape
    again = prepare_scan(tmp_path / "brain.nii.gz", QUICK)
    assert np.array_equal(prepared.volume, again.volume)
    assert again.facts == facts


def test_a_scan_unlike_the_template_is_noted(tmp_path: Path) -> None:
    facts = prepare_scan(write_brain(tmp_path / "brain.nii.gz", noise=400.0), QUICK).facts
    note, = facts.notes
    assert note == f"correlates with the template by only {facts.correlation:.2f}: it may lie wrongly"
    assert prepare_scan(write_brain(tmp_path / "clear.nii.gz"), QUICK).facts.notes == ()


def test_scale_and_offset_of_the_scanner_do_not_matter() -> None:
    target = template("4mm")
    scaled = scale_robust(target.t1, target.brain, target.grey, target.white)
    other = scale_robust(300 * target.t1 + 80, target.brain, target.grey, target.white)
    assert np.allclose(scaled, other, atol=1e-4)
    assert np.all(scaled[~target.brain] == 0)
    assert np.median(scaled[target.white > 0.9]) == pytest.approx(1, abs=1e-5)


def test_an_inverted_contrast_is_refused() -> None:
    target = template("4mm")
    with pytest.raises(HeadstartError, match="not brighter"):
        scale_robust(-target.t1, target.brain, target.grey, target.white)


def test_tissue_fractions_of_a_known_mixture() -> None:
    rng, n = np.random.default_rng(0), 60_000
    true = np.array([0.2, 0.45, 0.35])
    values = np.concatenate([rng.normal(mean, 40, int(n * share)) for mean, share in zip((200, 500, 800), true)])
    assert tissue_fractions(values) == pytest.approx(true, abs=0.01)
    assert tissue_fractions(values * 7 + 3) == pytest.approx(true, abs=0.01)


@pytest.mark.parametrize("background", [0.0, -1024.0])
def test_a_constant_background_round_a_brain_is_recognised(background: float) -> None:
    target = template("3mm")
    data = np.where(target.brain, 500 * target.t1, background)
    mask, already = brain_mask(data, 0.027)
    assert already
    assert np.array_equal(mask, target.brain)


@pytest.mark.parametrize(("scan", "extracted"), [
    ("ds002748/sub-01/anat/sub-01_T1w.nii.gz", True), ("ixi10/sub-IXI012/anat/sub-IXI012_T1w.nii.gz", True),
    ("ds000011/sub-01/anat/sub-01_T1w.nii.gz", False)])
def test_real_scans(real_data: Path, scan: str, extracted: bool) -> None:
    facts = prepare_scan(real_data / scan, Contract()).facts
    assert facts.already_extracted is extracted
    assert facts.overlap > 0.93
    assert facts.correlation > 0.5
    assert 1000 < facts.brain_volume_ml < 1900


def test_failures_are_set_aside_and_the_others_go_on(cohort: Cohort, whole: Path) -> None:
    store = Store.open(whole)
    store.verify()
    assert [stored.scan.participant_id for stored in store.scans] == ["sub-0", "sub-2", "sub-3"]
    assert "toy\tsub-1\t" in (whole / "failed.tsv").read_text()
    summary = prepare(cohort, whole, QUICK, jobs=1, progress=False)
    assert (summary.prepared, summary.skipped, list(summary.failed)) == (0, 3, ["toy/sub-1"])


PREPARE = """
import pickle, sys
from headstart.brains.contract import Contract
from headstart.brains.prepare import prepare
cohort, path = pickle.loads(bytes.fromhex(sys.argv[1])), sys.argv[2]
print(prepare(cohort, path, Contract(bias_correction="none"), jobs=2, progress=False))
"""


def command(cohort: Cohort, path: Path) -> list[str]:
    import pickle

    return [sys.executable, "-c", PREPARE, pickle.dumps(cohort).hex(), str(path)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_stop_is_clean_and_says_how_to_go_on(cohort: Cohort, tmp_path: Path, number: int) -> None:
    with subprocess.Popen(command(cohort, tmp_path), stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "journal.jsonl").exists():
            time.sleep(0.02)
        process.send_signal(number)
        message = process.communicate(timeout=30)[1]
    assert f"stopped by {signal.Signals(number).name}" in message
    assert "run the same command again" in message


def test_a_worker_that_dies_takes_only_its_item_along() -> None:
    suicide = "__import__('os').kill(__import__('os').getpid(), 9)"
    answers = dict(run_each(eval, ["1 + 1", suicide, "2 + 2", "1 / 0", "3 + 3"], 2))
    assert isinstance(answers.pop(suicide), WorkerDied)
    assert isinstance(answers.pop("1 / 0"), ZeroDivisionError)
    assert answers == {"1 + 1": 2, "2 + 2": 4, "3 + 3": 6}


NO_PERMISSION = """
import os, sys
from headstart.brains.contract import Contract
from headstart.brains.store import StoreWriter
from headstart.errors import HeadstartError
writer = StoreWriter(sys.argv[1], Contract())
if os.getuid() == 0:  # root ignores permissions
    os.setuid(65534)
try:
    writer.__enter__()
except HeadstartError as error:
    print(error)
"""


def test_no_write_permission(tmp_path: Path) -> None:
    (locked := tmp_path / "locked").mkdir(mode=0o555)
    done = subprocess.run([sys.executable, "-c", NO_PERMISSION, str(locked / "store")], capture_output=True, text=True,
                          check=True)
    assert "cannot be written (Permission denied). Choose a folder you may write to." in done.stdout
