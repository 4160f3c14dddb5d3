from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from pretend import plan, write_pretend, write_saliency

from headstart.benchmark_report.page import write

REPLICATES = 200


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a benchmark of three tasks, with two failed cells and a start that has seen the test."""
    made = plan(sizes=(25, "full"))
    folder = write_pretend(tmp_path_factory.mktemp("pretend"), made, failed=2, overlap="procedural-images")
    write_saliency(folder, made)
    return write(folder, REPLICATES)
