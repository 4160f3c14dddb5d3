"""What every page needs: its template, style and script under a policy that fetches nothing, and embedded downloads."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"


@cache
def template_environment(*folders: Path) -> Environment:
    """Templates of these folders, then of this package; everything from data is escaped."""
    return Environment(loader=FileSystemLoader([*folders, TEMPLATES]), autoescape=True, undefined=StrictUndefined,
                       trim_blocks=True, lstrip_blocks=True)


@cache
def assets(*folders: Path) -> dict[str, Markup]:
    """Style and script (this package's, then those of ``folders``), and the security policy that allows just these."""
    places = (TEMPLATES, *folders)
    style, script = ("".join((folder / name).read_text(encoding="utf-8") for folder in places
                             if (folder / name).exists()) for name in ("style.css", "script.js"))
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    policy = (f"default-src 'none'; style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'; "
              "img-src data:; base-uri 'none'; form-action 'none'")
    return {"style": Markup(style), "script": Markup(script), "policy": Markup(policy)}


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table for machines, with nothing in it that a spreadsheet would run."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([header, *([_inert(cell) for cell in row] for row in rows)])
    return file.getvalue()


def _inert(cell: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets a leading apostrophe; numbers stay."""
    text = str(cell)
    try:
        float(text)
    except ValueError:
        return "'" + text if text[:1] in ("=", "+", "-", "@", "\t", "\r") else cell
    return cell


def data_uri(name: str, text: str) -> str:
    """The content of a file to download, by its name."""
    kind = {"csv": "text/csv", "json": "application/json"}.get(name.rsplit(".", 1)[-1], "text/plain")
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
