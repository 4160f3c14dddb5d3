"""The nouns of a data set: a scan, its key, and a cohort of scans."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple


class ScanKey(NamedTuple):
    """What identifies a scan everywhere: ``sub-01`` of two data sets never collide."""

    dataset: str
    participant_id: str
    session: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in self if part)


@dataclass(frozen=True)
class Scan:
    """One T1-weighted scan and what its tables say of the person, cleaned.

    Attributes:
        dataset: name of the BIDS data set (its folder's name).
        participant_id: as in the standard, with ``sub-``.
        session: with ``ses-``; empty where the data set has none.
        path: the NIfTI file.
        site: column ``site``, else the data set.
        age_years: ``None`` where unknown; ``89+`` reads as 89 with ``age_censored``.
        sex: ``"F"``, ``"M"`` or ``None``.
        columns: every other column of the participant's (and session's) row, as text; ``n/a`` is absent.
        subject: identity for splitting: the first key under which this very person was seen
            (the same file in two data sets is one subject).
        simulated: the data set says that ``headstart simulate`` made it.
    """

    dataset: str
    participant_id: str
    session: str
    path: Path
    site: str
    age_years: float | None = None
    age_censored: bool = False
    sex: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    subject: str = ""
    simulated: bool = False

    @property
    def key(self) -> ScanKey:
        return ScanKey(self.dataset, self.participant_id, self.session)

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it; ``from_json`` reads it."""
        return {**asdict(self), "path": str(self.path), "columns": dict(self.columns)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scan:
        """What ``to_json`` gave."""
        columns = {sys.intern(name): cell for name, cell in value["columns"].items()}  # 100,000 scans share their names
        return cls(**{**value, "path": Path(value["path"]), "columns": columns})


@dataclass(frozen=True)
class Cohort:
    """Scans in a fixed order, and in plain words what was wrong with the folders they came from."""

    scans: tuple[Scan, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.scans)

    def __iter__(self) -> Iterator[Scan]:
        return iter(self.scans)

    def with_scans(self, scans: tuple[Scan, ...], *notes: str) -> Cohort:
        """The same cohort with other scans, and notes on why."""
        return replace(self, scans=scans, notes=self.notes + notes)
