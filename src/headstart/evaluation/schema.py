"""The documentation of ``result.json``, written from the types themselves."""

from __future__ import annotations

from typing import Any

from headstart.evaluation.metrics import METRICS
from headstart.evaluation.predictions import COLUMNS
from headstart.evaluation.results import SCHEMA_VERSION, Result

INTRODUCTION = f"""# result.json and predictions.tsv

`headstart finetune` writes both. This page is generated from the types (`headstart.evaluation.schema`); a test keeps it
current. Schema version {SCHEMA_VERSION}; a change that breaks readers raises it.

Every score is an `Estimate`: the mean over seeds, a 95 % interval over subjects, and the number of subjects. `value` is
null where a metric is undefined (one class only, a constant prediction); `reason` says why.

`predictions.tsv` has the columns `{" ".join(COLUMNS)}`, then `p_<class>` for each class; then `subject`, where someone
is known to be in two data sets, and is one person for every interval.
One row is one scan of one seed; `partition` is `inside` (out-of-fold, training sites) or `outside` (sites never
trained on).
"""


def schema_markdown() -> str:
    """The page ``docs/result-schema.md``."""
    schema = Result.model_json_schema(mode="serialization")
    tables = [_table("Result (top level)", schema), *(_table(name, part) for name, part in schema["$defs"].items())]
    return "\n".join([INTRODUCTION, *tables, _metrics()])


def _table(name: str, part: dict[str, Any]) -> str:
    rows = [f"| `{field}` | {_type(about)} | {_cell(about.get('description', ''))} |"
            for field, about in part.get("properties", {}).items()]
    about = " ".join(part.get("description", "").split())
    return "\n".join([f"## {name}", "", about, "", "| field | type | meaning |", "| --- | --- | --- |", *rows, ""])


def _type(about: dict[str, Any]) -> str:
    """A JSON schema type in a few words."""
    if "$ref" in about:
        return about["$ref"].rsplit("/", 1)[-1]
    if "anyOf" in about:
        return " or ".join(_type(option) for option in about["anyOf"])
    if "const" in about or "enum" in about:
        return " or ".join(f"`{value}`" for value in about.get("enum", [about.get("const")]))
    if about.get("type") == "array":
        return f"list of {_type(about.get('items', {}))}"
    inner = about.get("additionalProperties")
    if about.get("type") == "object":
        return f"object of {_type(inner)}" if isinstance(inner, dict) else "object"
    return str(about.get("type", "anything"))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _metrics() -> str:
    rows = [f"| `{metric.name}` | {metric.label} | {metric.kind} | {metric.better} |" for metric in METRICS.values()]
    return "\n".join(["## Metrics", "", "With several classes, a metric of one class is the mean over classes, each "
                      "against the rest. `ece` uses ten bins of equal width.", "",
                      "| name | label | task | better |", "| --- | --- | --- | --- |", *rows, ""])
