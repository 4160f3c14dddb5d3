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
SHOWN = ("mae", "r")
METHOD = ("predicted + age − (slope × age + intercept), the line fitted on out-of-fold predictions of other subjects "
          "(de Lange and Cole 2020). It uses the true age, so that its scores flatter every model.")


class BiasCorrected(BaseModel):
    """Scores after bias correction, and the line (mean over seeds) that was taken out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    slope: float = Field(description="of prediction on age, out-of-fold; 1 would be free of bias")
    intercept: float = Field(description="years")
    inside: dict[str, Estimate]
    outside: dict[str, Estimate]


def correct_bias(parts: Mapping[str, Predictions], bootstrap: Bootstrap) -> BiasCorrected | None:
    """Correct ``inside`` by lines fitted on the other subjects, ``outside`` by the line of all of ``inside``.

    None where the inside is too small for a line.
    """
    inside, outside = parts["inside"], parts["outside"]
    if inside.num_subjects < 2 * GROUPS or np.ptp(inside.truth) == 0:
        return None
    lines = {seed: _line(inside.select(inside.seed == seed)) for seed in inside.seeds}
    corrected = {"inside": _cross_corrected(inside),
                 "outside": _corrected(outside, np.array([lines.get(s, _line(inside)) for s in outside.seed.tolist()]))}
    slope, intercept = np.mean(list(lines.values()), axis=0)
    metrics = [METRICS[name] for name in SHOWN]
    return BiasCorrected(method=METHOD, slope=float(slope), intercept=float(intercept),
                         **{name: score(part, metrics, bootstrap) for name, part in corrected.items()})


def _line(part: Predictions) -> tuple[float, float]:
    """Slope and intercept of prediction on age."""
    age, predicted = part.truth - part.truth.mean(), part.prediction
    slope = float(age @ predicted / max(age @ age, 1e-12))
    return slope, float(predicted.mean() - slope * part.truth.mean())


def _cross_corrected(part: Predictions) -> Predictions:
    """Each fifth of the subjects of a seed is corrected by the line of the others."""
    group = np.unique(part.subject, return_inverse=True)[1] % GROUPS
    lines = np.zeros((len(part), 2))
    for seed in part.seeds:
        for number in range(GROUPS):
            here = part.seed == seed
            lines[here & (group == number)] = _line(part.select(here & (group != number)))
    return _corrected(part, lines)


def _corrected(part: Predictions, lines: np.ndarray) -> Predictions:
    slope, intercept = lines.reshape(-1, 2).T
    return replace(part, prediction=part.prediction + part.truth - (slope * part.truth + intercept))
