"""From a configuration to a plan: which people and sites there are; ``rows`` knows which weights are here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.benchmark.config import Config, TaskEntry, expanded
from headstart.benchmark.plan import Plan, PlannedTask
from headstart.benchmark.rows import make_rows
from headstart.brains.bids import read_bids
from headstart.brains.cohort import Scan
from headstart.brains.store import Store
from headstart.brains.volumes import volume_spec
from headstart.errors import HeadstartError
from headstart.files import digest_json
from headstart.names import BACKBONES
from headstart.simulation.base import DRAWN_VERSION
from headstart.simulation.cohort import Design
from headstart.simulation.labelmaps import LabelMapGenerator
from headstart.tasks import DECLARED, Task


def make_plan(config: Config, *, dry: bool = False) -> Plan:
    """Look at the data's tables and at the weights, and settle what will be done.

    Args:
        dry: take the configuration's word for folders that are not here, of data and of starts, and fetch nothing.

    Raises:
        HeadstartError: data are missing or cannot answer a task, a start cannot be used, or nothing is left.
    """
    volume_spec(config.volume)
    notes: list[str] = []
    if unknown := {entry.backbone for entry in config.rows} - set(BACKBONES):
        raise HeadstartError(f"unknown backbone '{min(unknown)}'", fix=f"Choose one of: {', '.join(BACKBONES)}.")
    _check_repeated("start", (f"{entry.upstream} in {entry.backbone}" for entry in config.rows), "upstream")
    tasks = [task for entry in config.tasks for task in _tasks(entry, config.volume, notes, dry)]
    _check_repeated("task", (task.name for task in tasks), "name")
    rows = make_rows(config, notes, dry=dry)
    plan = Plan(name=config.name, about=config.about, volume=config.volume, tasks=tuple(tasks),
                rows=tuple(rows), train_sizes=config.train_sizes, seeds=tuple(range(config.seeds)),
                training=config.training, test_parts=config.test_parts, accept_licence=config.accept_licence,
                notes=tuple(notes))
    for task in tasks:
        if not plan.sizes(task):
            raise HeadstartError(f"task '{task.name}' has {plan.most_training(task)} people to learn from, fewer than "
                                 "any of train_sizes", fix="Add a smaller size, or `full`.")
    return plan


def _check_repeated(what: str, names: Iterable[str], field: str) -> None:
    """Results go by these names: of two that are alike, one would stand in for the other."""
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise HeadstartError(f"the benchmark has the {what} '{name}' {times} times",
                             fix=f"Give each a `{field}:` of its own.")


# --- tasks


@dataclass(frozen=True)
class _People:
    """Who there is: usable scans, and the sites that are held out."""

    scans: tuple[Scan, ...]
    outside: frozenset[str]

    @property
    def inside(self) -> tuple[str, ...]:
        return tuple(sorted({scan.site for scan in self.scans} - self.outside))

    def count(self, *, outside: bool) -> int:
        return len({scan.subject for scan in self.scans if (scan.site in self.outside) == outside})


def _tasks(entry: TaskEntry, volume: str, notes: list[str], dry: bool) -> list[PlannedTask]:
    if entry.task not in DECLARED:
        raise HeadstartError(f"unknown task '{entry.task}'", fix=f"Choose one of: {', '.join(DECLARED)}.")
    if entry.simulate:
        return [_simulated(entry)]
    missing = [path for path in map(expanded, (*entry.bids, *entry.outside_bids, *_listed(entry.store)))
               if not path.is_dir()]
    if missing or not (entry.bids or entry.store):
        return [_expected(entry, missing, notes, dry)]
    people = _usable(entry, DECLARED[entry.task], _scans(entry, volume, notes))
    if not entry.leave_out:
        return [_planned(entry, people, entry.name or entry.task)]
    sites = sorted({scan.site for scan in people.scans})
    if len(sites) < 2:
        raise HeadstartError(f"task '{entry.task}' leaves each site out in turn, and there is only '{sites[0]}'",
                             fix="Give data of two sites at least.")
    return [_planned(entry, _People(people.scans, frozenset([site])), f"{entry.name or entry.task}@{site}")
            for site in sites]


def _simulated(entry: TaskEntry) -> PlannedTask:
    """Sites and people follow from the design."""
    assert entry.simulate is not None
    size = entry.simulate.n
    labelmaps = expanded(entry.simulate.labelmaps) if entry.simulate.labelmaps else None
    asked = entry.simulate.model_dump(exclude={"n"}) | {"labelmaps": labelmaps}
    design = Design(**asked)
    people = [design.person(index) for index in range(size)]
    sites, outside = [person.site for person in people], set(entry.outside_sites)
    _check_sites(entry, outside, set(sites))
    _check_classes(entry, [getattr(person, DECLARED[entry.task].column) for person in people
                           if person.site not in outside])
    if entry.leave_out:
        raise HeadstartError(f"task '{entry.name or entry.task}': leave_out is for scans that are there",
                             fix="Name the sites of a simulated cohort in `outside_sites:`, one task for each.")
    held_out = sum(site in outside for site in sites)
    return _task(entry, entry.name or entry.task, simulated=True, scans=_drawn(labelmaps),
                 simulate={"n": size, **asked, "labelmaps": str(labelmaps) if labelmaps else None},
                 inside_sites=tuple(sorted(set(sites) - outside)), outside_sites=tuple(sorted(outside)),
                 people_inside=size - held_out, people_outside=held_out)


def _drawn(labelmaps: Path | None) -> str:
    """What made the scans: with other label maps, or another simulator, they are others."""
    return f"simulator {DRAWN_VERSION}" + (f" {LabelMapGenerator(labelmaps).digest()}" if labelmaps else "")


def _expected(entry: TaskEntry, missing: Sequence[Path], notes: list[str], dry: bool) -> PlannedTask:
    """Without data: what the configuration expects, for a dry run."""
    problem = (f"task '{entry.task}': {', '.join(map(str, missing))} is not a folder" if missing
               else f"task '{entry.task}' has no data")
    if not dry or entry.people is None:
        raise HeadstartError(problem, fix="Set the variables that the configuration names to your BIDS folders."
                             if missing else "Give --data BIDS ...")
    notes.append(f"{problem}; {entry.people} people inside and {entry.people_outside} outside are assumed")
    return _task(entry, entry.name or entry.task, simulated=False, bids=(*entry.bids, *entry.outside_bids),
                 inside_sites=(), outside_sites=(), people_inside=entry.people, people_outside=entry.people_outside)


def _scans(entry: TaskEntry, volume: str, notes: list[str]) -> Sequence[Scan]:
    """Of the store's index, or of the folders' tables."""
    if entry.store:
        store = Store.open(expanded(entry.store))
        if store.spec.name != volume:
            raise HeadstartError(f"holds scans at {store.spec.name}, and the benchmark is at {volume}", path=store.path,
                                 fix=f"Set `volume: {store.spec.name}`, or prepare the scans again.")
        return [stored.scan for stored in store.scans]
    cohort = read_bids([expanded(text).resolve() for text in (*entry.bids, *entry.outside_bids)])
    notes += [note for note in cohort.notes if note not in notes]
    return cohort.scans


def _usable(entry: TaskEntry, task: Task, scans: Sequence[Scan]) -> _People:
    """The scans that have a label, and which of their sites are held out."""
    labelled = ~np.isnan(task.labels(scans))
    usable = tuple(scan for scan, good in zip(scans, labelled, strict=True) if good)
    if not usable:
        raise HeadstartError(f"no scan can be used for '{task.name}'",
                             fix=f"Fill column '{task.column}' of participants.tsv.")
    folders = {expanded(text).resolve() for text in entry.outside_bids}
    outside = {scan.site for scan in usable if _within(scan.path, folders)} | set(entry.outside_sites)
    _check_shared(entry, usable, outside - set(entry.outside_sites), folders)
    _check_sites(entry, outside, {scan.site for scan in usable})
    inside = [scan for scan in usable if scan.site not in outside]
    _check_classes(entry, [task.classes[int(label)] for label in task.labels(inside)] if task.classes else [])
    return _People(usable, frozenset(outside))


def _check_shared(entry: TaskEntry, scans: Sequence[Scan], outside: set[str], folders: set[Path]) -> None:
    """Two studies that number their sites from 1 would have people of the first held out with the second."""
    shared = {scan.site for scan in scans if scan.site in outside and not _within(scan.path, folders)}
    if shared:
        raise HeadstartError(f"task '{entry.name or entry.task}': site '{min(shared)}' is in `bids` and `outside_bids`",
                             fix="If they are two scanners, rename one in column 'site' of participants.tsv; if they "
                                 "are one, name it in `outside_sites`.")


def _listed(text: str | None) -> tuple[str, ...]:
    return (text,) if text else ()


def _within(path: Path, folders: Iterable[Path]) -> bool:
    return any(folder in path.resolve().parents for folder in folders)


def _planned(entry: TaskEntry, people: _People, name: str) -> PlannedTask:
    task = DECLARED[entry.task]
    scans = digest_json([[*scan.key, scan.subject, scan.site, label] for scan, label in
                         zip(people.scans, task.labels(people.scans).tolist(), strict=True)])
    return _task(entry, name, simulated=any(scan.simulated for scan in people.scans),
                 bids=tuple(str(expanded(text).resolve()) for text in (*entry.bids, *entry.outside_bids)), scans=scans,
                 store=str(expanded(entry.store).resolve()) if entry.store else None,
                 inside_sites=people.inside, outside_sites=tuple(sorted(people.outside)),
                 people_inside=people.count(outside=False), people_outside=people.count(outside=True))


def _task(entry: TaskEntry, name: str, **fields) -> PlannedTask:
    task = DECLARED[entry.task]
    return PlannedTask(name=name, task=task.name, kind=task.kind, column=task.column, classes=task.classes,
                       positive=task.classes[-1] if task.classes else None, unit=task.unit, **fields)


def _check_sites(entry: TaskEntry, outside: set[str], known: set[str]) -> None:
    if unknown := sorted(outside - known):
        raise HeadstartError(f"task '{entry.task}' has no usable scan of site '{unknown[0]}'",
                             fix=f"Its sites: {', '.join(sorted(known))}.")
    if not known - outside:
        raise HeadstartError(f"task '{entry.task}' holds out every site", fix="Leave one to train on.")


def _check_classes(entry: TaskEntry, found: Sequence[str]) -> None:
    """Who has only seen one class cannot learn to tell two apart; ``found``: those of the training sites."""
    task = DECLARED[entry.task]
    if missing := [name for name in task.classes if name not in found]:
        fix = f"Give a cohort of people with {task.column} {' and '.join(task.classes)}."
        raise HeadstartError(f"task '{entry.name or entry.task}': nobody at the training sites has {task.column} "
                             f"{missing[0]}", fix=fix)
