"""A prediction and its contract in plain words, for terminal and report."""

from __future__ import annotations

from headstart.brains.contract import Contract
from headstart.prediction.finished import FinishedModel
from headstart.prediction.predictor import Prediction

MARKS = {"ok": "✓", "flag": "!", "refused": "✗", "unknown": "–"}
NOT_A_DEVICE = "Research software, not a medical device."


def contract_words(contract: Contract) -> str:
    """The steps that a scan goes through, in order."""
    spec = contract.spec
    bias = "N4 bias correction" if contract.bias_correction == "n4" else "no bias correction"
    grid = "×".join(map(str, spec.shape))
    return (f"{contract.orientation}+, {contract.brain_extraction} where the skull is on, {bias}, "
            f"{contract.registration} registration to {contract.space}, one resampling to {grid} at "
            f"{spec.spacing_mm:g} mm, intensities {contract.intensity} (contract {contract.digest})")


def answer(prediction: Prediction) -> str:
    """The value with its interval or probability."""
    if prediction.value is None:
        return f"no prediction: {prediction.refusal}"
    if isinstance(prediction.value, str):
        shares = ", ".join(f"{name} {share:.2f}" for name, share in prediction.probabilities.items())
        return f"{prediction.task.column}: {prediction.value} ({shares})"
    text = f"{prediction.task.column}: {prediction.value:.1f} {prediction.task.unit}".rstrip()
    if prediction.interval is None:
        return f"{text} (no interval: this model came without calibration)"
    return f"{text} (90 % interval {prediction.interval[0]:.1f} to {prediction.interval[1]:.1f})"


def check_lines(prediction: Prediction) -> list[str]:
    """One line for every condition of the contract."""
    return [f"{MARKS[check.verdict]} {check.name:<13} {check.found}"
            + (f"   (expected: {check.wanted})" if check.wanted else "") for check in prediction.checks]


def caveats(model: FinishedModel) -> list[str]:
    """What a reader must know of the model before believing it."""
    told = [NOT_A_DEVICE]
    if model.config.simulated:
        told.append("The model was trained on simulated brains.")
    return told + (model.config.calibration.sentences(model.task.unit) if model.config.calibration else [])
