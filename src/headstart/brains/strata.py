"""Subjects, the strata they belong to, and dealing them out evenly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from headstart.brains.cohort import Scan
from headstart.errors import HeadstartError

Stratify = Literal["regression", "classification"]
MIN_PER_CLASS = 4  # with two folds, two are left to train and to validate on


@dataclass(frozen=True, eq=False)
class Subject:
    """One person.

    Attributes:
        scans: numbers of the scans, by session.
        target: of the first of them.
        site: of the first of them.
        sites: of all of them.
    """

    name: str
    scans: tuple[int, ...]
    target: float | str
    site: str
    sites: frozenset[str]


def subjects_of(scans: Sequence[Scan], target: np.ndarray) -> list[Subject]:
    """The subjects of ``scans``, sorted by name, so that the order of the scans is forgotten."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for i in sorted(range(len(scans)), key=lambda i: scans[i].key):
        numbers[scans[i].subject or "/".join(scans[i].key[:2])].append(i)
    values = np.asarray(target).tolist()
    return [Subject(name, tuple(own), values[own[0]], scans[own[0]].site,
                    frozenset(scans[i].site for i in own)) for name, own in sorted(numbers.items())]


def order_by_strata(subjects: Sequence[Subject], stratify: Stratify, parts: int,
                    random: np.random.Generator) -> list[Subject]:
    """The subjects sorted by class (or by quantile bin of the target), then site, then at random."""
    labels = _bins(subjects, parts) if stratify == "regression" else [subject.target for subject in subjects]
    chance = random.permutation(len(subjects))
    order = sorted(range(len(subjects)), key=lambda i: (labels[i], subjects[i].site, chance[i]))
    return [subjects[i] for i in order]


def _bins(subjects: Sequence[Subject], parts: int) -> list[float | str]:
    """At most ten quantile bins, each wide enough to put two subjects into every part."""
    bins = int(np.clip(len(subjects) // (2 * parts), 1, 10))
    target = np.array([subject.target for subject in subjects], float)
    edges = np.quantile(target, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(edges, target, side="right").tolist()


def deal(ordered: Sequence[Subject], parts: int) -> list[list[Subject]]:
    """Deal like cards: each stratum's share differs by at most one subject between two parts."""
    return [list(ordered[part::parts]) for part in range(parts)]


def take_validation(ordered: Sequence[Subject], stratify: Stratify, parts: int) -> tuple[list[Subject], list[Subject]]:
    """About one in ``parts`` of the subjects, at least one of each class, and the rest."""
    groups: dict[float | str, list[Subject]] = defaultdict(list)
    for subject in ordered:
        groups[subject.target if stratify == "classification" else ""].append(subject)
    chosen = [subject for group in groups.values() for subject in _one_in(group, parts)]
    names = {subject.name for subject in chosen}
    return chosen, [subject for subject in ordered if subject.name not in names]


def _one_in(group: Sequence[Subject], parts: int) -> list[Subject]:
    count = max(1, round(len(group) / parts)) if len(group) > 1 else 0
    return [group[int((i + 0.5) * len(group) / count)] for i in range(count)]


def check_targets(subjects: Sequence[Subject], stratify: Stratify, folds: int) -> None:
    """Refuse what cannot be cross-validated.

    Raises:
        HeadstartError: too few subjects, one class (or value) only, or a class with fewer subjects than folds.
    """
    if len(subjects) < 2 * folds:
        raise HeadstartError(f"{len(subjects)} subjects with a scan and the target are too few for {folds} folds",
                             fix=f"Give at least {2 * folds} subjects in the training sites, or ask for fewer folds.")
    counts: dict[float | str, int] = defaultdict(int)
    for subject in subjects:
        counts[subject.target] += 1
    if len(counts) == 1:
        raise HeadstartError(f"all {len(subjects)} subjects in the training sites have the same target "
                             f"({next(iter(counts))})", fix="There is nothing to learn; give another column or sites.")
    rarest = min(counts, key=counts.__getitem__)
    needed = max(folds, MIN_PER_CLASS)
    if stratify == "classification" and counts[rarest] < needed:
        raise HeadstartError(f"class {rarest} has {counts[rarest]} subjects in the training sites, fewer than {needed}",
                             fix="Ask for fewer folds, leave that class out, or give more scans.")
