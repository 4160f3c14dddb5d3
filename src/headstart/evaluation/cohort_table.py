"""Who was scored: the cohort by site, and scores by site, sex and age band."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from headstart.brains.cohort import Scan, ScanKey
from headstart.evaluation.metrics import metrics_for
from headstart.evaluation.predictions import Predictions
from headstart.evaluation.statistics import Bootstrap, Estimate, score

AGE_BANDS_YEARS = (0, 30, 45, 60, 75, 200)
SMALLEST_GROUP = 5  # subjects; a smaller sub-group of sex or age is not scored
ByGroup = dict[str, dict[str, dict[str, Estimate]]]  # partition → group → metric


class CohortRow(BaseModel):
    """The people of one site in one partition; ages are of subjects' first scans, in years."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partition: str
    site: str
    subjects: int
    scans: int
    age_mean: float | None
    age_sd: float | None
    age_min: float | None
    age_max: float | None
    female_percent: float | None = Field(description="of those whose sex is known")
    classes: dict[str, int] = Field({}, description="subjects by class, of a classification")


def cohort_table(parts: Mapping[str, Predictions], scans: Sequence[Scan]) -> tuple[CohortRow, ...]:
    """A row for each partition and site."""
    known = {scan.key: scan for scan in scans}
    return tuple(_row(partition, str(site), part.select(part.site == site), known)
                 for partition, part in parts.items() for site in sorted(set(part.site)))


def _row(partition: str, site: str, part: Predictions, known: Mapping[ScanKey, Scan]) -> CohortRow:
    first: dict[str, tuple[Scan, float]] = {}
    for subject, key, truth in zip(part.subject, part.keys, part.truth, strict=True):
        first.setdefault(subject, (known[key], truth))
    ages = np.array([scan.age_years for scan, _ in first.values() if scan.age_years is not None])
    sexes = [scan.sex for scan, _ in first.values() if scan.sex]
    summary = [round(float(f(ages)), 2) for f in (np.mean, np.std, np.min, np.max)] if len(ages) else [None] * 4
    counts = Counter(part.classes[int(truth)] for _, truth in first.values()) if part.classes else {}
    return CohortRow(
        partition=partition, site=site, subjects=len(first), scans=len(set(part.keys)),
        age_mean=summary[0], age_sd=summary[1], age_min=summary[2], age_max=summary[3],
        female_percent=round(100 * sexes.count("F") / len(sexes), 1) if sexes else None,
        classes={name: counts[name] for name in part.classes})


def age_band(years: float | None) -> str | None:
    """The band that an age falls into, e.g. ``45–59``."""
    if years is None:
        return None
    low, high = next(band for band in pairwise(AGE_BANDS_YEARS) if years < band[1])
    return f"under {high}" if low == 0 else f"{low} and over" if high == AGE_BANDS_YEARS[-1] else f"{low}–{high - 1}"


def in_order(group: str) -> tuple[bool, str]:
    """A key that sorts age bands by age, and other groups by name."""
    return not group.startswith("under "), group


def subgroups(parts: Mapping[str, Predictions], scans: Sequence[Scan], target: str,
              bootstrap: Bootstrap) -> dict[str, ByGroup]:
    """Scores by site, sex and age band. A classification's own target is not split by (one class each)."""
    known = {scan.key: scan for scan in scans}
    groupings: dict[str, tuple[Callable[[Scan], str | None], int]] = {
        "by_site": (lambda scan: scan.site, 1),
        "by_sex": (lambda scan: None if target == "sex" else scan.sex, SMALLEST_GROUP),
        "by_age": (lambda scan: age_band(scan.age_years), SMALLEST_GROUP),
    }
    return {name: {partition: _scores_by(part, [group(known[key]) for key in part.keys], smallest, bootstrap)
                   for partition, part in parts.items() if len(part)}
            for name, (group, smallest) in groupings.items()}


def _scores_by(part: Predictions, groups: list[str | None], smallest: int,
               bootstrap: Bootstrap) -> dict[str, dict[str, Estimate]]:
    column = np.array(groups, dtype=object)
    tables = {name: part.select(column == name) for name in sorted({group for group in groups if group}, key=in_order)}
    tables = {name: table for name, table in tables.items() if table.num_subjects >= smallest}
    return {name: score(table, metrics_for(table.kind), bootstrap) for name, table in tables.items()}
