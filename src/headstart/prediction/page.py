"""One scan's page: the answer, the contract's conditions, a slice viewer; one file that opens from disk, offline."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headstart.brains.scan import Prepared
from headstart.brains.volumes import template
from headstart.prediction.finished import FinishedModel
from headstart.prediction.predictor import Prediction
from headstart.prediction.quality import contract_words
from headstart.prediction.words import MARKS, answer, caveats, headline
from headstart.report.page import assets, template_environment
from headstart.report.viewer import View

TEMPLATES = Path(__file__).parent / "templates"
MOST_VOXELS = 1_000_000  # a viewer of a finer grid shows every second voxel


def scan_page(name: str, model: FinishedModel, prepared: Prepared, prediction: Prediction,
              saliency: np.ndarray | None = None, method: str | None = None) -> str:
    """The page as HTML.

    Args:
        name: of the scan, as the reader knows it.
        saliency: a map (X, Y, Z) made by ``method``.
    """
    return template_environment(TEMPLATES).get_template("scan.html.j2").render(
        name=name, model=model, prediction=prediction, answer=answer(prediction), headline=headline(prediction),
        caveats=caveats(model), contract=contract_words(model.config.contract), marks=MARKS, method=method,
        facts=prepared.facts, view=_view(prepared.volume, saliency, method, model.config.contract.volume),
        **assets(TEMPLATES))



def _view(volume: np.ndarray, saliency: np.ndarray | None, method: str | None, grid: str) -> View:
    step = 1 if volume.size <= MOST_VOXELS else 2
    thin = (slice(None, None, step),) * 3
    maps = {f"{method} map": saliency[thin]} if saliency is not None else {}
    return View.of(volume[thin], maps, template(grid).brain[thin])
