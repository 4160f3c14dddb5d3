"""Brain age with its regression to the mean removed. It looks good even for poor models: show it second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from headstart.evaluation.metrics import METRICS
from headstart.evaluation.predictions import Predictions
from headstart.evaluation.statistics import Bootstrap, Estimate, score

GROUPS = 5
FEWEST_SUBJECTS = 2 * GROUPS
SHOWN = ("mae", "r")
METHOD = ("predicted + age − (slope × age + intercept), the line fitted on validation (or out-of-fold) predictions "
          "of other subjects (de Lange and Cole 2020). It uses the true age, so that its scores flatter every model.")


class BiasCorrected(BaseModel):
    """Scores after bias correction, and the line (mean over seeds) that was taken out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    slope: float = Field(description="of prediction on age, out-of-fold; 1 would be free of bias")
    intercept: float = Field(description="years")
    inside: dict[str, Estimate]
    outside: dict[str, Estimate]


def correct_bias(parts: Mapping[str, Predictions], fitted_on: Predictions,
                 bootstrap: Bootstrap) -> BiasCorrected | None:
    """Correct each seed by its line through ``fitted_on``; whom the line is applied to had no part in it.

    Args:
        parts: predictions ``inside`` and ``outside``.
        fitted_on: validation or out-of-fold predictions, all seeds.

    Returns:
        None where there are too few subjects for a line.
    """
    if fitted_on.num_subjects < FEWEST_SUBJECTS or np.ptp(fitted_on.truth) == 0:
        return None
    lines = {seed: _line(fitted_on.select(fitted_on.seed == seed)) for seed in fitted_on.seeds}
    slope, intercept = np.mean(list(lines.values()), axis=0)
    metrics = [METRICS[name] for name in SHOWN]
    return BiasCorrected(method=METHOD, slope=float(slope), intercept=float(intercept), **{
        name: score(_corrected(part, fitted_on), metrics, bootstrap) for name, part in parts.items()})


def _line(part: Predictions) -> tuple[float, float]:
    """Slope and intercept of prediction on age."""
    age, predicted = part.truth - part.truth.mean(), part.prediction
    slope = float(age @ predicted / max(age @ age, 1e-12))
    return slope, float(predicted.mean() - slope * part.truth.mean())


def _corrected(part: Predictions, fitted_on: Predictions) -> Predictions:
    """A fifth of the subjects at a time is corrected by the line of all others of the same seed."""
    group = {subject: number % GROUPS for number, subject in enumerate(sorted({*part.subject, *fitted_on.subject}))}
    of_part, of_fit = (np.array([group[subject] for subject in table.subject], int) for table in (part, fitted_on))
    lines = np.zeros((len(part), 2))
    for seed in part.seeds:
        same = fitted_on.seed == seed if seed in fitted_on.seeds else np.ones(len(fitted_on), bool)
        for number in range(GROUPS):
            lines[(part.seed == seed) & (of_part == number)] = _line(fitted_on.select(same & (of_fit != number)))
    slope, intercept = lines.T
    return replace(part, prediction=part.prediction + part.truth - (slope * part.truth + intercept))
