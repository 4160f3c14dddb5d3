"""The catalogue and the receipts for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Column, Table

from headstart.adaptation import TransferReport
from headstart.upstreams.base import Upstream
from headstart.upstreams.fetch import is_here


def catalogue_table(upstreams: Iterable[Upstream]) -> Table:
    """One row for each record: ``weights list``."""
    table = Table(Column("name", no_wrap=True), "domain", "backbone", "size", "licence", "proven", "here")
    for upstream in upstreams:
        table.add_row(upstream.name, upstream.domain or "", ", ".join(upstream.backbones) or "any",
                      "" if upstream.parameters is None else f"{upstream.parameters / 1e6:.1f} M",
                      upstream.licence + ("" if upstream.commercial else " (accept)"),
                      "yes" if upstream.verified else "unverified", "yes" if is_here(upstream) else "")
    return table


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
