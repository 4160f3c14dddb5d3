"""The figures of a report, each one function from numbers to inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from headstart.evaluation.metrics import Metric
from headstart.evaluation.predictions import PARTITIONS, Predictions
from headstart.evaluation.statistics import Estimate
from headstart.evaluation.summary import interval, number
from headstart.report.svg import Scale, drawing, element, marker, polyline, x_axis, y_axis

WIDTH = 960
SQUARE = 460
LINE_HEIGHT = 22
CALIBRATION_BINS = 10
LONGEST_LABEL = 28


@dataclass(frozen=True)
class ForestRow:
    """A label and its estimates by partition; ``strong`` sets the row of the model apart."""

    label: str
    estimates: Mapping[str, Estimate]
    strong: bool = False


def forest(rows: Sequence[ForestRow], metric: Metric, unit: str, title: str) -> Markup:
    """Estimates with intervals, one row each; dashed lines carry the strong row's values down the page."""
    known = [e for row in rows for e in row.estimates.values() if e.value is not None]
    ends = [end for e in known for end in (e.value, e.low, e.high) if end is not None]
    scale = Scale.around(ends, 215, 640)
    parts, y = [], 12.0
    for row in rows:
        height = LINE_HEIGHT * max(len(row.estimates), 1) + 12
        parts.append(_forest_row(row, metric, scale, y, height))
        y += height
    label = metric.label + (f" ({unit})" if unit and metric.in_units else "")
    arrow = f"{label}: {metric.better} is better"
    guides = [_guide(row, scale, y) for row in rows if row.strong]
    return drawing(WIDTH, int(y + 48), title, x_axis(scale, 12, y, arrow), *guides, *parts)


def _guide(row: ForestRow, scale: Scale, bottom: float) -> Markup:
    lines = [element("line", x1=scale(e.value), x2=scale(e.value), y1=12, y2=bottom, class_=f"guide {partition}")
             for partition, e in row.estimates.items() if e.value is not None]
    return Markup("").join(lines)


def _forest_row(row: ForestRow, metric: Metric, scale: Scale, top: float, height: float) -> Markup:
    weight = "label strong" if row.strong else "label"
    parts = [element("rect", x=0, y=top, width=WIDTH, height=height, rx=6, class_="band")] if row.strong else []
    label = row.label if len(row.label) <= LONGEST_LABEL else row.label[: LONGEST_LABEL - 1] + "…"
    parts.append(element("text", element("title", row.label), label, x=12, y=top + height / 2 + 5, class_=weight))
    for position, (partition, estimate) in enumerate(row.estimates.items()):
        y = top + 6 + LINE_HEIGHT * (position + 0.5)
        parts.append(_whisker(estimate, partition, metric, scale, y))
    return Markup("").join(parts)


def _whisker(estimate: Estimate, partition: str, metric: Metric, scale: Scale, y: float) -> Markup:
    if estimate.value is None:
        return element("text", f"{partition}: undefined ({estimate.reason})", x=660, y=y + 4, class_="value muted")
    between = interval(estimate, metric)
    parts = [element("text", number(estimate.value, metric), x=696, y=y + 4, class_=f"value {partition}",
                     text_anchor="end"),
             element("text", f"{between}   n = {estimate.n} {partition}", x=708, y=y + 4, class_="value muted")]
    if estimate.low is not None and estimate.high is not None:
        parts.append(element("line", x1=scale(estimate.low), x2=scale(estimate.high), y1=y, y2=y,
                             class_=f"whisker {partition}"))
    tip = f"{partition}: {number(estimate.value, metric)} ({between}), n = {estimate.n}"
    return Markup("").join([*parts, marker(scale(estimate.value), y, partition, tip)])


def truth_scatter(predictions: Predictions, partition: str, column: str, unit: str) -> Markup:
    """Truth against the prediction, averaged over seeds; on the line a prediction is right."""
    table = predictions.seed_mean()
    both = np.concatenate([table.truth, table.prediction])
    across, up = Scale.around(both, 62, SQUARE - 12), Scale.around(both, SQUARE - 52, 12)
    part = table.part(partition)
    dots = [marker(across(t), up(p), partition, f"{key}: {column} {t:.4g}, predicted {p:.4g} {unit}", 4.5)
            for key, t, p in zip(part.keys, part.truth, part.prediction, strict=True)]
    diagonal = element("line", x1=across(across.low), x2=across(across.high), y1=up(up.low), y2=up(up.high),
                       class_="identity")
    name = f"{column} ({unit})" if unit else column
    return drawing(SQUARE, SQUARE, f"Predicted against true {column}, {partition}",
                   x_axis(across, 12, SQUARE - 52, f"true {name}"),
                   y_axis(up, 62, SQUARE - 12, f"predicted {name}"), diagonal, *dots)


def roc(predictions: Predictions) -> Markup:
    """ROC curves of probabilities averaged over seeds, one a partition (and class, with more than two)."""
    across, up = Scale(0, 1, 62, SQUARE - 12), Scale(0, 1, SQUARE - 52, 12)
    lines = [polyline(((across(x), up(y)) for x, y in _roc_points(positive, score)), f"curve {partition}")
             for partition, _, positive, score in one_vs_rest(predictions) if 0 < positive.sum() < len(positive)]
    chance = element("line", x1=across(0), x2=across(1), y1=up(0), y2=up(1), class_="identity")
    return drawing(SQUARE, SQUARE, "ROC curve", x_axis(across, 12, SQUARE - 52, "1 − specificity"),
                   y_axis(up, 62, SQUARE - 12, "sensitivity"), chance, *lines)


def one_vs_rest(predictions: Predictions) -> list[tuple[str, str, np.ndarray, np.ndarray]]:
    """(partition, class, positive (n,), probability (n,)) averaged over seeds; of two classes only the positive one."""
    table = predictions.seed_mean()
    wanted = range(1, 2) if len(table.classes) == 2 else range(len(table.classes))
    parts = [(partition, table.part(partition)) for partition in PARTITIONS]
    return [(partition, part.classes[c], part.truth == c, np.asarray(part.probabilities)[:, c])
            for partition, part in parts if len(part) for c in wanted]


def _roc_points(positive: np.ndarray, score: np.ndarray) -> list[tuple[float, float]]:
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits, calls = np.cumsum(positive[order])[last_of_tie], last_of_tie + 1
    false = (calls - hits) / (~positive).sum()
    return [(0.0, 0.0), *zip(false.tolist(), (hits / positive.sum()).tolist(), strict=True)]


def calibration(predictions: Predictions) -> Markup:
    """Observed frequency against mean probability, by bins of equal counts; a larger mark holds more scans."""
    across, up = Scale(0, 1, 62, SQUARE - 12), Scale(0, 1, SQUARE - 52, 12)
    parts = [element("line", x1=across(0), x2=across(1), y1=up(0), y2=up(1), class_="identity")]
    for partition, _, positive, score in one_vs_rest(predictions):
        bins = np.array_split(np.argsort(score, kind="stable"), min(CALIBRATION_BINS, max(len(score) // 8, 1)))
        points = [(float(score[rows].mean()), float(positive[rows].mean()), len(rows)) for rows in bins]
        parts.append(polyline(((across(x), up(y)) for x, y, _ in points), f"curve thin {partition}"))
        parts += [marker(across(x), up(y), partition, f"{n} scans: said {x:.2f}, was {y:.2f}", 4 + min(n, 40) / 20)
                  for x, y, n in points]
    return drawing(SQUARE, SQUARE, "Calibration", x_axis(across, 12, SQUARE - 52, "predicted probability"),
                   y_axis(up, 62, SQUARE - 12, "observed frequency"), *parts)


def learning_curves(histories: Sequence[Mapping[str, Any]]) -> Markup:
    """Loss by epoch: one faint line a run, training and validation; a mark where each run was stopped."""
    runs = [history["epochs"] for history in histories if history.get("epochs")]
    losses = {name: [[epoch[name] for epoch in run if epoch.get(name) is not None] for run in runs]
              for name in ("train_loss", "validation_loss")}
    every = [value for curves in losses.values() for curve in curves for value in curve]
    if not every:
        return Markup("")
    across = Scale(1, max(max(len(run) for run in runs), 2), 70, WIDTH - 20)
    up = Scale(min(0.0, min(every)), float(np.quantile(every, 0.995)) * 1.05 or 1.0, 290, 12)
    lines = [polyline(((across(i), up.clipped(value)) for i, value in enumerate(curve, 1)), f"run {name}")
             for name, curves in losses.items() for curve in curves if curve]
    return drawing(WIDTH, 340, "Learning curves", x_axis(across, 12, 290, "epoch"),
                   y_axis(up, 70, WIDTH - 20, "loss"), *lines, *_best_marks(histories, across, up))


def _best_marks(histories: Sequence[Mapping[str, Any]], across: Scale, up: Scale) -> list[Markup]:
    best = [(history["best_epoch"], history["epochs"]) for history in histories if history.get("epochs")]
    return [element("circle", cx=across(at + 1), cy=up.clipped(run[at]["validation_loss"]), r=3, class_="best")
            for at, run in best if run[at].get("validation_loss") is not None]
