"""One self-contained HTML page from a benchmark's folder, and the tables beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from headstart.benchmark import read
from headstart.benchmark_report import csv_files, figures, tables, words
from headstart.benchmark_report.brains import example_brains
from headstart.benchmark_report.claims import Finding, findings
from headstart.benchmark_report.collect import DOMAINS, Key, Study, domain_of
from headstart.benchmark_report.comparisons import Comparison, TaskGain, compare_all, task_gains
from headstart.benchmark_report.curves import Curve, curves, scans_saved
from headstart.benchmark_report.groups import Trust, gaps, group_gains, trust
from headstart.benchmark_report.pooled import pooled_gains
from headstart.benchmark_report.tables import Table
from headstart.environment import environment
from headstart.errors import HeadstartError
from headstart.evaluation.predictions import PARTITIONS, Predictions
from headstart.evaluation.statistics import REPLICATES
from headstart.files import atomic_write
from headstart.report import figures as one_model
from headstart.report.html import flat, receipt_rows
from headstart.report.page import assets, csv_text, data_uri, template_environment
from headstart.report.words import REFERENCES, bibtex

TEMPLATES = Path(__file__).parent / "templates"
REPORT, COMPARISONS, CLAIMS = "report.html", "comparisons.csv", "claims.csv"
MOST_DOTS = 250  # people in a scatter plot


@dataclass(frozen=True)
class Panel:
    """The outputs of one row at the largest training size: a choice in a list, and its figures."""

    name: str
    figures: tuple[tuple[str, Markup], ...]


def write(folder: str | Path, replicates: int = REPLICATES) -> Path:
    """Write ``report.html``, ``comparisons.csv`` and ``claims.csv`` into a benchmark's folder, finished or not.

    Args:
        replicates: of every bootstrap.

    Returns:
        The report.

    Raises:
        HeadstartError: the folder holds no benchmark, or none of its cells is done.
    """
    folder = Path(folder)
    benchmark = read(folder)
    if not benchmark.done:
        raise HeadstartError("no cell of this benchmark is done yet", path=folder,
                             fix="Run the benchmark, and see `headstart benchmark status`.")
    study = Study.of(benchmark, replicates)
    compared, claims = compare_all(study), findings(study)
    page = _render(study, compared, claims)
    texts = {COMPARISONS: csv_files.comparisons_csv(compared), CLAIMS: csv_files.claims_csv(claims), REPORT: page}
    for name, text in texts.items():
        with atomic_write(folder / name) as file:
            file.write(text)
    return folder / REPORT


def _render(study: Study, compared: Sequence[Comparison], claims: Sequence[Finding]) -> str:
    saved, groups, drawn, pooled = scans_saved(study), group_gains(study), curves(study), pooled_gains(study)
    lost, trusted = gaps(study), trust(study)
    return template_environment(TEMPLATES).get_template("benchmark.html.j2").render(
        study=study, plan=study.benchmark.plan, words=words, tables=tables, domains=_domains(study),
        summary=words.summary(study, compared, claims), warnings=words.warnings(study, compared),
        task_gains=_tiles(study), claims=tables.claims_table(claims), gains=tables.gains_table(study, compared),
        scores=tables.scores_table(study), saved=tables.saved_table(saved, study),
        gaps=tables.gaps_table(study, lost), groups=tables.groups_table(groups, study),
        pooled=tables.pooled_table(pooled), trust=_trust_tables(study, trusted),
        forests=_forests(study, compared),
        few_shot=list(_few_shot(study, drawn)), strokes=figures.strokes(study.benchmark.plan.upstreams),
        heat_map=figures.heat_map(study, compared, "Relative gains"),
        panels={task.name: _panels(study, task.name) for task in study.tasks}, brains=example_brains(study),
        receipts=_receipts(study), starts=tables.starts_table(study), environment=environment(), flat=flat,
        references=REFERENCES, downloads=_downloads(study, {
            COMPARISONS: csv_files.comparisons_csv(compared), CLAIMS: csv_files.claims_csv(claims),
            "scores.csv": csv_files.scores_csv(study), "scans-saved.csv": csv_files.saved_csv(saved),
            "gaps.csv": csv_files.gaps_csv(study, lost), "groups.csv": csv_files.groups_csv(study, groups),
            "trust.csv": csv_files.trust_csv(trusted), "starts.csv": csv_files.starts_csv(study),
            **({"pooled.csv": csv_files.pooled_csv(pooled)} if pooled else {})}),
        **assets(TEMPLATES))


def _domains(study: Study) -> list[tuple[str, str]]:
    """(key, title) of what the starts of this benchmark were trained on, in the order of ``DOMAINS``."""
    present = {domain_of(upstream) for upstream in study.benchmark.plan.upstreams}
    return [(key, title) for key, title in DOMAINS.items() if key in present]


def _tiles(study: Study) -> list[tuple[str, list[TaskGain]]]:
    """(task, its mean gains inside and outside), in the order of the plan."""
    return [(task, list(found)) for task, found in groupby(task_gains(study), key=lambda one: one.task)]


def _trust_tables(study: Study, found: Sequence[Trust]) -> list[Table]:
    every = (tables.trust_table(study, found, kind) for kind in ("classification", "regression"))
    return [table for table in every if table is not None]


def _forests(study: Study, compared: Sequence[Comparison]) -> list[tuple[str, Markup]]:
    """(task, figure) at the largest training size."""
    main = [one for one in compared if one.key.size == study.largest(one.key.task)]
    return [(task, figures.forest(list(rows), f"Gains over scratch, {words.task_title(task)}"))
            for task, rows in groupby(main, key=lambda one: one.key.task)]


def _few_shot(study: Study, drawn: Sequence[Curve]) -> Iterator[tuple[str, list[tuple[str, Markup]]]]:
    """(task, [(heading, figure)]) of every backbone and partition, where there is more than one training size."""
    plan = study.benchmark.plan
    for task in study.tasks:
        panels = []
        for backbone in plan.backbones:
            for partition in PARTITIONS:
                some = [curve for curve in drawn if (curve.task, curve.backbone, curve.partition) ==
                        (task.name, backbone, partition)]
                if any(len(curve.points) > 1 for curve in some):
                    heading = f"{backbone}, {partition}"
                    panels.append((heading, figures.few_shot(
                        some, figures.floor_curve(study, task.name, partition), study.metric(task.name), task.unit,
                        f"{words.task_title(task.name)}: {heading}", figures.strokes(plan.upstreams))))
        if panels:
            yield task.name, panels


# --- one row's outputs


def _panels(study: Study, task: str) -> list[Panel]:
    """Floors, then rows."""
    largest = study.largest(task)
    floors = [Panel(f"floor: {tables.floor_title(name).lower()}", _outputs(study, task, parts))
              for (name, size), parts in study.floors[task].items() if size == largest and name == figures.FLOOR_SHOWN]
    rows = [Panel(f"{key.backbone} from {key.upstream}", _outputs(study, task, study.tables[key]))
            for key in study.main_keys(study.keys) if key.task == task]
    return [*rows, *floors]


def _outputs(study: Study, task: str, parts: dict[str, Predictions]) -> tuple[tuple[str, Markup], ...]:
    planned = study.benchmark.plan.task(task)
    if planned.kind == "classification":
        both = Predictions.concatenate(list(parts.values()))
        return ("ROC curve", one_model.roc(both)), ("Calibration", one_model.calibration(both))
    return tuple((f"True and predicted {planned.column}, {partition}",
                  one_model.truth_scatter(thinned(table), partition, planned.column, planned.unit))
                 for partition, table in parts.items())


def thinned(table: Predictions) -> Predictions:
    """At most ``MOST_DOTS`` people, spread evenly over the truth: a figure needs no more."""
    people, first = np.unique(table.subject, return_index=True)
    ordered = people[np.argsort(table.truth[first], kind="stable")]
    kept = ordered[np.unique(np.linspace(0, len(ordered) - 1, min(MOST_DOTS, len(ordered))).astype(int))]
    return table.select(np.isin(table.subject, kept))


# --- provenance and data


def _receipts(study: Study) -> list[tuple[str, str, list[tuple[str, list[tuple[str, str]]]]]]:
    """(row, source, what happened to which weights) of every start; the first finished cell speaks for its row."""
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for key, cells in study.cells.items():
        if cells[0].record.receipt:
            first.setdefault((key.backbone, key.upstream), cells[0].record.receipt)
    return [(f"{upstream} in {backbone}", str(receipt.get("source", "")), receipt_rows(receipt))
            for (backbone, upstream), receipt in first.items()]


def _downloads(study: Study, texts: Mapping[str, str]) -> list[tuple[str, str]]:
    """(file name, data URI): the tables of the page, for machines, and what they were made from."""
    every = {**texts, "cells.csv": _cells_csv(study), "plan.json": json.dumps(study.benchmark.plan.to_json(), indent=1),
             "references.bib": bibtex()}
    return [(name, data_uri(name, text)) for name, text in every.items()]


def _cells_csv(study: Study) -> str:
    header = [*Key._fields, "seed", "mode", "state", "n_train", "learning_rate", "seconds", "error"]
    return csv_text(header, ([
        one.cell.task, one.cell.backbone, one.cell.upstream, one.cell.train_size, one.cell.seed, one.cell.mode,
        one.record.state, one.record.n_train, one.record.learning_rate or "", one.record.seconds,
        one.record.error or ""] for one in study.benchmark.cells))
