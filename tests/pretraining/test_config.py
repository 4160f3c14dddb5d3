"""Settings of a pre-training: every shipped file loads, options go before it, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.benchmark.config import load_config
from headstart.errors import HeadstartError
from headstart.pretraining.config import read_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
STARTS = [f"pretrain-{source}-{backbone}.yaml" for backbone in ("cnn-small", "vit-mini")
          for source in ("synthetic-mri", "control", "procedural-video", "procedural-images")]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("pretrain-*.yaml")), ids=lambda path: path.stem)
def test_every_file_loads(path: Path) -> None:
    config = read_config(path, {})
    assert path.stem.endswith(config.backbone)


@pytest.mark.parametrize(("one", "other", "backbone"), [
    ("synthetic-mri", "control", "cnn-small"),
    ("synthetic-mri", "procedural-video", "cnn-small"),
    ("synthetic-mri", "procedural-images", "cnn-small"),
    ("synthetic-mri", "control", "vit-mini"),
    ("synthetic-mri", "procedural-video", "vit-mini"),
    ("synthetic-mri", "procedural-images", "vit-mini"),
])
def test_what_is_compared_has_the_same_samples_steps_and_optimiser(one: str, other: str, backbone: str) -> None:
    spent = [read_config(CONFIGS / f"pretrain-{name}-{backbone}.yaml", {}).model_dump(
        exclude={"source", "generator", "shuffle_labels"}) for name in (one, other)]
    assert spent[0] == spent[1]


@pytest.mark.parametrize(("name", "cohorts"), [("simulated-curves", [301, 302, 303]), ("standard", [201, 202, 203])])
def test_the_proof_compares_every_shipped_start_with_scratch(name: str, cohorts: list[int]) -> None:
    """In both networks, each proof on cohorts of its own."""
    config = load_config(CONFIGS / f"{name}.yaml")
    starts = {"scratch", "synthetic-mri", "procedural-video", "procedural-images", "control"}
    assert {(row.backbone, row.upstream) for row in config.rows} == {
        (backbone, start) for backbone in ("cnn-small", "vit-mini") for start in starts}
    assert [task.simulate.seed for task in config.tasks if task.simulate] == cohorts
    assert config.seeds == 5


def test_options_go_before_the_file() -> None:
    config = read_config(CONFIGS / STARTS[0], {"pool": 50, "learning_rate": None})
    assert config.pool == 50
    assert config.learning_rate == read_config(CONFIGS / STARTS[0], {}).learning_rate


@pytest.mark.parametrize(("text", "message"), [
    ("backbone: cnn-small\nrate: 3", r"'rate': extra inputs"),
    ("source: video", r"'backbone': field required"),
    ("backbone: cnn-small\nsource: books", r"'source'.*synthetic-mri"),
    ("backbone: cnn-small\nbatch_size: 0", r"'batch_size'"),
    ("backbone: cnn-small\nprobe: 2", r"a probe of 2 brains reads nothing.*--probe 20"),
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
