"""Looks at a backbone while it is pre-trained: what a linear probe reads from it, and whether its features collapse.

The probe's brains are simulated, and held out from every upstream: other people, other scanners.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from headstart.backbones.model import BrainModel
from headstart.evaluation.linear import fit_classes, fit_number
from headstart.pretraining.curve import Curve
from headstart.pretraining.pool import Pool
from headstart.training import encode

LOOKS = 8  # besides the one before the first step
PROBED = ("age", "sex", "log_lateral_ventricles", "log_hippocampus")


@dataclass(frozen=True)
class Look:
    """What was seen after ``step`` steps.

    Attributes:
        probe: by label, on the half of the brains that the probe was not fitted on: correlation with the truth, for
            ``sex`` the share of correct answers.
        deviation: mean over features of their standard deviation between brains, after each brain's features were
            scaled to length sqrt(width): 0 is collapse.
        rank: effective rank of the features, the exponential of the entropy of their singular values (RankMe,
            arXiv 2210.02885).
    """

    step: int
    probe: dict[str, float]
    deviation: float
    rank: float


class Monitor:
    """Notes the loss of every step, and looks at the model now and then.

    Args:
        model: the one whose features are looked at, while it learns.
        brains: what the probe reads; None: no looks are taken.
        folder: where notes are kept; a run that is resumed notes the same again.
        steps: of the whole run.
    """

    def __init__(self, model: BrainModel, brains: Pool | None, folder: Path, steps: int) -> None:
        self.model, self.brains = model, brains
        self.curve, self.looks = Curve(folder / "curve.jsonl"), Curve(folder / "looks.jsonl")
        self.when = set(np.linspace(0, steps, LOOKS + 1).round().astype(int).tolist())

    def __call__(self, step: int, loss: float) -> None:
        """After ``step`` steps, the last of which had this loss."""
        self.curve.note(step, loss)
        self.look(step)

    def look(self, step: int) -> None:
        """Take a look if one is due after ``step`` steps and was not taken before."""
        if self.brains is None or step not in self.when or step in self.looks.read():
            return
        features = encode(self.model, self.brains, np.arange(len(self.brains.targets)))
        deviation, rank = spread(features)
        self.looks.note(step, asdict(Look(step, probe(features, self.brains), deviation, rank)))


def probe(features: np.ndarray, brains: Pool) -> dict[str, float]:
    """Scores of linear probes that are fitted on the first half of the brains and read on the second."""
    scaled = (features - features.mean(0)) / np.maximum(features.std(0), 0.1 * features.std())
    kernel = (scaled @ scaled.T).astype(np.float64)
    found = {}
    for label, truth in zip(brains.labels, brains.targets.T, strict=True):
        known = np.flatnonzero(np.isfinite(truth))
        train, test = np.split(known, [len(known) // 2])
        if label.name == "sex":
            said = fit_classes(kernel, np.nan_to_num(truth).astype(int), train, test, train, 2).argmax(1)
            found["sex"] = round(float((said == truth[test]).mean()), 4)
        elif label.name in PROBED:
            said = fit_number(kernel, truth, train, test, train)
            found[label.name] = round(correlation(said, truth[test]), 4)
    return found


def correlation(said: np.ndarray, truth: np.ndarray) -> float:
    """Pearson's; 0 where everything said is the same."""
    return float(np.corrcoef(said, truth)[0, 1]) if np.ptp(said) > 0 else 0.0


def spread(features: np.ndarray) -> tuple[float, float]:
    """Deviation and effective rank of features (n, width), see ``Look``."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    values = np.linalg.svd(features - features.mean(0), compute_uv=False)
    share = values[values > 0] / values.sum() if values.sum() > 0 else np.ones(1)
    rank = float(np.exp(-(share * np.log(share)).sum()))
    return round(float((unit * np.sqrt(features.shape[1])).std(0).mean()), 4), round(rank, 2)
