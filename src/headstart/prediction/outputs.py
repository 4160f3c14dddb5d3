"""What is written for one scan: its record, its page, and maps on the template's grid and on its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.brains.nifti import write_nifti
from headstart.brains.scan import Prepared
from headstart.errors import HeadstartError
from headstart.explanation import explain, to_native
from headstart.files import atomic_write, write_json
from headstart.prediction.finished import FinishedModel
from headstart.prediction.page import scan_page
from headstart.prediction.predictor import Prediction, as_stored, predict_prepared, prepared_for

MEANING = {
    "gradient": "mean magnitude of the output's change for a change of a voxel's intensity (SmoothGrad)",
    "occlusion": "change of the output when a cube of 24 mm around the place is set to the brain's mean intensity",
    "attention": "attention rollout from the pooled tokens back to the patches; sums to 1",
}


@dataclass(frozen=True)
class Place:
    """Where a scan's files go, and what they are called.

    Attributes:
        folder: of record and maps.
        pages: of the HTML page.
        name: what every file's name begins with.
        label: of the task, letters and digits.
    """

    folder: Path
    pages: Path
    name: str
    label: str

    @property
    def record(self) -> Path:
        return self.folder / f"{self.name}_desc-{self.label}_prediction.json"

    @property
    def page(self) -> Path:
        return self.pages / f"{self.name}.html"

    def map(self, space: str, method: str) -> Path:
        return self.folder / f"{self.name}_space-{space}_desc-{method}_saliency.nii.gz"


def predict_into(place: Place, model: FinishedModel, scan: str | Path, about: Mapping[str, Any],
                 method: str | None = None) -> dict[str, Any]:
    """Predict one scan and write everything about it; its record, which holds ``about`` too.

    A scan that cannot be prepared leaves a record with the reason.

    Raises:
        HeadstartError: the files cannot be written, or the model has no map of this kind.
    """
    try:
        prepared = prepared_for(model, scan)
    except HeadstartError as error:
        return write_record(place, about, {"verdict": "failed", "error": str(error)})
    prediction = write_prepared(place, model, scan, prepared, method)
    return write_record(place, about, {**prediction.to_json(), "error": prediction.refusal})


def write_prepared(place: Place, model: FinishedModel, scan: str | Path, prepared: Prepared,
                   method: str | None) -> Prediction:
    """Predict a prepared scan; its page and its maps are written, its record is not."""
    prediction = predict_prepared(model, prepared)
    found = saliency(model, prepared, prediction, method)
    if found is not None and method is not None:
        _write_maps(place, model, prepared, found, scan, method)
    with atomic_write(place.page) as file:
        file.write(scan_page(place.name, model, prepared, prediction, found, method))
    return prediction


def saliency(model: FinishedModel, prepared: Prepared, prediction: Prediction,
             method: str | None) -> np.ndarray | None:
    """The map (X, Y, Z) behind the answer; None where there is no answer or none was asked for."""
    if method is None or prediction.value is None:
        return None
    output = model.task.classes.index(prediction.value) if isinstance(prediction.value, str) else 0
    volume = as_stored(prepared.volume, model)
    return explain(method, model.network, volume, model.config.contract.spec, output)


def write_record(place: Place, about: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    record = {**about, **content}
    write_json(place.record, record)
    return record


def _write_maps(place: Place, model: FinishedModel, prepared: Prepared, found: np.ndarray, scan: str | Path,
                method: str) -> None:
    contract = model.config.contract
    native = to_native(found, contract.spec, prepared.facts, scan)
    for space, data, affine in ((contract.space, found, contract.spec.affine), ("T1w", native.data, native.affine)):
        path = place.map(space, method)
        write_nifti(path, data, affine)
        write_json(path.with_name(path.name.replace(".nii.gz", ".json")), {
            "Description": MEANING[method], "SpatialReference": contract.space if space != "T1w" else "orig",
            "Model": model.sha256, "SkullStripped": True})
