"""Rows of a plan: which starts are here and fit their backbones, and which cannot be compared with scratch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from headstart.backbones import build_backbone
from headstart.benchmark.config import Config, RowEntry, expanded
from headstart.benchmark.plan import SCRATCH, Row
from headstart.brains.volumes import volume_spec
from headstart.errors import HeadstartError
from headstart.upstreams import find, identity, load_into, locate
from headstart.upstreams.base import Manual, Upstream
from headstart.upstreams.catalogue import is_name
from headstart.upstreams.fetch import accepted
from headstart.upstreams.load import check_fits


def make_rows(config: Config, notes: list[str], *, dry: bool) -> list[Row]:
    """Rows whose weights are here; each other one becomes a note.

    Args:
        dry: fetch nothing, and count a folder that is not there yet as a dry run counts data that are not.

    Raises:
        HeadstartError: a start does not fit its backbone, a folder holds none, or no row is left.
    """
    rows = [row for entry in config.rows if (row := _row(entry, config, notes, dry)) is not None]
    if not rows:
        raise HeadstartError(f"none of the starts is here: {notes[-1]}", fix="See `headstart weights list`.")
    notes += _unlike_scratch(rows)
    return rows


def _row(entry: RowEntry, config: Config, notes: list[str], dry: bool) -> Row | None:
    """The row, or a note where its weights are not here; of those that a dry run counts, both."""
    source, weights = str(expanded(entry.start)) if entry.start else entry.upstream, "not here"
    _check_fits(source, entry.backbone, config.volume)
    try:
        if is_name(source) and source != SCRATCH:
            _obtain(find(source), entry, config, dry)
        weights = identity(source, entry.backbone, volume_spec(config.volume))
    except HeadstartError as error:
        counted = dry and entry.start is not None and not is_name(source)
        state = "not here yet (counted here, and left out of a run)" if counted else "left out"
        notes.append(f"{entry.upstream} in {entry.backbone} is {state}: {error.problem}{_remedy(error)}")
        if not counted:
            return None
    return Row(backbone=entry.backbone, upstream=entry.upstream, mode=entry.mode or config.training.mode,
               weights=weights, start=source if entry.start else None)


def _remedy(error: HeadstartError) -> str:
    return "; --accept-licence adds it" if "--accept-licence" in error.fix else ""


def _obtain(upstream: Upstream, entry: RowEntry, config: Config, dry: bool) -> None:
    """Fetch what a name stands for; a dry run only asks whether it may be fetched."""
    if isinstance(upstream.source, Manual):
        raise HeadstartError(f"'{upstream.name}' cannot be fetched by a program; give as `start:` the folder that "
                             "`headstart weights import` makes of it")
    if not dry:
        locate(upstream, backbone=entry.backbone, volume=config.volume, accept_licence=config.accept_licence)
    elif upstream.commercial is not True and not config.accept_licence:
        accepted(upstream, False)


def _check_fits(source: str, backbone: str, volume: str) -> None:
    """Refuse what is there and cannot be loaded into this backbone: every cell would fail of it."""
    path = Path(source)
    if is_name(source):
        check_fits(find(source), backbone)
    elif path.is_dir():
        spec = volume_spec(volume)
        load_into(path, build_backbone(backbone, spec), backbone, spec)
    elif path.exists():
        raise HeadstartError("is a file, and a row starts from the folder of a model", path=path,
                             fix="Give as `start:` what pretrain or finetune wrote, or what `headstart weights import` "
                             "makes of a checkpoint.")


def _unlike_scratch(rows: Sequence[Row]) -> Iterator[str]:
    """Words on starts that differ from their scratch in more than the start, or have none."""
    modes = {row.backbone: row.mode for row in rows if row.upstream == SCRATCH}
    for backbone in dict.fromkeys(row.backbone for row in rows):
        found = [f"{row.upstream} ({row.mode})" for row in rows if row.backbone == backbone
                 and row.upstream != SCRATCH and row.mode != modes.get(backbone)]
        if found and backbone not in modes:
            yield f"{backbone} has no scratch row to compare with: no gains can be given for {', '.join(found)}"
        elif found:
            yield (f"scratch in {backbone} learns in mode {modes[backbone]}, unlike {', '.join(found)}: what is given "
                   "as their gain is not a gain from the start alone")
