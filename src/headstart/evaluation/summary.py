"""A result in the terminal: one table, and what may be concluded from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.evaluation.metrics import METRICS, PRIMARY, Metric, metrics_for
from headstart.evaluation.results import FEWEST_SEEDS, Comparison, Result
from headstart.evaluation.statistics import LEVEL, Estimate

if TYPE_CHECKING:
    from rich.table import Table

ALPHA = round(1 - LEVEL, 3)


def model_name(result: Result) -> str:
    """The model in a few words, e.g. ``vit-mini from synthetic-mri`` or ``vit-small from dinov2-small (probe)``."""
    backbone, upstream = result.experiment.get("backbone", "model"), result.experiment.get("upstream")
    mode = result.experiment.get("plan", {}).get("mode", "full")
    name = f"{backbone} from {upstream}" if upstream else str(backbone)
    return name if mode == "full" else f"{name} ({mode})"


def verdict(comparison: Comparison) -> str:
    """``better``, ``worse`` or ``cannot be told``: adjusted for many comparisons, and never from fewer than 3 seeds."""
    value = comparison.difference.value
    if comparison.p_holm is None or comparison.p_holm >= ALPHA or comparison.seeds < FEWEST_SEEDS or not value:
        return "cannot be told"
    return "better" if (value > 0) == (METRICS[comparison.metric].better == "higher") else "worse"


def number(value: float | None, metric: Metric) -> str:
    """Two decimals, or four digits of a large quantity; a dash where undefined. The minus is a minus."""
    if value is None:
        return "–"
    text = f"{value:.4g}" if metric.in_units and abs(value) >= 100 else f"{value:.2f}"
    return text.replace("-", "−") if float(text) else "0.00"


def interval(estimate: Estimate, metric: Metric) -> str:
    """The interval, e.g. ``4.10 to 6.32``; empty where there is none."""
    if estimate.low is None:
        return ""
    return f"{number(estimate.low, metric)} to {number(estimate.high, metric)}"


def summary_table(result: Result) -> Table:
    """Model and floors, inside and outside: value, interval and subjects of the main metrics."""
    from rich.table import Table

    metrics = _shown(result)
    partitions = [name for name in ("inside", "outside") if getattr(result, name)]
    table = Table(title=_title(result), caption=_caption(result), caption_justify="left", title_justify="left")
    table.add_column("", min_width=12)
    for partition in partitions:
        for metric in metrics:
            table.add_column(f"{partition}\n{metric.label}", justify="right", min_width=11)
    rows = [(model_name(result), result, "bold"), *((floor.title, floor, "") for floor in result.floors.values())]
    for name, scores, style in rows:
        cells = [_cell(getattr(scores, partition).get(metric.name), metric)
                 for partition in partitions for metric in metrics]
        table.add_row(name, *cells, style=style)
    return table


def _shown(result: Result) -> list[Metric]:
    second = {"regression": "r_within_site", "classification": "balanced_accuracy"}[result.task.kind]
    wanted = (PRIMARY[result.task.kind], second)
    return [metric for metric in metrics_for(result.task.kind) if metric.name in wanted]


def _cell(estimate: Estimate | None, metric: Metric) -> str:
    if estimate is None:
        return "–"
    between = interval(estimate, metric).replace(" to ", "–")
    return number(estimate.value, metric) + (f"\n{between}" if between else "")  # two lines: 80 columns must do


def _title(result: Result) -> str:
    cohort = "SIMULATED brains" if result.simulated else "real brains"
    unit = f" ({result.task.unit})" if result.task.unit else ""
    return f"{result.task.name}{unit} on {cohort}"


def _caption(result: Result) -> str:
    counts = [f"n = {next(iter(getattr(result, name).values())).n} subjects {name}" for name in ("inside", "outside")
              if getattr(result, name)]
    lines = [f"95 % intervals; {', '.join(counts)}; {len(result.seeds)} seeds."]
    lines += [_line(result, partition) for partition in ("inside", "outside")
              if any(comparison.partition == partition for comparison in result.comparisons)]
    return "\n".join(lines)


def _line(result: Result, partition: str) -> str:
    grouped: dict[str, list[str]] = {}
    for comparison in result.comparisons:
        if comparison.partition == partition:
            grouped.setdefault(verdict(comparison), []).append(result.floors[comparison.floor].title.lower())
    words = {"better": "better than", "worse": "worse than", "cannot be told": "cannot be told from"}
    clauses = [f"{words[name]} {', '.join(grouped[name])}" for name in words if name in grouped]
    return f"{partition}: {'; '.join(clauses)}."
