"""The overlap ledger: has this checkpoint seen the people it is about to be tested on?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

# How a cohort's data set may be called in a folder or a table, as the beginning of a name in plain letters and digits.
ALIASES = {
    "UK Biobank": ("ukb", "ukbiobank"), "ADNI": ("adni",), "OASIS": ("oasis",), "IXI": ("ixi",), "PPMI": ("ppmi",),
    "AIBL": ("aibl",), "HCP": ("hcp",), "ABCD": ("abcd",), "OpenBHB": ("openbhb",), "Cam-CAN": ("camcan",),
    "MRBrainS18": ("mrbrains",), "Medical Segmentation Decathlon": ("msd", "decathlon", "brats"),
}
ACCESSION = re.compile(r"ds\d{6}")  # OpenNeuro's data sets


@dataclass(frozen=True)
class Overlap:
    """A data set that the upstream has, or may have, been trained on.

    Attributes:
        dataset: the data set in question; all of them where the upstream's ledger is not known.
        cohort: the cohort in the upstream's ledger; None where its ledger is not known.
        certainty: ``certain`` by name, ``possible`` where a collection or an unknown ledger may include it.
    """

    dataset: str
    cohort: str | None
    certainty: Literal["certain", "possible"]

    def __str__(self) -> str:
        if self.cohort is None:
            return f"{self.dataset}: it is not known which scans the upstream was trained on; these may be among them"
        verb = "was" if self.certainty == "certain" else "may have been"
        return f"{self.dataset}: the upstream {verb} trained on it ({self.cohort})"


def overlaps(seen: Iterable[str] | None, datasets: Iterable[str]) -> list[Overlap]:
    """Which ``datasets`` (names of folders or cohorts) are among the cohorts ``seen``; None is an unknown ledger."""
    names = sorted(set(datasets))
    if seen is None:
        return [Overlap(", ".join(names), None, "possible")] if names else []
    cohorts = list(seen)
    return [found for name in names if (found := _first(cohorts, name)) is not None]


def _first(cohorts: list[str], dataset: str) -> Overlap | None:
    plain = _plain(dataset)
    for cohort in cohorts:
        if any(plain.startswith(alias) for alias in (_plain(cohort), *ALIASES.get(cohort, ()))):
            return Overlap(dataset, cohort, "certain")
    if "OpenNeuro" in cohorts and ACCESSION.match(plain):
        return Overlap(dataset, "OpenNeuro", "possible")
    return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
