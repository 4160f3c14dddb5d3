"""The typed, versioned schema of ``result.json``, and how a result is put together from predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from headstart.brains.cohort import Scan
from headstart.errors import HeadstartError
from headstart.evaluation.bias import BiasCorrected, correct_bias
from headstart.evaluation.cohort_table import CohortRow, cohort_table, subgroups
from headstart.evaluation.floors import FLOORS
from headstart.evaluation.metrics import METRICS, PRIMARY, Kind, metrics_for
from headstart.evaluation.predictions import PARTITIONS, Predictions
from headstart.evaluation.statistics import Bootstrap, Estimate, holm
from headstart.evaluation.statistics import score as score_table
from headstart.files import read_json, write_json

SCHEMA_VERSION = 1
FEWEST_SEEDS = 3
SMALL = 30  # subjects
Scores = dict[str, Estimate]


class Record(BaseModel):
    """An immutable part of a result; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)


class TaskRecord(Record):
    """What was predicted."""

    name: str = Field(description="what users say, e.g. `brain-age`")
    kind: Kind
    column: str = Field(description="column of `participants.tsv` that holds the truth")
    classes: tuple[str, ...] = Field(default=(), description="labels in order; of two, the last is the positive one")
    unit: str = Field(default="", description="of a regression, e.g. `years`")
    rest: bool = Field(default=False, description="the first class stands for every other value")


class FloorResult(Record):
    """A simple predictor on the same folds."""

    title: str
    description: str
    inside: Scores = Field(default={}, description="by metric")
    outside: Scores = Field(default={}, description="by metric")


class Comparison(Record):
    """Model minus floor on the same subjects and seeds, in the task's primary metric."""

    floor: str
    partition: Literal["inside", "outside"]
    metric: str
    difference: Estimate = Field(description="model − floor, interval over subjects (bootstrap) and seeds, crossed")
    p: float | None = Field(description="of no difference, from that bootstrap")
    p_holm: float | None = Field(description="adjusted for all comparisons of this result (Holm)")
    p_delong: float | None = Field(description="AUROC of two classes: DeLong's test on scores averaged over seeds")
    seeds: int


class TrainingCurve(BaseModel):
    """How one training run went; what else its outcome holds (raw outputs) is not kept here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    seed: int
    fold: str
    learning_rate: float | None = Field(default=None, description="that the search chose")
    search: tuple[dict[str, Any], ...] = Field(default=(), description="learning rates tried, with validation losses")
    history: dict[str, Any] = Field(description="as training reports it: `epochs`, `best_epoch`, `scans_per_second`")


class Provenance(Record):
    """Everything beside the scores: what was run, on what, how."""

    simulated: bool = Field(default=False, description="the scans are simulated; true also where only some are")
    experiment: dict[str, Any] = Field(default={}, description="the experiment, whose digest names its folder")
    environment: dict[str, Any] = Field(default={}, description="versions, commit, hardware")
    contract: dict[str, Any] = Field(default={}, description="the preprocessing contract")
    receipt: dict[str, Any] | None = Field(default=None, description="of the weight transfer; null from scratch")
    training: tuple[TrainingCurve, ...] = ()
    split: dict[str, Any] = Field(default={}, description="summary of the split: seeds, folds, sites")
    notes: tuple[str, ...] = Field(default=(), description="what was left out or assumed, in plain words")
    warnings: tuple[str, ...] = Field(default=(), description="what limits the conclusions, in plain words")


class Result(Provenance):
    """The content of ``result.json``."""

    schema_version: Literal[1] = 1
    task: TaskRecord
    inside: Scores = Field(default={}, description="out-of-fold on the training sites, by metric")
    outside: Scores = Field(default={}, description="on sites never trained on, by metric; empty without such sites")
    floors: dict[str, FloorResult] = Field(default={}, description="by name of the floor")
    comparisons: tuple[Comparison, ...] = ()
    by_site: dict[str, dict[str, Scores]] = Field(default={}, description="partition → site → metric")
    by_sex: dict[str, dict[str, Scores]] = Field(default={}, description="partition → sex → metric")
    by_age: dict[str, dict[str, Scores]] = Field(default={}, description="partition → age band → metric")
    bias_corrected: BiasCorrected | None = Field(default=None, description="brain age, beside the uncorrected")
    cohort: tuple[CohortRow, ...] = Field(default=(), description="a row for each partition and site")
    seeds: tuple[int, ...] = ()
    bootstrap: dict[str, int] = Field(default={}, description="`replicates` and `seed` of the bootstrap")


def build_result(*, task: Any, scans: Sequence[Scan], predictions: Predictions, floors: Mapping[str, Predictions],
                 validation: Predictions | None = None, bootstrap: Bootstrap | None = None,
                 **provenance: Any) -> Result:
    """Score a model and its floors and put everything into one record.

    Args:
        task: anything with the attributes of ``TaskRecord``.
        scans: every scan that occurs in ``predictions``.
        predictions: of the model, all seeds, inside and outside.
        floors: by name, on the same scans and seeds.
        validation: of the model on its validation scans, to fit the bias correction on; else out-of-fold predictions.
        provenance: fields of ``Provenance``.

    Raises:
        HeadstartError: a floor was run on other scans or seeds.
    """
    record, carried = TaskRecord.model_validate(task), Provenance.model_validate(provenance)
    bootstrap = bootstrap or Bootstrap()
    parts = {partition: predictions.part(partition).sorted() for partition in PARTITIONS}
    floor_parts = {name: {partition: table.part(partition).sorted() for partition in PARTITIONS}
                   for name, table in floors.items()}
    metrics = metrics_for(record.kind)
    return Result.model_validate({
        **dict(carried), "task": record, "seeds": predictions.seeds,
        **{partition: score_table(part, metrics, bootstrap) for partition, part in parts.items()},
        "floors": {name: _floor(name, tables, bootstrap) for name, tables in floor_parts.items()},
        "comparisons": compare_all(parts, floor_parts, bootstrap),
        **subgroups(parts, scans, record.column, bootstrap),
        "bias_corrected": _bias_corrected(record, parts, validation, bootstrap),
        "cohort": cohort_table(parts, scans),
        "warnings": (*carried.warnings, *_warnings(parts)),
        "bootstrap": {"replicates": bootstrap.replicates, "seed": bootstrap.seed},
    })


def _bias_corrected(task: TaskRecord, parts: Mapping[str, Predictions], validation: Predictions | None,
                    bootstrap: Bootstrap) -> BiasCorrected | None:
    if task.kind != "regression" or task.column != "age":
        return None
    return correct_bias(parts, parts["inside"] if validation is None else validation, bootstrap)


def _floor(name: str, tables: Mapping[str, Predictions], bootstrap: Bootstrap) -> FloorResult:
    known = FLOORS.get(name)
    scores = {partition: score_table(part, metrics_for(part.kind), bootstrap) for partition, part in tables.items()}
    return FloorResult(title=known.title if known else name, description=known.description if known else "",
                       inside=scores["inside"], outside=scores["outside"])


def compare_all(model: Mapping[str, Predictions], floors: Mapping[str, Mapping[str, Predictions]],
                bootstrap: Bootstrap) -> tuple[Comparison, ...]:
    """Model against every floor, inside and outside, p adjusted over the whole family."""
    found: list[dict[str, Any]] = []
    for partition, table in model.items():
        metric = METRICS[PRIMARY[table.kind]]
        for name, tables in floors.items() if len(table) else ():
            paired = bootstrap.compare(table, tables[partition], metric)
            found.append({"floor": name, "partition": partition, "metric": metric.name, "seeds": len(table.seeds),
                          "difference": paired.difference, "p": paired.p, "p_delong": paired.p_delong})
    adjusted = holm([entry["p"] for entry in found])
    return tuple(Comparison(**entry, p_holm=p) for entry, p in zip(found, adjusted, strict=True))


def _warnings(parts: Mapping[str, Predictions]) -> list[str]:
    found = []
    seeds = max(len(part.seeds) for part in parts.values())
    if seeds < FEWEST_SEEDS:
        found.append(f"{seeds} seed{'s' if seeds > 1 else ''}: at least {FEWEST_SEEDS} are needed before a difference "
                     "between models is called one.")
    if not len(parts["outside"]):
        found.append("No site was held out, so nothing here says how the model does on another scanner.")
    found += [f"Only {part.num_subjects} subjects {partition}: intervals are wide, small differences cannot be told."
              for partition, part in parts.items() if 0 < part.num_subjects < SMALL]
    return found


def write_result(path: str | Path, result: Result) -> None:
    """Write ``result.json``, atomically."""
    write_json(path, result.model_dump(mode="json"))


def read_result(path: str | Path) -> Result:
    """Read ``result.json``.

    Raises:
        HeadstartError: it is missing, damaged, or from a newer version.
    """
    value = read_json(path)
    version = value.get("schema_version") if isinstance(value, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise HeadstartError(f"is a result of schema version {version}, this headstart reads {SCHEMA_VERSION}",
                             path=path, fix="Upgrade headstart.")
    try:
        return Result.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise HeadstartError(f"is not a result ({'.'.join(map(str, first['loc']))}: {first['msg']})", path=path,
                             fix="Give the result.json that finetune wrote.") from error
