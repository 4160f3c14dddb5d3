"""Settings of a pre-training: every shipped file loads, options go before it, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.errors import HeadstartError
from headstart.pretraining.config import read_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
STARTS = [f"pretrain-{source}-{backbone}.yaml" for backbone in ("cnn-small", "vit-mini")
          for source in ("synthetic-mri", "control", "procedural-video", "procedural-images")]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("pretrain-*.yaml")), ids=lambda path: path.stem)
def test_every_file_loads(path: Path) -> None:
    config = read_config(path, {})
    assert path.stem.endswith(config.backbone)


def test_shipped_starts_have_equal_budgets() -> None:
    """What is compared: other images, the same samples, steps and optimiser."""
    for backbone in ("cnn-small", "vit-mini"):
        configs = [read_config(CONFIGS / name, {}) for name in STARTS if backbone in name]
        spent = {str(config.model_dump(exclude={"source", "generator", "shuffle_labels"})) for config in configs}
        assert len(configs) == 4
        assert len(spent) == 1


def test_options_go_before_the_file() -> None:
    config = read_config(CONFIGS / STARTS[0], {"pool": 50, "learning_rate": None})
    assert config.pool == 50
    assert config.learning_rate == 0.002


@pytest.mark.parametrize(("text", "message"), [
    ("backbone: cnn-small\nrate: 3", r"'rate': extra inputs"),
    ("source: video", r"'backbone': field required"),
    ("backbone: cnn-small\nsource: books", r"'source'.*synthetic-mri"),
    ("backbone: cnn-small\nbatch_size: 0", r"'batch_size'"),
    ("backbone: [", "cannot be read as YAML"),
    ("just words", "holds no settings"),
])
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(HeadstartError, match=message):
        read_config(path, {})


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match="cannot be read"):
        read_config(tmp_path / "absent.yaml", {})
