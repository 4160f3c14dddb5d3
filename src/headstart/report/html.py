"""One self-contained HTML page from a result: nothing is fetched, nothing is sent, everything from data is escaped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from headstart.evaluation.cohort_table import in_order
from headstart.evaluation.metrics import METRICS, PRIMARY, metrics_for
from headstart.evaluation.predictions import PARTITIONS, Predictions
from headstart.evaluation.results import Result
from headstart.evaluation.statistics import Estimate
from headstart.evaluation.summary import interval, model_name, number, verdict
from headstart.files import atomic_write
from headstart.report import figures, words
from headstart.report.figures import ForestRow
from headstart.report.page import assets, csv_text, data_uri, template_environment

GROUPINGS = (("by_site", "Site"), ("by_sex", "Sex"), ("by_age", "Age (years)"))


def render(result: Result, predictions: Predictions, out: str | Path) -> Path:
    """Write the report of one experiment.

    Args:
        result: the scores and their provenance.
        predictions: of the model, for the figures and the download.
        out: the HTML file.
    """
    page = template_environment().get_template("report.html.j2").render(
        result=result, words=words, model=model_name(result), number=number, interval=interval, verdict=verdict,
        metrics=metrics_for(result.task.kind), primary=METRICS[PRIMARY[result.task.kind]], all_metrics=METRICS,
        partitions=[name for name in PARTITIONS if getattr(result, name)], figures=_figures(result, predictions),
        downloads=_downloads(result, predictions), rows=score_rows(result), groupings=GROUPINGS, flat=flat,
        receipt=receipt_rows(result.receipt), **assets())
    with atomic_write(out) as file:
        file.write(page)
    return Path(out)


def score_rows(result: Result) -> list[tuple[str, str, Mapping[str, Mapping[str, Estimate]]]]:
    """Model and floors: (name, description, partition → metric → estimate)."""
    own = (model_name(result), "The model of this report.", {name: getattr(result, name) for name in PARTITIONS})
    return [own, *((floor.title, floor.description, {"inside": floor.inside, "outside": floor.outside})
                   for floor in result.floors.values())]


def _figures(result: Result, predictions: Predictions) -> dict[str, Markup]:
    metric, unit = METRICS[PRIMARY[result.task.kind]], result.task.unit
    rows = [ForestRow(name, {p: by[p][metric.name] for p in PARTITIONS if by[p]}, strong=not position)
            for position, (name, _, by) in enumerate(score_rows(result))]
    drawn = {"forest": figures.forest(rows, metric, unit, "Model and floors")}
    for field, heading in GROUPINGS:
        groups = _group_rows(getattr(result, field), metric.name)
        if len(groups) > 1:
            drawn[field] = figures.forest(groups, metric, unit, f"{metric.label} by {heading.lower()}")
    if result.task.kind == "regression":
        drawn |= {f"scatter_{p}": figures.truth_scatter(predictions, p, result.task.column, unit) for p in PARTITIONS
                  if getattr(result, p)}
    else:
        drawn |= {"roc": figures.roc(predictions), "calibration": figures.calibration(predictions)}
    return drawn | {"curves": figures.learning_curves([curve.history for curve in result.training])}


def _group_rows(groups: Mapping[str, Mapping[str, Mapping[str, Estimate]]], metric: str) -> list[ForestRow]:
    names = sorted({name for by_name in groups.values() for name in by_name}, key=in_order)
    return [ForestRow(name, {partition: by_name[name][metric] for partition, by_name in groups.items()
                             if name in by_name}) for name in names]


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """A nested record as (dotted name, text) pairs."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from flat(inner, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(value, list | tuple):
        yield prefix, ", ".join(map(str, value)) or "none"
    else:
        yield prefix, "none" if value is None or value == "" else str(value)


def receipt_rows(receipt: Mapping[str, Any] | None) -> list[tuple[str, list[tuple[str, str]]]]:
    """(what happened, [(key, how)]) of a weight transfer; empty where nothing was transferred."""
    kinds = ("copied", "adapted", "merged", "initialised", "dropped")
    return [(kind, _receipt_entries(receipt[kind])) for kind in kinds if receipt and receipt.get(kind)]


def _receipt_entries(entries: Mapping[str, Any] | Sequence[Any]) -> list[tuple[str, str]]:
    if isinstance(entries, Mapping):
        return [(str(key), how if isinstance(how, str) else ", ".join(map(str, how))) for key, how in entries.items()]
    return [(str(key), "") for key in entries]


def _downloads(result: Result, predictions: Predictions) -> list[tuple[str, str]]:
    """(file name, data URI): the tables of the page, for machines."""
    scored = ["model", "partition", "metric", "value", "low", "high", "n"]
    texts = {"scores.csv": csv_text(scored, _score_cells(result)),
             "predictions.csv": csv_text(predictions.header(), predictions.cells()),
             "result.json": json.dumps(result.model_dump(mode="json"), ensure_ascii=False, indent=1),
             "references.bib": words.bibtex()}
    return [(name, data_uri(name, text)) for name, text in texts.items()]


def _score_cells(result: Result) -> Iterator[list[Any]]:
    for name, _, by_partition in score_rows(result):
        for partition, scores in by_partition.items():
            for metric, e in scores.items():
                numbers = ["" if value is None else f"{value:.6g}" for value in (e.value, e.low, e.high)]
                yield [name, partition, metric, *numbers, e.n]
