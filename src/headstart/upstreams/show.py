"""The catalogue and the receipts, for a terminal, a page and the documentation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.table import Column, Table

from headstart.adaptation import TransferReport
from headstart.files import atomic_write
from headstart.upstreams.base import Shipped, Upstream
from headstart.upstreams.fetch import is_here, variants


def catalogue_table(upstreams: Iterable[Upstream]) -> Table:
    """One row for each record, those inside the package first: ``weights list``."""
    table = Table(Column("name", no_wrap=True), "domain", "backbone", "size", "licence", "proven", "here")
    for upstream in sorted(upstreams, key=lambda upstream: not _fitting(upstream)):
        fitting = ", ".join(_fitting(upstream) or upstream.backbones) or "any"
        table.add_row(upstream.name, upstream.domain or "", fitting,
                      "" if upstream.parameters is None else f"{upstream.parameters / 1e6:.1f} M",
                      upstream.licence + ("" if upstream.commercial else " (accept)"),
                      "yes" if upstream.verified else "unverified", "yes" if is_here(upstream) else "")
    return table


def _fitting(upstream: Upstream) -> list[str]:
    """Of a start inside the package: each backbone and volume that it is there for."""
    return variants(upstream.source) if isinstance(upstream.source, Shipped) else []


def record_table(upstream: Upstream) -> Table:
    """Everything about one record: ``weights show``."""
    table = Table(show_header=False)
    plain = upstream.to_json()
    plain["seen"] = "not known" if upstream.seen is None else upstream.seen or "no brain-imaging cohort"
    plain["sha256"] = plain["sha256"] or "recorded at the first fetch"
    for key, value in plain.items():
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        table.add_row(key, text or "any" if key == "backbones" else text)
    return table


def receipt_table(report: TransferReport) -> Table:
    """Every key of a transfer and what became of it."""
    table = Table("key", "what", "how", title=report.summary())
    for row in report.rows():
        table.add_row(*row)
    return table


def write_receipt(path: str | Path, report: TransferReport) -> None:
    """The receipt as one HTML file: ``weights import --report``."""
    from jinja2 import Environment, PackageLoader

    template = Environment(loader=PackageLoader("headstart.upstreams", ""), autoescape=True).get_template(
        "receipt.html.jinja")
    with atomic_write(path) as file:
        file.write(template.render(report=report))


def markdown_table(upstreams: Iterable[Upstream]) -> str:
    """The catalogue as docs/weights.md has it."""
    head = ("name", "backbone", "parameters", "licence", "has seen", "adapted by", "parity proven against")
    rows = [head, tuple("---" for _ in head), *(_markdown_row(upstream) for upstream in upstreams)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _markdown_row(upstream: Upstream) -> tuple[str, ...]:
    seen = "not known" if upstream.seen is None else ", ".join(upstream.seen) or "no brain cohort"
    steps = ", ".join(step for step in upstream.steps if not step.startswith(("drop", "rename")))
    proof = (upstream.recipe.reference or "**unverified**") if upstream.recipe else "exact copy"
    size = "" if upstream.parameters is None else f"{upstream.parameters / 1e6:.1f} M"
    return (f"`{upstream.name}`", ", ".join(f"`{name}`" for name in upstream.backbones) or "any", size,
            upstream.licence, seen, steps or "nothing to adapt", proof)
