"""headstart predict: finished models on new scans, as a BIDS App or on one file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from headstart.prediction import FinishedModel, Summary

SET_ASIDE = 10  # + the number of scans without a prediction (at most 90)


class Level(StrEnum):
    participant, group = "participant", "group"


class Explain(StrEnum):
    gradient, occlusion, attention = "gradient", "occlusion", "attention"


class Format(StrEnum):
    onnx, safetensors, hub_folder = "onnx", "safetensors", "hub-folder"


def predict(
    source: Annotated[Path, typer.Argument(help="A BIDS folder, or one T1w scan (.nii or .nii.gz).")],
    out: Annotated[Path | None, typer.Argument(help="Folder for the predictions, with a BIDS folder.",
                                               show_default=False)] = None,
    level: Annotated[Level | None, typer.Argument(help="As every BIDS App has it.", show_default=False)] = None,
    model: Annotated[str, typer.Option(help="Folder that finetune wrote, or a shipped model: "
                                            "brain-age-synthetic.")] = "",
    participant_label: Annotated[list[str] | None, typer.Option(
        "--participant-label", "--participant_label", help="Only these participants.", show_default=False)] = None,
    session: Annotated[list[str] | None, typer.Option(
        "--session", "--session-label", help="Only these sessions.", show_default=False)] = None,
    explain: Annotated[Explain | None, typer.Option(help="Write maps of what moves the answer.",
                                                    show_default=False)] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one per core.",
                                             show_default=False)] = None,
) -> None:
    """Apply a finished model: its preprocessing is run and verified; a scan that violates it is flagged or refused."""
    from headstart.prediction import open_model, predict_participants, write_group
    from headstart.processes import cores

    if not model:
        raise HeadstartError("no model was given", fix="Give --model with the folder that finetune wrote, or "
                             "brain-age-synthetic, which is shipped.")
    finished = open_model(model)
    _introduce(finished)
    if not source.is_dir():
        _one(finished, source, out, explain)
    elif out is None:
        raise HeadstartError("is a folder, and predictions on a folder need a place to go", path=source,
                             fix=f"For a BIDS data set: headstart predict {source} OUT participant --model MODEL. "
                                 "A DICOM series is converted to NIfTI first (dcm2niix), and its file given.")
    elif level is Level.group:
        typer.echo(f"Page:     {write_group(source, out, finished)}")
    else:
        summary = predict_participants(source, out, finished, labels=participant_label or [], sessions=session or [],
                                       explain=explain.value if explain else None, jobs=jobs or cores())
        _tell(summary, out)


def export(
    model: Annotated[str, typer.Argument(help="Folder that finetune wrote, or the name of a shipped model.")],
    to: Annotated[Format, typer.Option(help="onnx: a graph, checked against torch; safetensors: weights and config in "
                                            "one file; hub-folder: as model hubs expect it.")] = Format.onnx,
    out: Annotated[Path | None, typer.Option(help="Where to. Default: beside the model.", show_default=False)] = None,
) -> None:
    """Hand a finished model on."""
    from headstart.export import export_model
    from headstart.export.formats import SUFFIX
    from headstart.prediction.finished import find_model

    folder = find_model(model)
    target = out or folder.parent / f"{folder.name}{SUFFIX[to.value]}"
    typer.echo(f"Written: {export_model(folder, to.value, target)}")


def serve(
    model: Annotated[str, typer.Option(help="Folder that finetune wrote, or the name of a shipped model.")],
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 8765,
) -> None:
    """A web page on this machine alone: drop a scan, see quality, answer and maps; uploads are deleted."""
    from headstart.prediction import open_model
    from headstart.prediction.server import Server

    finished = open_model(model)
    _introduce(finished)
    with Server(finished, port) as server:
        typer.echo(f"Open {server.url} (Ctrl-C ends it)")
        server.serve_forever()


def _introduce(model: FinishedModel) -> None:
    from headstart.prediction.quality import contract_words
    from headstart.prediction.words import caveats

    typer.echo(f"Model:    {model.name}: {model.task.name}, {model.config.backbone}")
    typer.echo(f"Contract: {contract_words(model.config.contract)}")
    for caveat in caveats(model):
        typer.echo(f"Note:     {caveat}")


def _one(model: FinishedModel, scan: Path, out: Path | None, explain: Explain | None) -> None:
    """One file: the answer in the terminal, and with OUT its record, page and maps."""
    from headstart.prediction import predict_scan
    from headstart.prediction.single import predict_file
    from headstart.prediction.words import answer, check_lines

    if explain and out is None:
        raise HeadstartError("--explain writes maps", fix="Give a folder for them after the scan.")
    prediction = predict_scan(model, scan) if out is None else predict_file(
        model, scan, out, explain.value if explain else None)
    typer.echo("\n".join(["", *check_lines(prediction), "", answer(prediction)]))
    typer.echo("Time:     " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in prediction.seconds.items()))
    if prediction.verdict == "refused":
        raise typer.Exit(SET_ASIDE + 1)


def _tell(summary: Summary, out: Path) -> None:
    for note in summary.notes:
        typer.echo(f"note: {note}", err=True)
    for key, reason in summary.failed.items():
        typer.echo(f"{key}: {reason}", err=True)
    typer.echo(f"{summary}\nTable:    {out / 'participants.tsv'}")
    if summary.failed:
        raise typer.Exit(SET_ASIDE + min(len(summary.failed), 90))
