"""The catalogue and the receipts, for a terminal, a page and the documentation."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from headstart.adaptation import TransferReport
from headstart.files import atomic_write
from headstart.upstreams.base import DOMAINS, Shipped, Upstream
from headstart.upstreams.fetch import is_here, variants


def catalogue_table(upstreams: Iterable[Upstream]) -> Table:
    """A row for each record under what it was learnt from, those inside the package first: ``weights list``.

    It can be read at 80 columns: no cell is cut off.
    """
    table = Table(Column("name", no_wrap=True), Column("fits", no_wrap=True), Column("size", justify="right"),
                  Column("licence", min_width=14), Column("here", no_wrap=True),
                  box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0,
                  caption="* accept the licence to fetch it   ? import unverified: not held against its publisher's",
                  caption_justify="left")
    for heading, group in groupby(sorted(upstreams, key=_place), _heading):
        table.add_section()
        table.add_row(f"[bold]{heading}[/]")
        for upstream in group:
            table.add_row(*_row(upstream))
    return table


def _place(upstream: Upstream) -> int:
    if _fitting(upstream):
        return -2
    return DOMAINS.index(upstream.domain) if upstream.domain else -1


def _heading(upstream: Upstream) -> str:
    return "inside the package" if _place(upstream) < 0 else str(upstream.domain)


def _row(upstream: Upstream) -> tuple[str, ...]:
    marks = ("" if upstream.commercial else "*") + ("" if upstream.verified else "?")
    return (upstream.name, "\n".join(_fitting(upstream) or upstream.backbones) or "any",
            "" if upstream.parameters is None else f"{upstream.parameters / 1e6:.0f} M",
            upstream.licence.split(" (")[0] + marks, "yes" if is_here(upstream) else "")


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
