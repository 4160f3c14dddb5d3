"""A model as an ONNX graph, compared with torch before it is kept."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from headstart.backbones.model import BrainModel
from headstart.brains.volumes import template
from headstart.errors import HeadstartError
from headstart.files import atomic_write
from headstart.modelfolder import ModelConfig

INPUT, OUTPUT = "volumes", "prediction"
TOLERANCE = 1e-3  # of the largest output


class Answering(nn.Module):
    """The network up to its answer: numbers in the target's unit, or calibrated probabilities."""

    def __init__(self, model: BrainModel, config: ModelConfig) -> None:
        super().__init__()
        self.model = model
        self.classes = config.task is not None and config.task.kind == "classification"
        self.temperature = (config.calibration and config.calibration.temperature) or 1.0

    def forward(self, volumes: Tensor) -> Tensor:
        """(n, 1, X, Y, Z) to (n, num_outputs)."""
        outputs = self.model(volumes)
        return (outputs / self.temperature).softmax(1) if self.classes else outputs


def write_onnx(model: BrainModel, config: ModelConfig, out: Path) -> Path:
    """Write the graph, with contract and task in its metadata.

    It takes any number of scans at once; of a network that torch can only export for a fixed number, one.

    Raises:
        HeadstartError: a package is missing, torch cannot export this network, or the graph disagrees with torch.
    """
    content, network = b"", Answering(model, config).eval()
    for count in (2, 1):
        content = _graph(network, _sample(config, count), config)
        if count == 1 or _any_number(content):
            break
    with atomic_write(out, "wb") as file:
        file.write(_checked(content, model, config))
    return out


def _any_number(content: bytes) -> bool:
    """Whether the graph's first input dimension is a name, not a number."""
    import onnx

    (volumes,) = onnx.load_model_from_string(content).graph.input
    return bool(volumes.type.tensor_type.shape.dim[0].dim_param)


def _graph(network: nn.Module, sample: Tensor, config: ModelConfig) -> bytes:
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise HeadstartError(f"ONNX needs the package '{error.name}'",
                             fix="Run `pip install headstart[export]`.") from error
    try:
        with _quiet():
            program = torch.onnx.export(
                network, (sample,), dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False,
                dynamic_shapes={"volumes": {0: torch.export.Dim("scans", min=1)}} if len(sample) > 1 else None)
            assert program is not None
            proto = program.model_proto
    except Exception as error:  # torch raises many kinds, and each of them means this
        raise HeadstartError(f"cannot be written as ONNX ({str(error).splitlines()[0]})",
                             fix="Export to safetensors instead.") from error
    described = {"contract": config.contract.model_dump(), "task": config.model_dump(mode="json")["task"],
                 "licence": config.licence, "use": "research only; not a medical device"}
    onnx.helper.set_model_props(proto, {"headstart": json.dumps(described, sort_keys=True)})
    return proto.SerializeToString()


@contextlib.contextmanager
def _quiet():
    """The exporter talks of its own progress."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _checked(content: bytes, model: BrainModel, config: ModelConfig) -> bytes:
    """``content``, if onnxruntime says with it what torch says."""
    try:
        import onnxruntime
    except ImportError as error:
        raise HeadstartError("the graph cannot be checked without onnxruntime",
                             fix="Run `pip install headstart[export]`.") from error
    sample = _sample(config, 3 if _any_number(content) else 1)
    with torch.inference_mode():
        expected = Answering(model, config).eval()(sample).numpy()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run([OUTPUT], {INPUT: sample.numpy()})
    off = float(np.abs(found - expected).max())
    if not off <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise HeadstartError(f"the graph's answers differ from torch's by {off:.2g}", fix="Export to safetensors.")
    return content


def _sample(config: ModelConfig, count: int) -> Tensor:
    """Brains on the grid, each with other noise: (count, 1, X, Y, Z)."""
    target = template(config.contract.volume)
    noise = np.random.default_rng(0).normal(0, 0.1, (count, *config.contract.spec.shape))
    return torch.from_numpy(np.where(target.brain, target.t1 + noise, 0).astype(np.float32))[:, None]
