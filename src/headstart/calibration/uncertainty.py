"""How wrong a model usually is: 90 % intervals and calibrated probabilities, from people that it was not trained on.

A saved model is trained on everybody at the training sites, so nobody is left to measure it on. Its errors are taken to
be those of the cross-validation's models, each on the people of its held-out fold: the cross-validation interval that
Barber et al. ("Predictive inference with the jackknife+", Annals of Statistics 2021) compare with CV+. CV+ itself would
need every fold's model at hand for every prediction. Like theirs, it holds for people like those it was measured on,
and at no new site. Probabilities are softened by a temperature (Guo et al., arXiv 1706.04599) fitted on validation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

LEVEL = 0.90
Z_95 = 1.959964
TEMPERATURES = np.exp(np.linspace(np.log(0.1), np.log(20), 400))


class Coverage(BaseModel):
    """Share of people whose truth lay in the interval, with a 95 % interval (Wilson 1927), and how many there were."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, inside: Sequence[bool] | np.ndarray) -> Coverage | None:
        """None without anybody."""
        n = len(inside)
        if not n:
            return None
        share = float(np.mean(inside))
        centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
        half = Z_95 / (1 + Z_95**2 / n) * np.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
        return cls(value=share, low=float(centre - half), high=float(centre + half), n=n)

    def __str__(self) -> str:
        return f"{self.value:.0%} of {self.n} people ({self.low:.0%} to {self.high:.0%})"


class Calibration(BaseModel):
    """What a model folder says of the model's errors.

    Attributes:
        level: coverage that an interval aims at.
        errors: of a regression: absolute errors on held-out people, one each, ascending.
        half_width: of the interval; None where there are too few people for this level.
        coverage: on held-out people of the training sites (``inside``: each fold with the width of the others) and of
            other sites (``outside``: the saved model itself).
        temperature: of a classification: what the outputs are divided by.
        log_loss: of a classification on held-out people, before and after.
        targets: smallest and largest truth that the model was trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: float = LEVEL
    errors: list[float] = Field(default_factory=list)
    half_width: float | None = None
    coverage: dict[str, Coverage] = Field(default_factory=dict)
    temperature: float | None = Field(None, gt=0)
    log_loss: tuple[float, float] | None = None
    targets: tuple[float, float] | None = None

    def interval(self, value: float) -> tuple[float, float] | None:
        """(low, high) around a predicted number."""
        return None if self.half_width is None else (value - self.half_width, value + self.half_width)

    def sentences(self, unit: str = "") -> list[str]:
        """What a reader should know, in plain words."""
        said = []
        if self.errors and self.half_width is None:
            said.append(f"No interval: {len(self.errors)} held-out people are too few for one of {self.level:.0%}.")
        if self.half_width is not None:
            where = {"inside": "held out at the training sites", "outside": "at sites never seen"}
            shares = "; ".join(f"{where[part]}, {coverage}" for part, coverage in self.coverage.items())
            said.append(f"A prediction ± {self.half_width:.1f} {unit}".rstrip() + f" is its {self.level:.0%} interval. "
                        f"It covered the truth of people {shares}. It is not valid at a new site or on a new scanner.")
        if self.temperature is not None:
            before, after = self.log_loss or (float("nan"), float("nan"))
            said.append(f"Probabilities are calibrated by a temperature of {self.temperature:.2f}, fitted on "
                        f"validation scans; log loss on held-out people {before:.3f} before, {after:.3f} after.")
        return said


def regression_calibration(truth: np.ndarray, predicted: np.ndarray, folds: Sequence[str],
                           outside: np.ndarray | None = None) -> Calibration:
    """From held-out predictions, one scan a person.

    Args:
        truth: (n,), in the target's unit.
        predicted: (n,), each person by the fold model that had not seen it.
        folds: (n,), which model that was.
        outside: (m,) absolute errors of the saved model on people of other sites.
    """
    errors = np.abs(np.asarray(truth, np.float64) - predicted)
    half_width, fold_of = conformal_quantile(errors), np.asarray(folds)
    coverage = {"inside": Coverage.of(np.concatenate([_covered(errors, fold_of == fold) for fold in set(folds)])),
                "outside": Coverage.of([] if half_width is None or outside is None else outside <= half_width)}
    return Calibration(errors=np.sort(errors).tolist(), half_width=half_width,
                       coverage={part: found for part, found in coverage.items() if found},
                       targets=(float(np.min(truth)), float(np.max(truth))))


def _covered(errors: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Whether the people of one fold lie within the width that all the others give."""
    width = conformal_quantile(errors[~fold])
    return np.empty(0, bool) if width is None else errors[fold] <= width


def conformal_quantile(errors: np.ndarray, level: float = LEVEL) -> float | None:
    """The error that a new person stays under with probability ``level``; None if that needs more people.

    Split conformal prediction (Lei et al., JASA 2018): of ``errors`` (n,) the one with rank ⌈(n + 1) level⌉, in their
    unit. It holds for people exchangeable with those, so not at a new site.
    """
    rank = int(np.ceil((len(errors) + 1) * level))
    return None if rank > len(errors) else float(np.sort(errors)[rank - 1])


def classification_calibration(validation: tuple[np.ndarray, np.ndarray],
                               held_out: tuple[np.ndarray, np.ndarray]) -> Calibration:
    """A temperature from validation scans, and what it does to held-out ones.

    Args:
        validation: class indices (n,) and probabilities (n, C).
        held_out: likewise, of people that nothing was chosen on.
    """
    (truth, shares), (new_truth, new_shares) = validation, held_out
    if not len(truth):
        return Calibration()
    losses = [log_loss(truth, tempered(shares, temperature)) for temperature in TEMPERATURES]
    temperature = float(TEMPERATURES[int(np.argmin(losses))])
    after = log_loss(new_truth, tempered(new_shares, temperature))
    return Calibration(temperature=temperature, log_loss=(log_loss(new_truth, new_shares), after))


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities (n, C) whose logits are divided by ``temperature``."""
    logits = np.log(np.clip(probabilities, 1e-12, 1)) / temperature
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def log_loss(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean negative logarithm of the true class's probability."""
    picked = probabilities[np.arange(len(truth)), np.asarray(truth, np.int64)]
    return float(-np.log(np.clip(picked, 1e-12, 1)).mean())
