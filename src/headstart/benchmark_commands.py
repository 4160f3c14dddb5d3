"""``headstart benchmark`` and ``headstart compare``: the study in one command, its status, two studies side by side."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.errors import HeadstartError
from headstart.processes import cores

if TYPE_CHECKING:
    from headstart.benchmark.config import Config

app = typer.Typer(invoke_without_command=True, subcommand_metavar="[status|retry DIR]",
                  help="Compare starts: upstream x backbone x task x training size x seed, inside and outside the "
                       "training sites, with floors and statistics.")

CELL_FAILED = 2  # some cells failed; the others are done, and the report is written


class Preset(StrEnum):
    quick, standard, paper, real_open = "quick", "standard", "paper", "real-open"


class Executor(StrEnum):
    here, slurm = "here", "slurm"


Folder = Annotated[Path, typer.Argument(help="The --out of a benchmark.")]


@app.callback()
def benchmark(
    context: typer.Context,
    preset: Annotated[Preset | None, typer.Option(help="Default: quick, minutes on a laptop, on simulated brains.",
                                                  show_default=False)] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file of your own, as in configs/, in place of a "
                                                     "preset.")] = None,
    out: Annotated[Path | None, typer.Option(help="Default: runs/NAME. What is in it is not done again.")] = None,
    executor: Annotated[Executor, typer.Option(help="Where cells run.")] = Executor.here,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes here (default: one per core), or jobs at a time "
                                                            "in SLURM.")] = None,
    upstreams: Annotated[str | None, typer.Option(help="Only these, comma-separated, and scratch.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Only these, comma-separated.")] = None,
    data: Annotated[list[Path] | None, typer.Option(help="BIDS folder for tasks without data of their own; give it "
                                                         "once for each.")] = None,
    accept_licence: Annotated[bool, typer.Option(help="Accept non-commercial licences.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print cells, hours and disk; do nothing.")] = False,
) -> None:
    """Run a benchmark; the same command goes on where it was stopped or killed."""
    if context.invoked_subcommand is not None:
        return
    from headstart.benchmark.config import load_config, narrowed

    if preset and config:
        raise HeadstartError(f"--preset {preset.value} and --config {config} are both given", fix="Give one of them.")
    asked = narrowed(load_config(config or preset or Preset.quick), _names(upstreams), _names(tasks), data or (),
                     accept_licence=accept_licence)
    if dry_run:
        _dry_run(asked, executor, workers)
    else:
        _run(asked, out or Path("runs") / asked.name, executor, workers)


def _run(config: Config, out: Path, executor: Executor, workers: int | None) -> None:
    from headstart.benchmark.resolve import make_plan

    plan = make_plan(config)
    for note in plan.notes:
        typer.echo(f"note: {note}", err=True)
    if executor is Executor.here:
        from headstart.benchmark.engine import run_here

        run_here(plan, out, workers or cores())
    else:
        from headstart.benchmark.slurm import run_on_slurm

        run_on_slurm(plan, out, config.slurm.model_copy(update={"at_once": workers or config.slurm.at_once}))
    _conclude(out)


def _conclude(out: Path) -> None:
    """The table, the report, and an exit code that tells whether all cells are there."""
    from headstart.benchmark.results import read
    from headstart.benchmark_report import write

    _print_status(out)
    found = read(out)
    if found.done:  # a report needs something to report
        typer.echo(f"Report: {write(out)}")
    if found.failed:
        typer.echo(f"Do the failed cells again: headstart benchmark retry {out}, then the same command.", err=True)
        raise typer.Exit(CELL_FAILED)


def _dry_run(config: Config, executor: Executor, workers: int | None) -> None:
    from headstart.benchmark.estimate import describe, estimate
    from headstart.benchmark.resolve import make_plan

    plan = make_plan(config, dry=True)
    for note in plan.notes:
        typer.echo(f"note: {note}", err=True)
    on_slurm = executor is Executor.slurm
    workers = workers or (config.slurm.at_once if on_slurm else cores())
    typer.echo(describe(plan, estimate(plan, config), workers, config.slurm.cpus if on_slurm else None))


@app.command()
def status(folder: Folder) -> None:
    """Cells done, running, failed and waiting; why cells failed, and where their logs are."""
    _print_status(folder)


@app.command()
def retry(folder: Folder) -> None:
    """Forget failures, so that the same benchmark does those cells again."""
    from headstart.benchmark.status import retry as forget

    typer.echo(f"{forget(folder)} failed cells will be done again by the same benchmark command.")


@app.command(hidden=True)
def cell(folder: Folder, digest: Annotated[str, typer.Argument(help="As in status.")]) -> None:
    """Do one cell: idempotent, resumable, safe beside any other."""
    from headstart.benchmark.cells import run_cell
    from headstart.benchmark.plan import read_plan

    plan = read_plan(folder)
    record = run_cell(folder, plan, plan.cell(digest))
    if record is None:
        raise HeadstartError("another process is at this cell", path=folder, fix="See `headstart benchmark status`.")
    typer.echo(f"{plan.cell(digest)}: {record.state}" + (f": {record.error}" if record.error else ""))
    raise typer.Exit(0 if record.state == "done" else CELL_FAILED)


def compare(a: Folder, b: Folder) -> None:
    """Two benchmarks side by side: every score that both have, and how they differ."""
    from rich.console import Console

    from headstart.benchmark.compare import compare as differences
    from headstart.benchmark.compare import compare_table

    Console().print(compare_table(differences(a, b), a.name, b.name))


def _print_status(folder: Path) -> None:
    from rich.console import Console

    from headstart.benchmark.status import look, status_table

    Console().print(status_table(look(folder)))


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
