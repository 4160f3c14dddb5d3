"""The figures of a benchmark's report, each one function from numbers to inline SVG."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np
from markupsafe import Markup

from headstart.benchmark_report.collect import Key, Study, domain_of
from headstart.benchmark_report.comparisons import Comparison, gain_unit
from headstart.benchmark_report.curves import Curve
from headstart.benchmark_report.tables import gain_digits, signed, signed_interval
from headstart.evaluation.gains import Gain
from headstart.evaluation.metrics import Metric
from headstart.evaluation.predictions import PARTITIONS
from headstart.evaluation.summary import interval, number
from headstart.report.svg import Scale, drawing, element, marker, polyline, x_axis, y_axis

WIDTH = 960
ROW, HEADING = 46, 34
PLOT = (232.0, 640.0)  # where forest plots draw, between labels and numbers
PANEL = (460, 330)
FLOOR_SHOWN = "voxels"
FULL_COLOUR_PERCENT = 20.0
CELL_HEIGHT, LABEL_WIDTH = 30, 330
DASHES = 4  # kinds of lines in the style sheet


# --- forest


def forest(comparisons: Sequence[Comparison], title: str) -> Markup:
    """Gains of every start of one task over scratch, by backbone, inside and outside; zero is scratch."""
    unit = gain_unit(comparisons[0].metric, comparisons[0].unit)
    scale = Scale.around([0.0, *_calm(comparisons)], *PLOT)
    parts, y = [], 8.0
    for backbone, rows in groupby(comparisons, key=lambda one: one.key.backbone):
        parts.append(element("text", backbone, x=12, y=y + 22, class_="label strong"))
        y += HEADING
        for key, both in groupby(rows, key=lambda one: one.key):
            parts.append(_forest_row(key, list(both), scale, y, unit))
            y += ROW
    zero = element("line", x1=scale(0), x2=scale(0), y1=8, y2=y, class_="zero")
    return drawing(WIDTH, int(y + 50), title, x_axis(scale, 8, y, f"gain over scratch ({unit}): right is better"), zero,
                   *parts)


def _calm(comparisons: Sequence[Comparison]) -> list[float]:
    """The ends of intervals; one hopeless interval may not squeeze all others, but what can be told is shown whole."""
    every, told = [], []
    for one in comparisons:
        found = one.gain.absolute
        ends = [end for end in (found.low, found.high, found.value) if end is not None]
        every += ends
        told += [abs(end) for end in ends] if one.verdict != "cannot be told" else []
    if not every:
        return [-1.0, 1.0]
    bound = max([3 * float(np.median(np.abs(every))), *told]) or 1.0
    return [min(max(end, -bound), bound) for end in every]


def _forest_row(key: Key, both: Sequence[Comparison], scale: Scale, top: float, unit: str) -> Markup:
    dagger = " †" if any(one.overlaps for one in both) else ""
    domain, middle = domain_of(key.upstream), top + ROW / 2
    parts = [element("rect", x=14, y=middle - 5, width=10, height=10, rx=2, class_=f"d-{domain}"),
             element("text", element("title", key.upstream), _short(key.upstream) + dagger, x=32, y=middle + 5,
                     class_="label")]
    for one in both:
        offset = (PARTITIONS.index(one.partition) - (len(both) - 1) / 2) * 19 if len(both) > 1 else 0
        parts.append(_gain_mark(one, scale, top + ROW / 2 + offset, unit))
    return Markup("").join(parts)


def _gain_mark(one: Comparison, scale: Scale, y: float, unit: str) -> Markup:
    found, digits = one.gain.absolute, gain_digits(unit)
    if found.value is None:
        return element("text", f"{one.partition}: undefined ({found.reason})", x=660, y=y + 4, class_="value muted")
    told = {"better": "▲", "worse": "▼"}.get(one.verdict, "")
    parts = [element("text", signed(found.value, digits), x=700, y=y + 4, class_=f"value {one.partition}",
                     text_anchor="end"),
             element("text", f"{signed_interval(found, digits)}   {told}", x=712, y=y + 4, class_="value muted"),
             element("text", f"n = {found.n}", x=948, y=y + 4, class_="value muted", text_anchor="end")]
    if found.low is not None and found.high is not None:
        parts.append(element("line", x1=scale.clipped(found.low), x2=scale.clipped(found.high), y1=y, y2=y,
                             class_=f"whisker {one.partition}"))
        parts += [_goes_on(scale(scale.high), y, 7, one.partition)] if found.high > scale.high else []
        parts += [_goes_on(scale(scale.low), y, -7, one.partition)] if found.low < scale.low else []
    tip = _tip(one.key, one.gain, unit)
    return Markup("").join([*parts, marker(scale.clipped(found.value), y, one.partition, tip)])


def _goes_on(x: float, y: float, length: float, partition: str) -> Markup:
    """An arrow's head where an interval leaves the figure."""
    return element("path", d=f"M{x - length:.1f} {y - 4.5:.1f}L{x:.1f} {y:.1f}L{x - length:.1f} {y + 4.5:.1f}",
                   class_=f"whisker arrow {partition}")


def _tip(key: Key, gain: Gain, unit: str) -> str:
    digits = gain_digits(unit)
    return (f"{key.upstream} in {key.backbone}: {signed(gain.absolute.value, digits)} {unit} "
            f"({signed_interval(gain.absolute, digits)}), {gain.seeds} seeds")


def _short(name: str, longest: int = 27) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


# --- few-shot curves


def strokes(upstreams: Sequence[str]) -> dict[str, str]:
    """How each start's line is drawn: the colour of what it was trained on, and dashes of its own among those."""
    taken: Counter[str] = Counter()
    found = {}
    for upstream in upstreams:
        domain = domain_of(upstream)
        found[upstream] = f"d-{domain} dash{taken[domain] % DASHES}"
        taken[domain] += 1
    return found


def few_shot(curves: Sequence[Curve], floor: Sequence[tuple[int, float]], metric: Metric, unit: str,
             title: str, drawn: Mapping[str, str]) -> Markup:
    """Score by training size, one line and band a start (same task, backbone and partition).

    Args:
        floor: (training size, score) of a floor.
        drawn: see ``strokes``.
    """
    width, height = PANEL
    sizes = sorted({point.n_train for curve in curves for point in curve.points})
    values = [end for curve in curves for point in curve.points
              for end in (point.score.low, point.score.high, point.score.value) if end is not None]
    across = Scale.around([float(np.log(size)) for size in sizes], 62, width - 14, margin=0.08)
    up = Scale.around([*values, *(value for _, value in floor)], height - 52, 12)
    label = metric.label + (f" ({unit})" if metric.in_units and unit else "")
    parts = [_band(curve, across, up) for curve in curves]
    parts += [polyline([(across(float(np.log(size))), up(value)) for size, value in floor], "curve floor")]
    parts += [_line(curve, across, up, metric, drawn[curve.upstream]) for curve in curves]
    return drawing(width, height, title, _size_axis(across, sizes, height - 52),
                   y_axis(up, 62, width - 14, f"{label}, {metric.better} is better"), *parts)


def _size_axis(across: Scale, sizes: Sequence[int], bottom: float) -> Markup:
    marks = [element("line", x1=across(x), x2=across(x), y1=12, y2=bottom, class_="grid")
             for x in (float(np.log(size)) for size in sizes)]
    marks += [element("text", str(size), x=across(float(np.log(size))), y=bottom + 16, class_="tick",
                      text_anchor="middle") for size in sizes]
    middle = (across.start + across.end) / 2
    return Markup("").join([*marks, element("text", "labelled scans", x=middle, y=bottom + 36, class_="axis",
                                            text_anchor="middle")])


def _band(curve: Curve, across: Scale, up: Scale) -> Markup:
    known = [(across(float(np.log(point.n_train))), point.score) for point in curve.points
             if point.score.low is not None]
    corners = [(x, up.clipped(score.low or 0.0)) for x, score in known]
    corners += [(x, up.clipped(score.high or 0.0)) for x, score in reversed(known)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    return element("polygon", points=points, class_=f"shade d-{domain_of(curve.upstream)}")


def _line(curve: Curve, across: Scale, up: Scale, metric: Metric, style: str) -> Markup:
    points = [(across(float(np.log(point.n_train))), up(point.score.value or 0.0)) for point in curve.points]
    dots = [element("circle", element("title", f"{curve.upstream}, {point.n_train} scans: "
                                      f"{number(point.score.value, metric)} ({interval(point.score, metric)})"),
                    cx=x, cy=y, r=4.0, class_=f"dot {style}")
            for (x, y), point in zip(points, curve.points, strict=True)]
    return Markup("").join([polyline(points, f"curve {style}"), *dots])


def floor_curve(study: Study, task: str, partition: str) -> list[tuple[int, float]]:
    """(training size, score) of the linear floor on voxels; empty where it was not run."""
    found = []
    for size in study.sizes(task):
        table = study.floors[task].get((FLOOR_SHOWN, size), {}).get(partition)
        alike = next((key for key in study.keys if (key.task, key.size) == (task, size)), None)
        if table is not None and alike is not None:
            value = study.score(table, partition, study.metric(task)).value
            found += [] if value is None else [(study.n_train(alike), value)]
    return found


# --- the matrix


def heat_map(study: Study, comparisons: Sequence[Comparison], title: str) -> Markup:
    """Relative gains: rows are starts by backbone, columns tasks, partitions and training sizes."""
    columns = [(task.name, partition, size) for task in study.tasks for partition in PARTITIONS
               for size in study.sizes(task.name)
               if any((one.key.task, one.partition, one.key.size) == (task.name, partition, size)
                      for one in comparisons)]
    rows = list(dict.fromkeys((one.key.backbone, one.key.upstream) for one in comparisons))
    found = {(one.key.backbone, one.key.upstream, one.key.task, one.partition, one.key.size): one
             for one in comparisons}
    wide = min((WIDTH - LABEL_WIDTH) / max(len(columns), 1), 110.0)
    parts = list(_heat_head(columns, wide))
    for y, row in enumerate(rows):
        top = 66 + y * CELL_HEIGHT
        parts.append(element("text", _short(f"{row[0]} · {row[1]}", 50), x=LABEL_WIDTH - 12, y=top + 20, class_="tick",
                             text_anchor="end"))
        parts += [_heat_cell(found[row + column], LABEL_WIDTH + x * wide, top, wide)
                  for x, column in enumerate(columns) if row + column in found]
    return drawing(WIDTH, 66 + len(rows) * CELL_HEIGHT + 8, title, *parts)


def _heat_head(columns: Sequence[tuple], wide: float) -> Iterator[Markup]:
    """Three lines: task, partition, training size."""
    for level, y, style in ((1, 16, "label strong"), (2, 36, "tick"), (3, 56, "tick")):
        start = 0
        for name, group in groupby(columns, key=lambda column: column[:level]):
            count = len(list(group))
            middle = LABEL_WIDTH + (start + count / 2) * wide
            yield element("text", "all" if name[-1] == "full" else str(name[-1]), x=middle, y=y, class_=style,
                          text_anchor="middle")
            start += count


def _heat_cell(one: Comparison, x: float, y: float, wide: float) -> Markup:
    percent = one.gain.relative.value
    if percent is None:
        return element("text", "–", x=x + wide / 2, y=y + 20, class_="tick", text_anchor="middle")
    strength = min(abs(percent) / FULL_COLOUR_PERCENT, 1.0)
    told = one.verdict != "cannot be told"
    tip = (f"{one.key.upstream} in {one.key.backbone}, {one.key.task} {one.partition}, {one.n_train} scans: "
           f"{signed(percent)} % ({signed_interval(one.gain.relative)}), {one.verdict}")
    return Markup("").join([
        element("rect", element("title", tip), x=x + 1, y=y + 1, width=wide - 2, height=CELL_HEIGHT - 2.0, rx=4,
                fill_opacity=round(0.06 + 0.6 * strength, 2), class_=f"heat {'gain' if percent >= 0 else 'loss'}"
                + (" told" if told else "")),
        element("text", signed(percent, 0), x=x + wide / 2, y=y + 20, class_="value strong" if told else "value",
                text_anchor="middle")])
