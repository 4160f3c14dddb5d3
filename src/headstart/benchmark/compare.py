"""Two benchmarks side by side: the scores of the rows that both have, and their paired difference."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from headstart.benchmark.plan import TrainSize
from headstart.benchmark.results import CellResult, read
from headstart.errors import HeadstartError
from headstart.evaluation.metrics import METRICS, PRIMARY, Metric
from headstart.evaluation.predictions import PARTITIONS, Predictions
from headstart.evaluation.statistics import Bootstrap, Estimate

Group = tuple[str, str, str, TrainSize]  # task, backbone, upstream, training size
COLUMNS = ("test", "score", "A", "B", "B - A", "seeds", "people")


@dataclass(frozen=True)
class Difference:
    """A row of both benchmarks in one partition.

    Attributes:
        a, b: mean over the seeds that both have.
        difference: b − a with its interval; without one where they were not tested on the same people.
    """

    group: Group
    partition: str
    metric: Metric
    seeds: int
    a: Estimate
    b: Estimate
    difference: Estimate


def compare(a: Path, b: Path) -> list[Difference]:
    """Every score that two benchmarks share.

    Raises:
        HeadstartError: they share none.
    """
    ours, theirs = _groups(a), _groups(b)
    found = [difference for group in ours if group in theirs for partition in PARTITIONS
             for difference in _compared(group, partition, ours[group], theirs[group])]
    if not found:
        raise HeadstartError("the benchmarks have no finished row in common", path=b,
                             fix="They need the same task, backbone, upstream, training size and seed.")
    return found


def _groups(folder: Path) -> dict[Group, dict[int, CellResult]]:
    groups: dict[Group, dict[int, CellResult]] = defaultdict(dict)
    for result in read(folder).done:
        cell = result.cell
        groups[cell.task, cell.backbone, cell.upstream, cell.train_size][cell.seed] = result
    return groups


def _compared(group: Group, partition: str, a: dict[int, CellResult], b: dict[int, CellResult]) -> list[Difference]:
    """One difference, or none where nothing was tested in this partition."""
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        return []
    ours, theirs = (Predictions.concatenate([cells[seed].predictions for seed in seeds]).part(partition)
                    for cells in (a, b))
    if not len(ours) or not len(theirs):
        return []
    bootstrap, metric = Bootstrap(), METRICS[PRIMARY[ours.kind]]
    return [Difference(group, partition, metric, len(seeds), bootstrap.estimate(ours, metric),
                       bootstrap.estimate(theirs, metric), _difference(bootstrap, ours, theirs, metric))]


def _difference(bootstrap: Bootstrap, a: Predictions, b: Predictions, metric: Metric) -> Estimate:
    try:
        return bootstrap.compare(b, a, metric).difference
    except HeadstartError as error:
        return Estimate(None, None, None, 0, error.problem)


def compare_table(differences: list[Difference], name_a: str, name_b: str) -> Table:
    """For a terminal of 80 columns, where names are folded; an interval without zero is marked."""
    table = Table(Column("row", overflow="fold"), *(Column(name, no_wrap=True) for name in COLUMNS), box=SIMPLE_HEAD,
                  show_edge=False, pad_edge=False, padding=0, title_justify="left", caption_justify="left",
                  title=f"A: {name_a}, B: {name_b}; mean over seeds, B - A with its 95 % interval",
                  caption=f"* the interval leaves out zero{_errors(differences)}")
    for one in differences:
        task, backbone, upstream, size = one.group
        table.add_row(f"{task}, {backbone} from {upstream}, {size}", one.partition, one.metric.name,
                      _text(one.a.value), _text(one.b.value), _interval(one.difference), str(one.seeds),
                      str(one.difference.n or one.b.n))
    return table


def _errors(differences: list[Difference]) -> str:
    names = sorted({one.metric.name for one in differences if one.metric.better == "lower"})
    return f"; of errors ({', '.join(names)}) a negative B - A means that B is better" if names else ""


def _interval(difference: Estimate) -> str:
    if difference.low is None or difference.high is None:
        return _text(difference.value) if difference.value is not None else "other people"
    mark = " *" if difference.low > 0 or difference.high < 0 else ""
    return f"{difference.value:+.3g}\n({difference.low:+.3g} to {difference.high:+.3g}){mark}"


def _text(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
