"""Predictions as BIDS derivatives: a JSON for each scan, and from all of them one participants.tsv."""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from headstart.brains.cohort import Scan
from headstart.errors import BusyError, HeadstartError
from headstart.files import atomic_write, one_writer, read_json, write_json
from headstart.prediction.finished import FinishedModel
from headstart.prediction.outputs import Place
from headstart.prediction.quality import LIMITS
from headstart.tasks import Task

DESCRIPTION, TABLE = "dataset_description.json", "participants.tsv"
GENERATOR = "headstart predict"
WAIT_SECONDS = 60.0  # for another process that writes the table of the same folder
Record = Mapping[str, Any]


def desc(task: Task) -> str:
    """The task as a BIDS label: letters and digits."""
    return re.sub(r"[^A-Za-z0-9]", "", task.name) or "prediction"


def stem(scan: Scan) -> str:
    """``sub-01`` or ``sub-01_ses-1``."""
    return "_".join(filter(None, (scan.participant_id, scan.session)))


def anat_folder(out: Path, scan: Scan) -> Path:
    """Where a scan's derivatives go."""
    return out.joinpath(*filter(None, (scan.participant_id, scan.session)), "anat")


def place_of(out: Path, scan: Scan, task: Task) -> Place:
    """Where the files of a scan go."""
    return Place(anat_folder(out, scan), out, stem(scan), desc(task))


def claim(out: Path, bids: Path, model: FinishedModel) -> None:
    """Make ``out`` the derivatives of this model on this data set.

    Raises:
        HeadstartError: it is the data set itself, or holds something else; nothing was written.
    """
    if out.resolve() == bids.resolve():
        raise HeadstartError("is the data set itself", path=out, fix="Give another folder for the predictions, for "
                             f"example {bids / 'derivatives' / 'headstart'}.")
    mine = _description(bids, model)
    if not (out / DESCRIPTION).exists():
        if (out / TABLE).exists() or any(out.glob("sub-*")):
            raise HeadstartError("holds another data set", path=out, fix="Give an empty folder for the predictions.")
        write_json(out / DESCRIPTION, mine)
        return
    other = _generated_by(read_json(out / DESCRIPTION))
    if other.get("Name") != GENERATOR:
        raise HeadstartError("holds another data set", path=out, fix="Give an empty folder for the predictions.")
    if other.get("Model") != mine["GeneratedBy"][0]["Model"]:
        raise HeadstartError("holds predictions of another model", path=out, fix="Give another folder, or remove it.")


def _description(bids: Path, model: FinishedModel) -> dict[str, Any]:
    made = {"Name": GENERATOR, "Version": metadata.version("headstart"),
            "Model": {"Weights": model.sha256, "Task": model.task.name}, "Description": f"Predicted by {model.name}"}
    return {"Name": f"{model.task.name} predicted from T1w scans", "BIDSVersion": "1.10.0",
            "DatasetType": "derivative", "GeneratedBy": [made], "SourceDatasets": [{"URL": f"file://{bids.resolve()}"}],
            "DatasetLinks": {"raw": f"file://{bids.resolve()}"}}


def _generated_by(description: Any) -> dict[str, Any]:
    try:
        return dict(description["GeneratedBy"][0])
    except (TypeError, KeyError, IndexError, ValueError):
        return {}


def collect(out: Path, task: Task) -> list[Record]:
    """Write ``participants.tsv`` from every scan's JSON under ``out``; its rows, by participant and session."""
    with _patient_writer(out):
        records = sorted(read_records(out, task), key=lambda record: (record["participant_id"], record["session"]))
        _write_table(out / TABLE, [table_row(record, task) for record in records])
        write_json(out / "participants.json", _columns(task))
    return records


def read_records(out: Path, task: Task) -> list[Record]:
    """Every scan's JSON under ``out``."""
    name = f"*_desc-{desc(task)}_prediction.json"
    paths = sorted([*out.glob(f"sub-*/anat/{name}"), *out.glob(f"sub-*/ses-*/anat/{name}")])
    records = [read_json(path) for path in paths]
    for path, record in zip(paths, records):
        if not isinstance(record, dict) or not {"participant_id", "session", "verdict"} <= set(record):
            raise HeadstartError("is not a prediction of headstart", path=path, fix="Remove it and predict again.")
    return records


@contextmanager
def _patient_writer(out: Path):
    """``one_writer``, waiting for others: on a cluster many participants of one folder end at once."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            with one_writer(out):
                yield
            return
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def table_row(record: Record, task: Task) -> dict[str, Any]:
    """The record's row in ``participants.tsv``, by column."""
    low, high = record.get("interval") or (None, None)
    facts = record.get("facts") or {}
    row = {"participant_id": record["participant_id"], "session_id": record["session"] or None,
           "prediction": record.get("value"), "observed": record.get("observed")}
    if task.kind == "regression":
        row |= {"low": low, "high": high}
    shares = record.get("probabilities") or {}
    row |= {f"p_{name}": shares.get(name) for name in task.classes}
    doubts = [check["name"] for check in record.get("checks", ()) if check["verdict"] in ("flag", "refused")]
    return row | {"qc": record["verdict"], "qc_flags": ",".join(doubts) or None, "overlap": facts.get("overlap"),
                  "correlation": facts.get("correlation"), "brain_volume_ml": facts.get("brain_volume_ml"),
                  "message": record.get("error")}


def _write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    sessions = any(row["session_id"] for row in rows)
    columns = [name for name in (rows[0] if rows else {"participant_id": ""}) if name != "session_id" or sessions]
    with atomic_write(path) as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, escapechar="\\")
        writer.writerows([columns, *([_cell(row[name]) for name in columns] for row in rows)])


def _cell(value: Any) -> str:
    if value is None:
        return "n/a"
    return f"{value:.4f}" if isinstance(value, float) else re.sub(r"\s", " ", str(value))


def _columns(task: Task) -> dict[str, Any]:
    """What the columns of the table mean, as BIDS asks."""
    unit = {"Units": task.unit} if task.unit else {}
    columns: dict[str, Any] = {
        "prediction": {"Description": f"predicted {task.column}", **unit},
        "observed": {"Description": f"{task.column} in the data set's own table; n/a where absent or censored (89+)",
                     **unit}}
    if task.kind == "regression":
        columns |= {name: {"Description": f"{end} end of the 90 % interval; n/a where the model has none", **unit}
                    for name, end in (("low", "lower"), ("high", "upper"))}
    columns |= {f"p_{name}": {"Description": f"probability of {name}"} for name in task.classes}
    return columns | {
        "qc": {"Description": "whether the scan meets the model's preprocessing contract", "Levels": {
            "ok": "it does", "flag": "predicted, but look at it", "refused": "not predicted",
            "failed": "could not be prepared"}},
        "qc_flags": {"Description": f"conditions that are not met, of: {', '.join([*LIMITS, 'familiarity', 'range'])}"},
        "overlap": {"Description": "Dice coefficient of the registered brain with the template's"},
        "correlation": {"Description": "of the registered scan with the template's T1"},
        "brain_volume_ml": {"Description": "in the scan's own space", "Units": "mL"},
        "message": {"Description": "why there is no prediction"}}
