"""The command line. Each command imports what it needs when it runs, so that ``headstart --help`` is instant."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from headstart.arguments import BidsApp, Everywhere
from headstart.benchmark_commands import app as benchmark
from headstart.benchmark_commands import compare
from headstart.data_commands import app as data
from headstart.names import BACKBONES, OFFLINE, Volume
from headstart.prediction_commands import export, predict, serve
from headstart.processes import cores
from headstart.weights_commands import app as weights

app = typer.Typer(name="headstart", cls=Everywhere, no_args_is_help=True, add_completion=False,
                  pretty_exceptions_enable=False,
                  help="Transfer learning for 3D brain MRI: give your model a head start, and prove that it helped.")

CANNOT_RUN = 1  # the request or its input is wrong: the message says what to do
STOPPED = 75  # EX_TEMPFAIL: stopped on a signal with everything saved; the same command goes on
INTERRUPTED = 130  # by Ctrl-C
SET_ASIDE = 10  # + the number of scans that could not be prepared (at most 90)


@app.callback()
def settings(
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing, with any command: what is missing is "
                                          "named at once. HEADSTART_OFFLINE=1 does the same.")] = False,
) -> None:
    if offline:
        os.environ[OFFLINE] = "1"  # the processes that a command starts inherit it


app.command(cls=BidsApp)(predict)
app.command()(export)
app.command()(serve)
app.add_typer(weights, name="weights")
app.add_typer(data, name="data")
app.add_typer(benchmark, name="benchmark")
app.command()(compare)


class CohortName(StrEnum):
    ageing, ad, pd = "ageing", "ad", "pd"


class GeneratorName(StrEnum):
    anatomy, labelmaps, diffusion = "anatomy", "labelmaps", "diffusion"


class Mode(StrEnum):
    full, frozen, lora, probe, knn = "full", "frozen", "lora", "probe", "knn"


class Source(StrEnum):
    synthetic_mri, real_mri, video, natural_images = "synthetic-mri", "real-mri", "video", "natural-images"


Folders = Annotated[list[Path], typer.Argument(help="BIDS folders with T1w scans.", show_default=False)]
Jobs = Annotated[int | None, typer.Option(min=1, help="Processes. Default: one per core.", show_default=False)]


@app.command()
def simulate(
    folder: Annotated[Path | None, typer.Argument(help="Folder for the BIDS data set, or with --store for the store.",
                                                  metavar="OUT", show_default=False)] = None,
    cohort: Annotated[CohortName, typer.Option(help="What the people differ in.")] = CohortName.ageing,
    n: Annotated[int, typer.Option(help="People.", min=1)] = 60,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    sites: Annotated[int, typer.Option(help="Scanners.", min=1)] = 2,
    generator: Annotated[GeneratorName, typer.Option(help="Where anatomy comes from.")] = GeneratorName.anatomy,
    labelmaps: Annotated[Path | None, typer.Option(help="Folder of FreeSurfer-style label maps.")] = None,
    difficulty: Annotated[Literal["easy", "default", "hard"], typer.Option(
        help="How small the disease's effects are.")] = "default",
    strength: Annotated[float, typer.Option(help="Of what scanners differ by: 0 hardly, 1 as real ones, up to 2.",
                                            min=0, max=2)] = 1.0,
    site_mix: Annotated[float, typer.Option(help="How much sites differ in the ages and sexes of their people.",
                                            min=0, max=1)] = 0.0,
    volume: Annotated[Volume | None, typer.Option(help="Grid. Default: 2mm, or 4mm with --store.")] = None,
    store: Annotated[bool, typer.Option("--store", help="Write a model-ready store, not NIfTI files.")] = False,
    model: Annotated[Path | None, typer.Option(help="With --generator diffusion: the model's folder.",
                                               show_default=False)] = None,
    fit: Annotated[Path | None, typer.Option(help="With --generator diffusion: train on this store instead of "
                                                  "simulating; the model goes to --out.", show_default=False)] = None,
    recipe: Annotated[Path | None, typer.Option(help="With --fit: a YAML file (configs/diffusion-*.yaml).",
                                                show_default=False)] = None,
    out_option: Annotated[Path | None, typer.Option("--out", help="The same as OUT.", show_default=False)] = None,
    jobs: Jobs = None,
) -> None:
    """Write simulated brains, as a BIDS data set or as a store; with --fit, train the learned generator."""
    out = folder or out_option
    if out is None or (folder and out_option):
        raise typer.BadParameter("give one output folder, as OUT or as --out")
    if (recipe and not fit) or (fit and (model or labelmaps or store)):
        raise typer.BadParameter("--recipe belongs to --fit, which simulates nobody: no --model, --labelmaps, --store")
    if fit is not None:
        _fit(generator, fit, out, recipe, seed)
        return
    from headstart.simulation.cohort import write_cohort, write_store

    grid = volume.value if volume else ("4mm" if store else "2mm")
    (write_store if store else write_cohort)(
        out, n=n, jobs=jobs or cores(), cohort=cohort.value, seed=seed, sites=sites, generator=generator.value,
        labelmaps=labelmaps, difficulty=difficulty, volume=grid, model=model, strength=strength, site_mix=site_mix)
    typer.echo(f"{n} simulated brains in {out}")


def _fit(generator: GeneratorName, store: Path, out: Path, recipe: Path | None, seed: int) -> None:
    from headstart.errors import HeadstartError
    from headstart.simulation.diffusion import Recipe
    from headstart.simulation.diffusion_fit import fit

    if generator is not GeneratorName.diffusion:
        raise HeadstartError("--fit trains the learned generator", fix="Give --generator diffusion.")
    fit(store, out, Recipe.read(recipe), seed=seed)
    typer.echo(f"Model: {out}\nDraw from it: headstart simulate OUT --generator diffusion --model {out} --store")


@app.command()
def prepare(
    bids: Folders,
    store: Annotated[Path, typer.Option(help="Folder for the model-ready store.")],
    volume: Annotated[Volume, typer.Option(help="Grid in template space.")] = Volume.mm4,
    jobs: Jobs = None,
) -> None:
    """Bring every T1w scan to template space: extraction, bias correction, registration, scaling, QC page."""
    from headstart.brains.bids import read_bids
    from headstart.brains.contract import Contract
    from headstart.brains.prepare import prepare as run
    from headstart.datasets.ldm100k import is_ldm100k, read_ldm100k

    cohort = read_ldm100k(bids[0]) if len(bids) == 1 and is_ldm100k(bids[0]) else read_bids(bids)
    _say_notes(cohort.notes)
    summary = run(cohort, store, Contract(volume=volume.value), jobs=jobs or cores())
    typer.echo(f"{summary} Quality control: {store / 'qc.html'}")
    if summary.failed:
        raise typer.Exit(SET_ASIDE + min(len(summary.failed), 90))


@app.command()
def finetune(
    bids: Annotated[list[Path] | None, typer.Argument(help="BIDS folders (prepared into a cache).",
                                                         show_default=False)] = None,
    store: Annotated[Path | None, typer.Option(help="A prepared store, instead of BIDS folders.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the result.")] = Path("runs/finetune"),
    target: Annotated[str | None, typer.Option(help="Column of participants.tsv to predict.")] = None,
    task: Annotated[str | None, typer.Option(help="Declared task: brain-age, ad, pd, sex.")] = None,
    positive: Annotated[str | None, typer.Option(help="Value of --target that counts as positive.")] = None,
    train_sites: Annotated[str | None, typer.Option(help="Comma-separated. Default: all but --test-sites.")] = None,
    test_sites: Annotated[str | None, typer.Option(help="Sites held out whole for the outside test.")] = None,
    loso: Annotated[bool, typer.Option("--loso", help="Leave each site out in turn.")] = False,
    backbone: Annotated[str, typer.Option(help=f"One of: {', '.join(BACKBONES)}.")] = "cnn-small",
    upstream: Annotated[str | None, typer.Option(
        help="Where the weights start from: scratch, a name in `headstart weights list`, or a folder of pretrain, "
             "finetune or weights import. Default: synthetic-mri where it is shipped, else scratch.",
        show_default=False)] = None,
    accept_licence: Annotated[bool, typer.Option(help="Accept a non-commercial licence.")] = False,
    volume: Annotated[Volume, typer.Option(help="Grid, when BIDS folders are given.")] = Volume.mm4,
    seeds: Annotated[int, typer.Option(help="Repeats, each with its own folds and initial weights.", min=1)] = 3,
    folds: Annotated[int, typer.Option(help="Folds of the cross-validation.", min=2)] = 5,
    epochs: Annotated[int, typer.Option(help="At most; early stopping usually ends before.", min=1)] = 60,
    mode: Annotated[Mode, typer.Option(help="What learns: everything; the head (frozen); the head and low-rank changes "
                                            "of a vit's attention (lora); or, at once and without epochs, a linear "
                                            "probe or the nearest neighbours (no model is kept).")] = Mode.full,
    layer_decay: Annotated[float, typer.Option(help="Factor on the learning rate for each layer further from the "
                                                    "output; 0.65 to 0.9 is usual.", min=0.01, max=1)] = 1.0,
    learning_rates: Annotated[str, typer.Option(help="Each fold's validation part chooses.")] = "0.001,0.0003",
    split: Annotated[Path | None, typer.Option(help="A split.tsv to reuse.")] = None,
    jobs: Jobs = None,
) -> None:
    """Predict a column of participants.tsv from scans: honest estimate, model to keep, report to read."""
    from headstart.experiment import Request, check, run

    request = Request(
        target=target, task=task, positive=positive, train_sites=_names(train_sites), test_sites=_names(test_sites),
        loso=loso, backbone=backbone, upstream=upstream, accept_licence=accept_licence, seeds=seeds, folds=folds,
        epochs=epochs, mode=mode.value, layer_decay=layer_decay, learning_rates=_numbers(learning_rates), split=split,
    )
    folder = _store_of(bids, store, volume.value, jobs, lambda scans: check(request, scans, volume.value))
    result = run(request, folder, out, jobs=jobs or cores())
    _show(result, out)


@app.command()
def pretrain(
    out: Annotated[Path, typer.Option(help="Folder for the start; give it to finetune --upstream.")],
    config: Annotated[Path | None, typer.Option(help="A YAML file of settings (configs/pretrain-*.yaml); options that "
                                                     "are given here go before it.", show_default=False)] = None,
    source: Annotated[Source | None, typer.Option(help="What is learnt from. Default: synthetic-mri. Without --data, "
                                                       "brains are simulated, clips and pictures rendered.",
                                                  show_default=False)] = None,
    backbone: Annotated[str | None, typer.Option(help="As for finetune.", show_default=False)] = None,
    objective: Annotated[Literal["supervised", "masked", "contrastive"] | None, typer.Option(
        help="How. Default: supervised.", show_default=False)] = None,
    budget_samples: Annotated[int | None, typer.Option(help="Training samples in all. Default: 20000.",
                                                       show_default=False)] = None,
    data: Annotated[Path | None, typer.Option(help="A prepared store, needed for real-mri; for video and "
                                                   "natural-images a folder class/file, or a csv with path and label.",
                                              show_default=False)] = None,
    pool: Annotated[int | None, typer.Option(help="Samples to make where no data is given, or to use of the files in "
                                                  "--data. Default: 4000.", show_default=False)] = None,
    generator: Annotated[Literal["anatomy", "labelmaps"] | None, typer.Option(
        help="Where the anatomy of simulated brains comes from. Default: anatomy.", show_default=False)] = None,
    labelmaps: Annotated[Path | None, typer.Option(help="Folder of FreeSurfer-style label maps.",
                                                   show_default=False)] = None,
    volume: Annotated[Volume | None, typer.Option(help="Grid. Default: 4mm.", show_default=False)] = None,
    shuffle_labels: Annotated[bool | None, typer.Option("--shuffle-labels", show_default=False,
                                                        help="Control: each label goes to another sample.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak rate. Default: 0.002.", show_default=False)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Over all processes. Default: 32.", show_default=False)] = None,
    probe: Annotated[int | None, typer.Option(help="Held-out simulated brains that a linear probe reads now and then. "
                                                   "Default: 200.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Default: 0.", show_default=False)] = None,
    jobs: Jobs = None,
) -> None:
    """Make a start: train a backbone on brains, clips or pictures. Stopped, the same command goes on."""
    from headstart.pretraining.config import read_config
    from headstart.pretraining.run import pretrain as run

    options = {
        "source": source, "objective": objective, "backbone": backbone, "budget_samples": budget_samples, "data": data,
        "pool": pool, "generator": generator, "labelmaps": labelmaps, "volume": volume, "seed": seed,
        "shuffle_labels": shuffle_labels, "learning_rate": learning_rate, "batch_size": batch_size, "probe": probe}
    asked = read_config(config, options)
    record = run(asked, out, jobs=jobs or cores())
    if not record:  # one of several processes; the first one speaks
        return
    cost = record["cost"]
    memory = max(cost["peak_memory_gib"].values())
    busy = f", network busy {cost['busy']:.0%} of the time" if "busy" in cost else ""  # made by an older version
    typer.echo(f"{cost['samples']:,} samples in {cost['steps']:,} steps and {cost['hours']:.2f} h: "
               f"{cost['samples_per_second']:.0f} samples/s{busy}, at most {memory:.1f} GiB")
    for warning in record.get("warnings", []):
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"Start: {out}\nIts report: headstart report {out}")
    typer.echo(f"Use it: headstart finetune ... --backbone {asked.backbone} --upstream {out}")


@app.command()
def report(
    out: Annotated[Path, typer.Argument(help="Folder of a run, a benchmark or a pre-training; with --against, a store "
                                             "of simulated brains.")],
    against: Annotated[Path | None, typer.Option(help="A store of real scans to hold simulated brains against: writes "
                                                      "the calibration page.", show_default=False)] = None,
) -> None:
    """Write report.html of a run, a benchmark or a pre-training again: one file that opens anywhere."""
    if against is not None:
        from headstart.report.calibration import write_calibration

        typer.echo(f"Calibration page: {write_calibration(out, against)}")
        return
    if (out / "plan.json").exists():
        from headstart.benchmark_report import write

        typer.echo(f"Report: {write(out)}")
        return
    if (out / "request.json").exists():
        from headstart.pretraining.report import write_report as write_pretraining

        typer.echo(f"Report: {write_pretraining(out)}")
        return
    from headstart.experiment import write_report

    typer.echo(f"Report: {write_report(out)}")


def _store_of(bids: list[Path] | None, store: Path | None, volume: str, jobs: int | None,
              check: Callable[..., None]) -> Path:
    from headstart.brains.cache import prepared
    from headstart.errors import HeadstartError

    if bool(bids) == bool(store):
        raise HeadstartError("give either BIDS folders or --store", fix="See `headstart finetune --help`.")
    return store if store else prepared(bids or [], volume, jobs=jobs or cores(), say=_say_notes, check=check)


def _show(result, out: Path) -> None:
    from rich.console import Console

    from headstart.evaluation.summary import summary_table

    Console().print(summary_table(result))
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for name, path in (("Result: ", "result.json"), ("Model:  ", "model"), ("Report: ", "report.html")):
        if (out / path).exists():
            typer.echo(f"{name}{out / path}")


def _say_notes(notes) -> None:
    for note in notes:
        typer.echo(f"note: {note}", err=True)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not a comma-separated list of numbers") from None


class _Interrupted(BaseException):
    """Ctrl-C; typer would end on a KeyboardInterrupt without a word."""


def main() -> None:
    """Entry point: errors that a user can mend are one message, not a traceback."""
    from headstart.errors import HeadstartError, Stopped
    from headstart.processes import GO_ON, STOP_SIGNALS

    for number in STOP_SIGNALS:
        signal.signal(number, _leave)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        app()
    except HeadstartError as error:
        typer.echo(f"headstart: {error}", err=True)
        sys.exit(STOPPED if isinstance(error, Stopped) else CANNOT_RUN)
    except _Interrupted:
        typer.echo(f"\nheadstart: interrupted. {GO_ON}", err=True)
        sys.exit(INTERRUPTED)


def _interrupt(_number: int, _frame: object) -> None:
    raise _Interrupted


def _leave(number: int, _frame: object) -> None:
    """While nothing is under way that could be saved, leave at once: an exception may get lost in an import."""
    from headstart.processes import GO_ON

    os.write(2, f"headstart: stopped by {signal.Signals(number).name}. {GO_ON}\n".encode())
    os._exit(STOPPED)


if __name__ == "__main__":
    main()
