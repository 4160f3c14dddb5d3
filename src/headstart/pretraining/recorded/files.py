"""Which clips or pictures a user's folder or table holds, and of which class each is."""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.errors import HeadstartError

CLIPS = (".mp4", ".avi", ".mkv", ".webm", ".mov")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
LAYOUT = "Put files into one folder for each class (class/name.mp4), or give a csv with the columns path and label."


@dataclass(frozen=True)
class Recorded:
    """A file and its class; empty where none is known."""

    path: Path
    label: str


def find_files(source: Path, endings: Sequence[str]) -> list[Recorded]:
    """The files of a folder ``class/file`` or of a csv table, sorted by path.

    A table has the columns ``path`` (relative to the table) and ``label``, or those of Kinetics (``label``,
    ``youtube_id``, ``time_start``, ``time_end``), whose clips lie beside it or below. Rows without a file are counted
    and left out, since such clips vanish from the web; ``label`` may be missing where nothing is to be learnt from it.

    Raises:
        HeadstartError: there are no such files.
    """
    if not source.exists():
        raise HeadstartError("does not exist", path=source, fix=LAYOUT)
    listed = list(_in_table(source, endings) if source.is_file() else _in_folder(source, endings))
    found = sorted(_each_once(listed), key=lambda file: file.path)
    if not found:
        raise HeadstartError(f"holds no files that end in {', '.join(endings)}", path=source, fix=LAYOUT)
    return found


def some_of(files: Sequence[Recorded], count: int, seed: int) -> list[Recorded]:
    """At most ``count`` files, spread evenly over the classes, in the order given."""
    if len(files) <= count:
        return list(files)
    order = np.random.default_rng(seed).permutation(len(files))
    turns: dict[str, int] = defaultdict(int)
    ranked: list[tuple[int, int, int]] = []
    for index in order.tolist():
        turns[files[index].label] += 1
        ranked.append((turns[files[index].label], len(ranked), index))
    return [files[index] for index in sorted(index for _, _, index in sorted(ranked)[:count])]


def say(note: str) -> None:
    """Tell the user what becomes of some of the files."""
    print(f"note: {note}", file=sys.stderr, flush=True)


def _each_once(files: Sequence[Recorded]) -> list[Recorded]:
    """A file that is listed twice is one sample: its two would be held out and trained on."""
    labels: dict[Path, str] = {}
    for file in files:
        if labels.setdefault(file.path, file.label) != file.label:
            raise HeadstartError(f"is listed as {labels[file.path]} and as {file.label}", path=file.path, fix=LAYOUT)
    return [Recorded(path, label) for path, label in labels.items()]


def _in_folder(folder: Path, endings: Sequence[str]) -> Iterator[Recorded]:
    for path in folder.rglob("*"):
        if path.suffix.lower() in endings and path.is_file():
            yield Recorded(path, path.parent.name if path.parent != folder else "")


def _in_table(table: Path, endings: Sequence[str]) -> Iterator[Recorded]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HeadstartError(f"cannot be read as a csv table ({error})", path=table, fix=LAYOUT) from error
    columns = set(rows[0]) if rows else set()
    if not columns & {"path", "youtube_id"}:
        raise HeadstartError("lacks the column path", path=table, fix=LAYOUT)
    there = {path.stem: path for path in table.parent.rglob("*") if path.suffix.lower() in endings}
    paths = [table.parent / row["path"] if row.get("path") else there.get(_kinetics_name(row)) for row in rows]
    found = [(path, row) for path, row in zip(paths, rows) if path is not None and path.is_file()]
    if len(found) < len(rows):
        say(f"{len(rows) - len(found):,} of {len(rows):,} rows of {table} name files that are not there")
    yield from (Recorded(path, row.get("label") or "") for path, row in found)


def _kinetics_name(row: Mapping[str, str | None]) -> str:
    """What the usual downloaders call a clip: ``id_000010_000020``."""
    try:
        begin, end = (int(float(row.get(name) or "")) for name in ("time_start", "time_end"))
    except ValueError:
        return ""
    return f"{row['youtube_id']}_{begin:06d}_{end:06d}"
