"""Small finished models for every test of prediction."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from headstart.tasks import DECLARED

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_model import write_model


@pytest.fixture(scope="session")
def age_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "age", DECLARED["brain-age"], 1)


@pytest.fixture(scope="session")
def sex_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "sex", DECLARED["sex"], 2)
