"""One scan to one answer: the model's preprocessing is run and verified, and the answer carries what was found."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.brains.facts import Facts
from headstart.brains.scan import Prepared, prepare_scan
from headstart.brains.volumes import template
from headstart.calibration.uncertainty import Calibration
from headstart.errors import HeadstartError
from headstart.prediction.finished import FinishedModel
from headstart.prediction.quality import (
    Check,
    Verdict,
    check_familiarity,
    check_preparation,
    check_range,
    contract_words,
    overall,
)
from headstart.tasks import Task


@dataclass(frozen=True)
class Prediction:
    """What a model says of one scan.

    Attributes:
        value: the number, or the class's name; None where the scan violates the contract.
        interval: (low, high) with 90 % coverage at the training sites; None for a class, or where the model came
            without calibration.
        probabilities: of every class; empty for a number.
        verdict: ``ok``, ``flag`` (see ``checks``) or ``refused``.
        checks: every condition of the contract.
        facts: what was measured while the scan was prepared.
        seconds: by step.
        done: the preprocessing in words.
    """

    task: Task
    value: float | str | None
    interval: tuple[float, float] | None
    probabilities: dict[str, float]
    verdict: Verdict
    checks: tuple[Check, ...]
    facts: Facts
    seconds: dict[str, float]
    done: str = ""

    @property
    def doubts(self) -> tuple[Check, ...]:
        """The conditions that are not met."""
        return tuple(check for check in self.checks if check.verdict in ("flag", "refused"))

    @property
    def refusal(self) -> str | None:
        """Why there is no value."""
        if self.verdict != "refused":
            return None
        broken = [check for check in self.checks if check.verdict == "refused"]
        return "the scan violates the model's contract: " + "; ".join(
            f"{check.name} is {check.found}, expected {check.wanted}" for check in broken)

    def to_json(self) -> dict[str, Any]:
        return {
            "value": self.value, "unit": self.task.unit, "interval": self.interval, "probabilities": self.probabilities,
            "verdict": self.verdict, "checks": [vars(check) for check in self.checks], "facts": self.facts.to_json(),
            "seconds": self.seconds, "done": self.done}


def predict_scan(model: FinishedModel, path: str | Path) -> Prediction:
    """Prepare the T1w scan at ``path`` as the model's contract says, verify that, and predict.

    Raises:
        HeadstartError: the scan cannot be prepared; it says why.
    """
    return predict_prepared(model, prepared_for(model, path))


def prepared_for(model: FinishedModel, path: str | Path) -> Prepared:
    """The scan at ``path``, prepared as the model's contract says.

    Raises:
        HeadstartError: whatever is wrong with it, also what a library beneath does not foresee.
    """
    try:
        return prepare_scan(path, model.config.contract)
    except HeadstartError:
        raise
    except MemoryError as error:
        raise HeadstartError("needs more memory than there is", path=path,
                             fix="Is this one T1-weighted scan?") from error
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise HeadstartError(f"cannot be prepared ({type(error).__name__}: {reason})", path=path,
                             fix="Look at it in a viewer: is this a whole T1-weighted scan of a head?") from error


def predict_prepared(model: FinishedModel, prepared: Prepared) -> Prediction:
    """As ``predict_scan``, for a scan that was prepared under the model's contract."""
    checks = check_preparation(prepared, model.config.contract)
    prediction = Prediction(model.task, None, None, {}, overall(checks), checks, prepared.facts, prepared.seconds,
                            contract_words(model.config.contract))
    if prediction.verdict == "refused":
        return prediction
    start = time.perf_counter()
    features, output = forward(model, as_stored(prepared.volume, model))
    prediction = answered(prediction, model, output)
    checks = (*checks, check_familiarity(features, model.familiarity), *_range(prediction, model))
    seconds = {**prepared.seconds, "predict": round(time.perf_counter() - start, 4)}
    return replace(prediction, verdict=overall(checks), checks=checks, seconds=seconds)


def _range(prediction: Prediction, model: FinishedModel) -> tuple[Check, ...]:
    if not isinstance(prediction.value, float) or model.config.calibration is None:
        return ()
    return check_range(prediction.value, model.config.calibration.targets, model.task.unit)


def answered(prediction: Prediction, model: FinishedModel, output: np.ndarray) -> Prediction:
    """``prediction`` with the answer that the network's ``output`` (num_outputs,) stands for."""
    calibration = model.config.calibration or Calibration()
    if model.task.kind == "regression":
        value = float(output[0])
        return replace(prediction, value=value, interval=calibration.interval(value))
    shares = np.exp((output - output.max()) / (calibration.temperature or 1.0))
    shares /= shares.sum()
    probabilities = {name: float(share) for name, share in zip(model.task.classes, shares, strict=True)}
    return replace(prediction, value=model.task.classes[int(shares.argmax())], probabilities=probabilities)


def as_stored(volume: np.ndarray, model: FinishedModel) -> torch.Tensor:
    """(X, Y, Z) as a store would give it back, (1, 1, X, Y, Z): near the template's brain, in half precision."""
    kept = template(model.config.contract.volume).kept
    values = np.where(kept, volume, 0).astype(np.float16).astype(np.float32)
    return torch.from_numpy(values)[None, None]


def forward(model: FinishedModel, volumes: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Features that the head reads (d,), and outputs (num_outputs,), of one scan."""
    with torch.inference_mode():
        features = model.network.normed_features(volumes)
        return features[0].numpy(), model.network.forward_head(features)[0].numpy()
