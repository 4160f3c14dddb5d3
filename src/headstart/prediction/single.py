"""One file outside any data set: its record, page and maps in a folder."""

from __future__ import annotations

import re
from pathlib import Path

from headstart.prediction.derivatives import desc
from headstart.prediction.finished import FinishedModel
from headstart.prediction.outputs import Place, write_prepared, write_record
from headstart.prediction.predictor import Prediction, prepared_for


def predict_file(model: FinishedModel, scan: Path, out: Path, method: str | None = None) -> Prediction:
    """Predict ``scan`` and write what is known of it into ``out``, under the scan's own name.

    Raises:
        HeadstartError: the scan cannot be prepared, or the folder not written.
    """
    name = re.sub(r"[^\w.+-]", "-", re.sub(r"\.nii(\.gz)?$", "", scan.name))
    place = Place(out, out, name, desc(model.task))
    prediction = write_prepared(place, model, scan, prepared_for(model, scan), method)
    about = {"Sources": [scan.name], "task": model.task.name, "model": {"name": model.name, "weights": model.sha256},
             "contract": model.config.contract.model_dump()}
    write_record(place, about, {**prediction.to_json(), "error": prediction.refusal})
    return prediction
