"""The group level of the BIDS App: one table and one page over all scans that were predicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.errors import HeadstartError
from headstart.files import atomic_write
from headstart.prediction.derivatives import Record, claim, collect, table_row
from headstart.prediction.finished import FinishedModel
from headstart.prediction.page import TEMPLATES
from headstart.prediction.words import VERDICTS, caveats
from headstart.report.page import assets, template_environment

PAGE = "group.html"
ORDER = ("failed", "refused", "flag", "ok")


def write_group(bids: Path, out: Path, model: FinishedModel) -> Path:
    """Write ``participants.tsv`` and ``group.html`` from the scans that the participant level predicted.

    Raises:
        HeadstartError: ``out`` holds no prediction of this model.
    """
    claim(out, bids, model)
    records = collect(out, model.task)
    if not records:
        raise HeadstartError("holds no prediction", path=out, fix="Run the participant level first.")
    rows = sorted((_row(record, out, model) for record in records), key=lambda row: ORDER.index(row["cells"]["qc"]))
    page = template_environment(TEMPLATES).get_template("group.html.j2").render(
        model=model, rows=rows, columns=list(rows[0]["cells"]), sentences=sentences(records, model),
        caveats=caveats(model), **assets(TEMPLATES))
    with atomic_write(out / PAGE) as file:
        file.write(page)
    return out / PAGE


def _row(record: Record, out: Path, model: FinishedModel) -> dict[str, Any]:
    cells = {name: "–" if value is None else f"{value:.3g}" if isinstance(value, float) else value
             for name, value in table_row(record, model.task).items()}
    page = "_".join(filter(None, (record["participant_id"], record["session"]))) + ".html"
    return {"cells": cells, "page": page if (out / page).is_file() else None}


def sentences(records: Sequence[Record], model: FinishedModel) -> list[str]:
    """What became of the scans, and where the truth is known how well they were predicted."""
    counts = Counter(record["verdict"] for record in records)
    said = [", ".join(f"{counts[name]} {word}" for name, word in VERDICTS.items()) + "."]
    known = [record for record in records if record.get("observed") is not None and record.get("value") is not None]
    if known:
        said.append(_accuracy(known, model))
    return said


def _accuracy(known: Sequence[Mapping[str, Any]], model: FinishedModel) -> str:
    whose = f"In {len(known)} scans whose {model.task.column} is in participants.tsv"
    if model.task.kind == "classification":
        return f"{whose}, {np.mean([r['value'] == r['observed'] for r in known]):.0%} of the classes are right."
    errors = np.array([abs(record["value"] - record["observed"]) for record in known])
    within = [record["interval"][0] <= record["observed"] <= record["interval"][1] for record in known
              if record["interval"]]
    covered = f"; the 90 % interval holds {np.mean(within):.0%} of them" if within else ""
    off = f"{errors.mean():.1f} {model.task.unit}".rstrip()
    return f"{whose}, the prediction is off by {off} on average{covered}."
