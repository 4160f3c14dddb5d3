"""Example brains, and what the best start and scratch look at in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from headstart.benchmark.plan import SCRATCH, PlannedTask
from headstart.benchmark.saliency import FILE, Saliency, read_saliency
from headstart.benchmark_report.collect import Key, Study, is_head_start
from headstart.brains.cohort import ScanKey
from headstart.evaluation.predictions import Predictions
from headstart.report.viewer import View


@dataclass(frozen=True)
class Example:
    """A brain to look at: who it is, what each shown model said of it, its slices and maps."""

    title: str
    said: str
    view: View


def example_brains(study: Study) -> dict[str, list[Example]]:
    """By task; tasks whose cells kept nothing are missing."""
    kept = {key: looks for key in study.main_keys(study.keys) if (looks := _saliency(study, key)) is not None}
    found = {task.name: list(_examples(study, {key: kept[key] for key in _shown(study, kept, task.name)}))
             for task in study.tasks}
    return {task: examples for task, examples in found.items() if examples}


def _shown(study: Study, kept: Mapping[Key, Saliency], task: str) -> list[Key]:
    """The start of the best score, at other sites where any are held out, and scratch of the same backbone."""
    keys = [key for key in kept if key.task == task]
    starts = [key for key in keys if is_head_start(key.upstream)] or keys
    if not starts:
        return []
    best = max(starts, key=lambda key: _goodness(study, key))
    return [key for key in keys if key in (best, best.scratch)][::-1 if best.upstream != SCRATCH else 1]


def _goodness(study: Study, key: Key) -> float:
    partition, metric = list(study.tables[key])[-1], study.metric(key.task)
    value = study.score(study.tables[key][partition], partition, metric).value
    return -np.inf if value is None else value if metric.better == "higher" else -value


def _saliency(study: Study, key: Key) -> Saliency | None:
    """What a row's cell of the first seed kept."""
    first = study.benchmark.plan.seeds[0]
    return next((found for result in study.cells[key] if result.cell.seed == first
                 and (found := read_saliency(result.folder / FILE)) is not None), None)


def _examples(study: Study, kept: Mapping[Key, Saliency]) -> Iterator[Example]:
    for place, scan in enumerate(next(iter(kept.values())).keys if kept else ()):
        maps = {_name(key): found.maps[place].astype(np.float32) for key, found in kept.items()}
        rows = {key: _row(study, key, scan) for key in kept}
        key, known = next(iter(rows.items()))
        yield Example(f"{_truth(known, study.task(key))}, {scan.participant_id} of {known.site[0]}",
                      "; ".join(f"{_name(key)} says {_output(row, study.task(key))}" for key, row in rows.items()),
                      View.of(kept[key].brains[place].astype(np.float32), maps))


def _row(study: Study, key: Key, scan: ScanKey) -> Predictions:
    """What the row's model of the first seed said of a scan, one row."""
    table = next(table for table in study.tables[key].values() if scan in table.keys)
    same = np.array([one == scan for one in table.keys])
    return table.select(same & (table.seed == study.benchmark.plan.seeds[0]))


def _name(key: Key) -> str:
    return f"{key.backbone} from {key.upstream}"


def _truth(row: Predictions, task: PlannedTask) -> str:
    return task.classes[int(row.truth[0])] if task.classes else f"{row.truth[0]:.0f} {task.unit}".strip()


def _output(row: Predictions, task: PlannedTask) -> str:
    if row.probabilities is None:
        return f"{row.prediction[0]:.0f} {task.unit}".strip()
    return f"{row.probabilities[0, -1]:.2f} for {task.classes[-1]}"
