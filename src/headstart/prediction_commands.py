"""headstart predict: finished models on new scans, as a BIDS App or on one file."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from headstart.prediction import FinishedModel

SET_ASIDE = 10  # + the number of scans without a prediction (at most 90)
SEVERAL = ("--participant-label", "--participant_label", "--session", "--session-label")


class Level(StrEnum):
    participant = "participant"


class BidsApp(TyperCommand):
    """A command whose labels follow one option, as BIDS Apps have them: ``--participant-label 01 02``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, repeated(args))


def repeated(args: list[str]) -> list[str]:
    """``--option a b`` as ``--option a --option b``, for the options that take several values."""
    out: list[str] = []
    option = None
    for arg in args:
        if arg.startswith("-") and len(arg) > 1:
            option = arg if arg in SEVERAL else None
            out += [] if option else [arg]
        else:
            out += [option, arg] if option else [arg]
    return out


def predict(
    source: Annotated[Path, typer.Argument(help="A BIDS folder, or one T1w scan (.nii or .nii.gz).")],
    out: Annotated[Path | None, typer.Argument(help="Folder for the predictions, with a BIDS folder.",
                                               show_default=False)] = None,
    level: Annotated[Level | None, typer.Argument(help="As every BIDS App has it.", show_default=False)] = None,
    model: Annotated[str, typer.Option(help="Folder that finetune wrote, or the name of a shipped model.")] = "",
    participant_label: Annotated[list[str] | None, typer.Option(
        "--participant-label", "--participant_label", help="Only these participants.", show_default=False)] = None,
    session: Annotated[list[str] | None, typer.Option(
        "--session", "--session-label", help="Only these sessions.", show_default=False)] = None,
    jobs: Annotated[int | None, typer.Option(help="Processes. Default: one per core.", show_default=False)] = None,
) -> None:
    """Apply a finished model: its preprocessing is run and verified; a scan that violates it is flagged or refused."""
    from headstart.prediction import open_model

    if not model:
        raise HeadstartError("no model was given", fix="Give --model with the folder that finetune wrote.")
    finished = open_model(model)
    _introduce(finished)
    if out is None:
        _one(finished, source)
    else:
        _all(finished, source, out, participant_label or [], session or [], jobs)


def _introduce(model: FinishedModel) -> None:
    from headstart.prediction.words import caveats, contract_words

    typer.echo(f"Model:    {model.name}: {model.task.name}, {model.config.backbone}")
    typer.echo(f"Contract: {contract_words(model.config.contract)}")
    for caveat in caveats(model):
        typer.echo(f"Note:     {caveat}")


def _one(model: FinishedModel, scan: Path) -> None:
    from headstart.prediction import predict_scan
    from headstart.prediction.words import answer, check_lines

    if scan.is_dir():
        raise HeadstartError("is a folder: where shall the predictions go?", path=scan,
                             fix=f"headstart predict {scan} OUT participant --model MODEL")
    prediction = predict_scan(model, scan)
    typer.echo("\n".join(["", *check_lines(prediction), "", answer(prediction)]))
    typer.echo("Time:     " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in prediction.seconds.items()))
    if prediction.verdict == "refused":
        raise typer.Exit(SET_ASIDE + 1)


def _all(model: FinishedModel, bids: Path, out: Path, labels: list[str], sessions: list[str],
         jobs: int | None) -> None:
    from headstart.prediction import predict_participants
    from headstart.processes import cores

    summary = predict_participants(bids, out, model, labels=labels, sessions=sessions, jobs=jobs or cores())
    for note in summary.notes:
        typer.echo(f"note: {note}", err=True)
    for key, reason in summary.failed.items():
        typer.echo(f"{key}: {reason}", err=True)
    typer.echo(f"{summary}\nTable:    {out / 'participants.tsv'}")
    if summary.failed:
        raise typer.Exit(SET_ASIDE + min(len(summary.failed), 90))
