"""``headstart data``: openly licensed data sets, and how they come here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Openly licensed data sets: list, fetch.")


@app.command("list")
def list_() -> None:
    """Every data set, what it holds, its size and its licence."""
    from rich.console import Console
    from rich.table import Table

    from headstart.datasets import DATASETS

    table = Table("name", "what", "GB", "licence", "page")
    for record in DATASETS.values():
        table.add_row(record.name, record.what, f"{record.gigabytes:g}", record.licence, record.page)
    Console().print(table)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="As in `headstart data list`.")],
    out: Annotated[Path, typer.Option(help="Folder for the BIDS data set.")],
    mirror: Annotated[str | None, typer.Option(help="An address to use for the publisher's, with the same paths.",
                                               show_default=False)] = None,
) -> None:
    """Download a data set, checked, and lay it out as BIDS. Stopped, the same command goes on."""
    from headstart.datasets import fetch as run
    from headstart.datasets import find

    record = find(name)
    typer.echo(f"{record.name}: {record.what}\nLicence: {record.licence}\nPage: {record.page}")
    folder = run(record, out, mirror=mirror, say=typer.echo)
    typer.echo(f"Data set: {folder}")
