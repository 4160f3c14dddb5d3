"""Seconds a scan that preparation takes, by step, on the shared real scans."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from benchmarks.common import Row
from headstart.brains.contract import Contract
from headstart.brains.prepare import prepare_scan

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SCANS = {
    "whole head, 1.0 x 1.3 x 1.3 mm": "ds000011/sub-0[1-4]/anat/*_T1w.nii.gz",
    "extracted brain, 0.9 mm": "ds002748/sub-0[1-4]/anat/*_T1w.nii.gz",
    "extracted brain, 1.5 mm": "ds002748/sub-1[1-4]/anat/*_T1w.nii.gz",
    "extracted brain, 2 mm": "ixi10/sub-IXI01[2-5]/anat/*_T1w.nii.gz",
}


def run() -> list[Row]:
    """One row a kind of scan: the median total of several scans, and the median of each step."""
    return [_row(name, sorted(DATA.glob(pattern))) for name, pattern in SCANS.items() if any(DATA.glob(pattern))]


def _row(name: str, paths: list[Path]) -> Row:
    prepare_scan(paths[0], Contract())  # loads the template and the extraction network
    timings = [prepare_scan(path, Contract()).seconds for path in paths]
    steps = {step: median(timing[step] for timing in timings) for step in timings[0]}
    note = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in steps.items())
    return Row(f"prepare: {name}", median(sum(timing.values()) for timing in timings), note=note)
