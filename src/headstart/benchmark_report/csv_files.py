"""The tables for machines: full precision, one fact a column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from headstart.benchmark_report.claims import Finding
from headstart.benchmark_report.collect import Key, Study, domain_of
from headstart.benchmark_report.comparisons import Comparison, gain_unit
from headstart.benchmark_report.curves import Saved
from headstart.benchmark_report.groups import Gap, GroupGain, Trust
from headstart.benchmark_report.pooled import PooledGain
from headstart.benchmark_report.tables import cohort
from headstart.evaluation.predictions import PARTITIONS
from headstart.evaluation.statistics import Estimate
from headstart.report.page import csv_text

ROW = ("task", "backbone", "upstream", "trained_on", "train_size")


def comparisons_csv(comparisons: Sequence[Comparison]) -> str:
    """Every comparison with scratch."""
    header = [*ROW, "cohort", "n_train", "partition", "metric", "people", "seeds", *_names("scratch"), *_names("start"),
              "best_floor", *_names("floor"), *_names("gain"), "gain_unit", *_names("gain_percent"), "p", "p_holm",
              "p_delong", "verdict", "overlaps"]
    return csv_text(header, ([
        *_row(one.key), cohort(one.simulated), one.n_train, one.partition, one.metric.name, one.gain.absolute.n,
        one.gain.seeds, *_numbers(one.scratch), *_numbers(one.start), *_floor(one.floor), *_numbers(one.gain.absolute),
        gain_unit(one.metric, one.unit), *_numbers(one.gain.relative), *map(_number, (
            one.gain.p, one.p_holm, one.gain.p_delong)), one.verdict, "; ".join(one.overlaps)] for one in comparisons))


def claims_csv(findings: Sequence[Finding]) -> str:
    """Every claim."""
    header = ["claim", "words", "paper", "cohort", "partition", "tasks", "starts", "seeds", "people", *_names("gain"),
              "gain_unit", *_names("gain_percent"), "p", "p_holm", "verdict", "remark"]
    return csv_text(header, ([
        one.claim.name, one.claim.text, one.claim.figure, cohort(one.simulated), one.claim.partition,
        "; ".join(one.tasks), one.starts, one.seeds, one.gain.n, *_numbers(one.gain), one.unit, *_numbers(one.percent),
        _number(one.p), _number(one.p_holm), one.verdict, one.remark] for one in findings))


def scores_csv(study: Study) -> str:
    """The primary score of every row and floor."""
    header = [*ROW, "cohort", "n_train", "partition", "metric", "people", *_names("score")]
    return csv_text(header, _score_rows(study))


def _score_rows(study: Study) -> Iterator[list[Any]]:
    for key in study.keys:
        for partition, table in study.tables[key].items():
            metric = study.metric(key.task)
            found = study.score(table, partition, metric)
            yield [*_row(key), cohort(study.task(key).simulated), study.n_train(key), partition, metric.name, found.n,
                   *_numbers(found)]
    for task, floors in study.floors.items():
        metric, simulated = study.metric(task), study.benchmark.plan.task(task).simulated
        for (name, size), tables in floors.items():
            for partition, table in tables.items():
                found = study.score(table, partition, metric)
                yield [task, "floor", name, "", size, cohort(simulated), "", partition, metric.name, found.n,
                       *_numbers(found)]


def saved_csv(saved: Sequence[Saved]) -> str:
    """Scans that scratch would need; ``beyond`` and ``below`` say which of value, low and high end its curve."""
    header = [*ROW, "partition", "scans", "needs", "needs_low", "needs_high", "beyond", "below", "told"]
    return csv_text(header, ([
        *_row(one.key), one.partition, one.worth.scans, *map(_number, (one.worth.value, one.worth.low, one.worth.high)),
        _which(one.worth.at_least), _which(one.worth.at_most), "yes" if one.worth.told else "no"] for one in saved))


def groups_csv(study: Study, groups: Sequence[GroupGain]) -> str:
    """Gains by site, sex and age band."""
    header = [*ROW, "cohort", "partition", "by", "group", "people", "seeds", "metric", *_names("scratch"),
              *_names("score"), "best_floor", *_names("floor"), *_names("gain"), "gain_unit"]
    return csv_text(header, ([
        *_row(one.key), cohort(study.task(one.key).simulated), one.partition, one.grouping, one.group,
        one.gain.absolute.n, one.gain.seeds, study.metric(one.key.task).name, *_numbers(one.scratch),
        *_numbers(one.score), *_floor(one.floor), *_numbers(one.gain.absolute), _unit(study, one.key)]
        for one in groups))


def gaps_csv(study: Study, gaps: Sequence[Gap]) -> str:
    """What is lost at other sites; p is of the narrowing, unadjusted."""
    header = [*ROW, "metric", *_names("loss"), *_names("narrowed"), "unit", "people", "p"]
    nothing = Estimate(None, None, None, 0)
    return csv_text(header, ([
        *_row(one.key), study.metric(one.key.task).name, *_numbers(one.loss), *_numbers(one.narrowed or nothing),
        _unit(study, one.key), one.loss.n, _number(one.p)] for one in gaps))


def trust_csv(found: Sequence[Trust]) -> str:
    """Calibration of probabilities; errors and correlations of ages, as they are and bias-corrected."""
    header = [*ROW, "partition", "metric", "corrected", "people", *_names("score")]
    return csv_text(header, (
        [*_row(one.key), partition, metric, corrected, score.n, *_numbers(score)]
        for one in found for partition, metric, corrected, score in _trusted(one)))


def _trusted(one: Trust) -> Iterator[tuple[str, str, str, Estimate]]:
    for (partition, metric), score in one.scores.items():
        yield partition, metric, "no", score
    for partition in PARTITIONS if one.corrected else ():
        for metric in ("mae", "r"):
            yield partition, metric, "yes", getattr(one.corrected, partition)[metric]


def starts_csv(study: Study) -> str:
    """What each start is."""
    return csv_text(["upstream", "backbone", "trained_on", "mode", "weights"], (
        [row.upstream, row.backbone, domain_of(row.upstream), row.mode, row.weights]
        for row in study.benchmark.plan.rows))


def _unit(study: Study, key: Key) -> str:
    return gain_unit(study.metric(key.task), study.benchmark.plan.task(key.task).unit)


def pooled_csv(pooled: Sequence[PooledGain]) -> str:
    """Everyone tested outside over several tasks: one line in all, and one for each site."""
    header = ["task", "tasks", "backbone", "upstream", "train_size", "against", "metric", "site", "people", "seeds",
              *_names("gain"), "gain_unit", "p", "p_holm"]
    return csv_text(header, (line for one in pooled for line in _pooled_rows(one)))


def _pooled_rows(one: PooledGain) -> Iterator[list[Any]]:
    start = [one.pool.name, "; ".join(task.name for task in one.pool.tasks), one.backbone, one.upstream, one.pool.size,
             one.other, one.metric.name]
    for site, found in {"all": one.gain.absolute, **one.by_site}.items():
        p_values = map(_number, (one.gain.p, one.p_holm) if site == "all" else (None, None))
        yield [*start, site, found.n, one.gain.seeds, *_numbers(found), one.unit, *p_values]


def _row(key: Any) -> list[Any]:
    return [key.task, key.backbone, key.upstream, domain_of(key.upstream), key.size]


def _names(name: str) -> tuple[str, str, str]:
    return name, f"{name}_low", f"{name}_high"


def _numbers(estimate: Estimate) -> list[str]:
    return [_number(value) for value in (estimate.value, estimate.low, estimate.high)]


def _floor(floor: tuple[str, Estimate] | None) -> list[str]:
    """Its title and score."""
    return ["", "", "", ""] if floor is None else [floor[0], *_numbers(floor[1])]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _which(ends: Sequence[bool]) -> str:
    return " ".join(name for name, end in zip(("value", "low", "high"), ends, strict=True) if end)
