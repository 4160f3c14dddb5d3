"""The tables of a BIDS data set as people really write them, and what their cells mean: age, sex, absent."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.errors import HeadstartError

MAX_BYTES = 2**26  # 100,000 participants with 100 columns
MAX_AGE_YEARS = 130.0
ABSENT = frozenset({"", "n/a", "na", "n.a.", "nan", "#n/a", "<na>", "null", "nil", "-", "--", ".", "?", "missing",
                    "unknown", "not available", "not applicable"})
FEMALE = frozenset({"f", "female", "fem", "woman", "girl", "w", "weiblich", "frau", "femme", "mujer"})
MALE = frozenset({"m", "male", "man", "boy", "männlich", "mann", "homme", "hombre"})
PER_YEAR = {"y": 1.0, "m": 12.0, "w": 365.25 / 7, "d": 365.25}  # by the first letter of the unit
_AGE = re.compile(r"(?P<more>[>≥]=?)?\s*(?P<number>\d{1,6}(?:[.,]\d{1,12})?)\s*(?P<plus>\+)?"
                  r"\s*(?P<unit>y|yr|yrs|years?|m|mo|months?|w|weeks?|d|days?)?\.?", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """Rows of a table by column name, surrounding blanks and quotes removed, absent cells left out."""

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]


def read_table(path: str | Path) -> Table:
    """Read a ``.tsv``: UTF-8 (with or without BOM), UTF-16 or Latin-1, any line ends; also commas for tabs.

    Raises:
        HeadstartError: the file cannot be read or is no table.
    """
    lines = [line for line in re.split(r"\r\n|\r|\n", _text(Path(path))) if line.strip()]
    if not lines:
        raise HeadstartError("is empty", path=path, fix="It needs a line of column names, then a line per participant.")
    try:
        cells = list(csv.reader(lines, **_dialect(lines[0])))
    except csv.Error as error:
        raise HeadstartError(f"is not a table ({error})", path=path, fix="Save it as tab-separated text.") from error
    header = [_clean(name) for name in cells[0]]
    return Table(tuple(name for name in header if name), tuple(_row(header, line) for line in cells[1:]))


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise HeadstartError(f"cannot be read ({error.strerror})", path=path, fix="Check its permissions.") from error
    if len(content) > MAX_BYTES:
        raise HeadstartError(f"is larger than {MAX_BYTES >> 20} MB", path=path, fix="Is this a table of participants?")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    if b"\0" in content:
        raise HeadstartError("is not text", path=path, fix="Save it as tab-separated text, not as a spreadsheet.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _dialect(header: str) -> dict[str, Any]:
    if "\t" in header or not re.search("[,;]", header):
        return {"delimiter": "\t", "quoting": csv.QUOTE_NONE}  # BIDS: a quote is a character like any other
    return {"delimiter": max(",;", key=header.count)}


def _clean(cell: str) -> str:
    cell = cell.strip()
    return cell[1:-1].strip() if len(cell) > 1 and cell[0] == cell[-1] and cell[0] in "\"'" else cell


def _row(header: list[str], cells: list[str]) -> dict[str, str]:
    row: dict[str, str] = {}
    for name, cell in zip(header, map(_clean, cells)):
        if name and not is_absent(cell):
            row.setdefault(name, cell)  # of two columns with one name the first counts
    return row


def is_absent(cell: str) -> bool:
    """Whether ``cell`` is one of the many spellings of 'not available'."""
    return cell.casefold() in ABSENT


@dataclass(frozen=True)
class Codebook:
    """What ``participants.json`` says: the unit of the ages, and what each code of the column ``sex`` stands for."""

    age_unit: str | None = None
    sex_levels: Mapping[str, str] | None = None

    @classmethod
    def read(cls, path: Path) -> Codebook:
        """Read a BIDS sidecar; entries of the wrong type count as not given.

        Raises:
            HeadstartError: it is no JSON object.
        """
        try:
            content = json.loads(_text(path))
        except (ValueError, RecursionError) as error:
            raise HeadstartError(f"is not readable as JSON ({error})", path=path, fix="Mend or remove it.") from error
        if not isinstance(content, dict):
            raise HeadstartError("is not a JSON object", path=path, fix="Mend or remove it.")
        entries = {name.casefold(): entry for name, entry in content.items() if isinstance(entry, dict)}
        unit, levels = entries.get("age", {}).get("Units"), entries.get("sex", entries.get("gender", {})).get("Levels")
        return cls(unit if isinstance(unit, str) else None, _levels(levels) if isinstance(levels, dict) else None)

    @property
    def in_years(self) -> bool:
        return self._per_year(self.age_unit) == 1.0

    def sex(self, cell: str) -> str | None:
        """``"F"``, ``"M"``, or None where the cell does not say (numbers say nothing without a code book)."""
        words = (self.sex_levels or {}).get(cell, cell).casefold()
        for word in (words, *re.findall(r"\w+", words)[:1]):
            if word in FEMALE | MALE:
                return "F" if word in FEMALE else "M"
        return None

    def age(self, cell: str) -> tuple[float, bool] | None:
        """(years, whether the person may be older), or None where the cell is no age from 0 to 130 years."""
        match = _AGE.fullmatch(cell)
        if not match:
            return None
        years = float(match["number"].replace(",", ".")) / self._per_year(match["unit"] or self.age_unit)
        return (years, bool(match["more"] or match["plus"])) if years <= MAX_AGE_YEARS else None

    @staticmethod
    def _per_year(unit: str | None) -> float:
        return PER_YEAR.get((unit or "years").strip()[:1].casefold(), 1.0)


def _levels(levels: Mapping[str, Any]) -> dict[str, str]:
    """Code to words; a level may be its description or an object that holds it."""
    words = {code: level.get("Description") if isinstance(level, dict) else level for code, level in levels.items()}
    return {code: word for code, word in words.items() if isinstance(word, str)}


def merge_rows(rows: Iterable[Mapping[str, str]]) -> tuple[dict[str, str], set[str]]:
    """One row from several about the same thing; columns in which they contradict each other are left out and named."""
    merged: dict[str, str] = {}
    contradicted: set[str] = set()
    for row in rows:
        for name, cell in row.items():
            if merged.setdefault(name, cell) != cell:
                contradicted.add(name)
    return {name: cell for name, cell in merged.items() if name not in contradicted}, contradicted
