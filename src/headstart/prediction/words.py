"""A prediction and its contract in plain words, for terminal and report."""

from __future__ import annotations

from headstart.prediction.finished import FinishedModel
from headstart.prediction.predictor import Prediction

MARKS = {"ok": "✓", "flag": "!", "refused": "✗", "unknown": "–"}
VERDICTS = {"ok": "as they should be", "flag": "flagged", "refused": "refused", "failed": "not readable"}
NOT_A_DEVICE = "Research software, not a medical device."


def headline(prediction: Prediction) -> str:
    """The answer in a word or a number."""
    if prediction.value is None:
        return "No prediction"
    return prediction.value if isinstance(prediction.value, str) else (
        f"{prediction.value:.1f} {prediction.task.unit}".rstrip())


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
