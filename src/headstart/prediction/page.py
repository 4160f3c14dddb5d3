"""One scan's page: the answer, the contract's conditions, a slice viewer; one file that opens from disk, offline."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from markupsafe import Markup

from headstart.brains.scan import Prepared
from headstart.brains.volumes import template
from headstart.prediction.finished import FinishedModel
from headstart.prediction.predictor import Prediction
from headstart.prediction.quality import contract_words
from headstart.prediction.words import MARKS, answer, caveats, headline
from headstart.report.page import assets, template_environment

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
        facts=prepared.facts, viewer=viewer(prepared.volume, saliency, model.config.contract.volume),
        **assets(TEMPLATES))


def viewer(volume: np.ndarray, saliency: np.ndarray | None, grid: str) -> Mapping[str, str | Markup]:
    """The volumes as the viewer's script reads them: bytes in C order, as base64."""
    step = 1 if volume.size <= MOST_VOXELS else 2
    thin = (slice(None, None, step),) * 3
    layers = {"brain": _grey(volume[thin]), "outline": template(grid).brain[thin].astype(np.uint8)}
    if saliency is not None:
        layers["map"] = _signed(saliency[thin])
    return {"shape": ",".join(map(str, volume[thin].shape)),
            **{layer: base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
               for layer, values in layers.items()}}


def _grey(volume: np.ndarray) -> np.ndarray:
    """Scaled intensities as grey levels; outside the brain is black."""
    return np.where(volume == 0, 0, 30 + 150 * np.clip(volume, -0.2, 1.5)).astype(np.uint8)


def _signed(found: np.ndarray) -> np.ndarray:
    """A map as bytes: 128 is zero; its strongest half per cent is full."""
    inside = np.abs(found[found != 0])
    top = float(np.percentile(inside, 99.5)) if len(inside) else 1.0
    return np.rint(128 + 127 * np.clip(found / max(top, 1e-12), -1, 1)).astype(np.uint8)
