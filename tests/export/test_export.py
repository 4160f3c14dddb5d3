"""What is handed on says what the model says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from headstart.backbones import build_model
from headstart.brains.scan import prepare_scan
from headstart.calibration.uncertainty import Calibration
from headstart.errors import HeadstartError
from headstart.export import export_model
from headstart.modelfolder import ModelConfig, load_model, save_model
from headstart.prediction import open_model, predict_scan
from headstart.prediction.predictor import as_stored
from headstart.tasks import DECLARED

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_model import QUICK, write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "age", DECLARED["brain-age"], 1)


def test_onnx_answers_as_the_model_does_on_a_real_scan(real_data: Path, tmp_path: Path) -> None:
    import onnxruntime

    network = build_model("vit-mini", QUICK.spec, 2)
    config = ModelConfig(backbone="vit-mini", num_outputs=2, task=DECLARED["sex"], contract=QUICK,
                         calibration=Calibration(temperature=1.7))
    folder = save_model(tmp_path / "model", network, config, "# card")
    path = export_model(folder, "onnx", tmp_path / "sex.onnx")
    scan = sorted((real_data / "ixi10").rglob("*_T1w.nii.gz"))[0]
    model = open_model(folder)
    expected = predict_scan(model, scan).probabilities
    volume = as_stored(prepare_scan(scan, QUICK).volume, model).numpy()
    session = onnxruntime.InferenceSession(str(path))
    for count in (1, 3):
        (found,) = session.run(None, {"volumes": np.repeat(volume, count, 0)})
        assert found.shape == (count, 2)
        assert found[-1] == pytest.approx(list(expected.values()), abs=1e-4)
    about = json.loads(session.get_modelmeta().custom_metadata_map["headstart"])
    assert about["contract"] == QUICK.model_dump()
    assert about["task"]["classes"] == ["F", "M"]


def test_one_file_holds_weights_and_config(folder: Path, tmp_path: Path) -> None:
    path = export_model(folder, "safetensors", tmp_path / "age.safetensors")
    network, config = load_model(folder)
    with safe_open(path, "pt") as file:
        assert ModelConfig.model_validate_json(file.metadata()["headstart"]) == config
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in network.state_dict().items())


def test_a_hub_folder_is_a_model_folder(folder: Path, tmp_path: Path) -> None:
    out = export_model(folder, "hub-folder", tmp_path / "hub")
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "config.json", "README.md", ".gitattributes"}
    assert open_model(out).task.name == "brain-age"


def test_nothing_is_overwritten_and_unknown_formats_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(HeadstartError, match="exists already"):
        export_model(folder, "safetensors", tmp_path / "mine")
    with pytest.raises(HeadstartError, match=r"'pickle'.*onnx, safetensors, hub-folder"):
        export_model(folder, "pickle", tmp_path / "x")
