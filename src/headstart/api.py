"""headstart from Python: models to train yourself, finished models to ask, scikit-learn estimators."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from headstart.backbones import build_model
from headstart.backbones.model import BrainModel
from headstart.brains.image import Image
from headstart.brains.volumes import volume_spec
from headstart.errors import HeadstartError
from headstart.estimators import BrainAgeRegressor, BrainClassifier
from headstart.explanation import to_native
from headstart.prediction import FinishedModel, Prediction, open_model, predict_prepared, predict_scan
from headstart.prediction.outputs import saliency
from headstart.prediction.predictor import prepared_for
from headstart.upstreams import load_into

__all__ = ["BrainAgeRegressor", "BrainClassifier", "Model", "Prediction", "create_model", "load"]


def create_model(backbone: str, *, upstream: str | Path = "scratch", num_outputs: int = 1, volume: str = "4mm",
                 seed: int = 0, accept_licence: bool = False) -> BrainModel:
    """A network to train, as timm creates them: an nn.Module from (n, 1, X, Y, Z) to (n, num_outputs).

    Args:
        backbone: see ``headstart finetune --help``.
        upstream: where its weights begin: a name of ``headstart weights list``, or a model folder (a bare checkpoint
            goes through ``headstart weights import`` first).
        num_outputs: 1 for a number, or the number of classes.
        volume: the grid, which gives X, Y and Z.
        seed: of what is drawn at random; the head always is.
        accept_licence: of a start that is not for commercial use.

    Returns:
        A ``BrainModel`` in training mode: outputs are logits, or numbers in the target's unit once
        ``set_target_scale`` was called.

    Raises:
        HeadstartError: an unknown name, or weights that do not fit.
    """
    spec = volume_spec(volume)
    model = build_model(backbone, spec, num_outputs, seed=seed)
    load_into(upstream, model.backbone, backbone, spec, accept_licence=accept_licence)
    return model


class Model:
    """A finished model: ask it about scans."""

    def __init__(self, finished: FinishedModel) -> None:
        self.finished = finished

    def predict(self, scan: str | Path) -> Prediction:
        """Prepare the T1w scan as the model's contract says, verify that, and answer.

        Args:
            scan: a NIfTI file, whole head or extracted brain.

        Returns:
            ``value`` and ``interval`` (or ``probabilities``), ``verdict`` and ``checks`` (quality), ``done`` and
            ``facts`` (what was done and measured). A scan that violates the contract has no value.

        Raises:
            HeadstartError: the scan cannot be prepared.
        """
        return predict_scan(self.finished, scan)

    def predict_many(self, scans: Iterable[str | Path]) -> list[Prediction | HeadstartError]:
        """One answer a scan, in order; in place of it the error, not raised, where a scan cannot be prepared."""
        return [self._answer(scan) for scan in scans]

    def _answer(self, scan: str | Path) -> Prediction | HeadstartError:
        try:
            return self.predict(scan)
        except HeadstartError as error:
            return error

    def explain(self, scan: str | Path, method: str = "gradient") -> Image:
        """What moves the answer, as an image on the scan's own voxels (see ``headstart.explanation``).

        Args:
            scan: a T1w scan.
            method: ``gradient`` (SmoothGrad, arXiv 1706.03825), ``occlusion`` (arXiv 1311.2901) or ``attention``
                (rollout, arXiv 2005.00928; transformers only).

        Raises:
            HeadstartError: the scan violates the contract, or the model has no map of this kind.
        """
        contract = self.finished.config.contract
        prepared = prepared_for(self.finished, scan)
        prediction = predict_prepared(self.finished, prepared)
        found: np.ndarray | None = saliency(self.finished, prepared, prediction, method)
        if found is None:
            raise HeadstartError(prediction.refusal or "there is no answer to explain", path=scan)
        return to_native(found, contract.spec, prepared.facts, scan)

    def __repr__(self) -> str:
        return f"<headstart.Model {self.finished.name}: {self.finished.task.name}, {self.finished.config.backbone}>"


def load(model: str | Path) -> Model:
    """A finished model by folder or shipped name.

    Args:
        model: ``runs/age`` or ``runs/age/model`` as finetune wrote it, or a shipped name (``brain-age-synthetic``).

    Raises:
        HeadstartError: there is none, or it is a start that was never taught a task.
    """
    return Model(open_model(model))
