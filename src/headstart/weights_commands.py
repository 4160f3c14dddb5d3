"""``headstart weights``: what starts there are, where they come from, and how they become 3D."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.errors import HeadstartError
from headstart.names import BACKBONES, Volume

if TYPE_CHECKING:
    from headstart.adaptation.transfer import TransferReport

app = typer.Typer(no_args_is_help=True, help="Published and shipped starts: list, show, fetch, import.")


class Domain(StrEnum):
    natural_images, video, synthetic_mri, real_mri = "natural-images", "video", "synthetic-mri", "real-mri"


@app.command("list")
def list_(
    domain: Annotated[Domain | None, typer.Option(help="Only starts of this kind.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Only starts for this backbone.")] = None,
) -> None:
    """Every start, what it fits, its licence, and whether its import is proven."""
    from rich.console import Console

    from headstart.prediction.finished import shipped_models
    from headstart.upstreams import catalogue
    from headstart.upstreams.show import catalogue_table

    Console().print(catalogue_table(catalogue(domain=domain.value if domain else None, backbone=backbone)))
    typer.echo(f"Finished models, for predict --model: {', '.join(shipped_models()) or 'none'}")


@app.command()
def show(name: Annotated[str, typer.Argument(help="As in `headstart weights list`.")]) -> None:
    """Source, licence, paper, data it has seen, preprocessing, size and steps of adaptation."""
    from rich.console import Console

    from headstart.upstreams import find
    from headstart.upstreams.show import record_table

    Console().print(record_table(find(name)))


@app.command()
def fetch(
    names: Annotated[list[str], typer.Argument(help="Starts to download into the cache.")],
    accept_licence: Annotated[bool, typer.Option(help="Accept non-commercial licences.")] = False,
) -> None:
    """Download published weights once, checked; afterwards no network is needed."""
    from headstart.upstreams import find, locate

    for upstream in map(find, names):
        typer.echo(f"{upstream.name}: licence {upstream.licence}")
        typer.echo(f"{upstream.name}: {locate(upstream, accept_licence=accept_licence)}")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A checkpoint: safetensors, .pt, .pth or TorchScript.")],
    out: Annotated[Path, typer.Option(help="Folder for the start; give it to finetune --upstream.")],
    as_: Annotated[str | None, typer.Option("--as", help="The published start that this is a copy of.")] = None,
    backbone: Annotated[str | None, typer.Option(help="The backbone it is for. Default: the record's. One of: "
                                                       f"{', '.join(BACKBONES)}.")] = None,
    recipe: Annotated[str | None, typer.Option(help="How to read it, e.g. timm-vit.")] = None,
    volume: Annotated[Volume, typer.Option(help="Grid in template space.")] = Volume.mm4,
    report: Annotated[Path | None, typer.Option(help="Write the receipt as a page.")] = None,
) -> None:
    """Read a checkpoint of your own, adapt it to 3D brains, and say what became of every key."""
    from rich.console import Console

    from headstart.upstreams.show import receipt_table, write_receipt

    if (as_ is None) == (recipe is None):
        raise HeadstartError("it has to be known how the file is to be read", path=file,
                             fix="Give --as NAME (see `headstart weights list`), or --backbone and --recipe.")
    receipt = _import(file, out, as_, _backbone(as_, backbone), recipe, volume.value)
    Console().print(receipt_table(receipt))
    if report:
        write_receipt(report, receipt)
    typer.echo(f"Start: {out}")


def _backbone(name: str | None, backbone: str | None) -> str:
    """The backbone that was asked for, or the only one that fits the record."""
    from headstart.upstreams import find

    if backbone:
        return backbone
    fitting = find(name).backbones if name else ()
    if len(fitting) == 1:
        return fitting[0]
    raise HeadstartError("the backbone is not said",
                         fix=f"Give --backbone {' or '.join(fitting) if fitting else 'NAME, e.g. vit-small'}.")


def _import(file: Path, out: Path, name: str | None, backbone: str, recipe: str | None, volume: str) -> TransferReport:
    """Adapt ``file`` and leave a model folder at ``out``; returns the receipt."""
    from headstart.backbones import build_model
    from headstart.brains.contract import Contract
    from headstart.environment import environment
    from headstart.modelfolder import ModelConfig, save_model
    from headstart.upstreams import domain_of_recipe, find, load_into

    if not file.exists():
        raise HeadstartError("does not exist", path=file, fix="Give the path of a checkpoint file.")
    contract = Contract(volume=volume)
    model = build_model(backbone, contract.spec, 1)
    receipt = load_into(file, model.backbone, backbone, contract.spec, recipe=name or recipe)
    record = find(name) if name else None
    seen, licence = (record.seen, record.licence) if record else (None, None)
    config = ModelConfig(backbone=backbone, num_outputs=1, contract=contract, upstream=name or f"{recipe}: {file.name}",
                         domain=record.domain if record else domain_of_recipe(recipe or ""),
                         seen=None if seen is None else sorted(seen), licence=licence, made_with=environment())
    save_model(out, model, config, _CARD.format(backbone=backbone, file=file.name, receipt=receipt.summary(),
                                                licence=licence or "that of the file, which headstart does not know"))
    return receipt


_CARD = """# {backbone} from {file}

Imported weights: a start for `headstart finetune --upstream`, and no finished model; the head is new.

- Licence: {licence}.
- {receipt}.
"""
