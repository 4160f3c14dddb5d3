"""BIDS folders to a cohort: which T1w scans there are, and what the tables say of each person.

Whatever is odd in a data set is mended where the meaning is plain, left out where it is not, and noted in both cases.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from headstart.brains.bids_files import Found, Oddities, find_scans, same_person
from headstart.brains.cohort import Cohort, Scan
from headstart.brains.tables import Codebook, Table, merge_rows, read_table
from headstart.errors import HeadstartError
from headstart.files import read_json

SIMULATOR = "headstart simulate"
NAMED = 5  # a note names so many cases and counts the rest
_ID = re.compile(r"[\w.+-]+")
_OWN = {"age", "age_years", "sex", "gender", "site"}  # columns that a Scan has fields for

Visit = tuple[str, str]  # participant_id, session; a session of "" means all visits


def read_bids(folders: Sequence[Path]) -> Cohort:
    """Find the T1w scans of one or more BIDS data sets, with their participants' data.

    One scan per session: of several, one without entities beyond ``sub-``, ``ses-`` and ``run-`` comes first (no
    ``acq-``, ``rec-``, ``ce-`` …), then the shorter name, then the first in the alphabet (``run-01``).
    Per-visit values (``sub-X_sessions.tsv``, or rows with a ``session_id``) override the participant's.
    Rows that contradict each other leave that value absent. A file that stands in two places is one subject.

    Args:
        folders: one or more data sets; two of the same name become ``name`` and ``name-2``.

    Returns:
        The scans sorted by data set as given, then participant, then session.

    Raises:
        HeadstartError: a folder is missing, is not BIDS, or holds no T1w scan.
    """
    if not folders:
        raise HeadstartError("no BIDS folder was given", fix="Give at least one folder with sub-*/anat/*_T1w.nii.gz.")
    scans: list[Scan] = []
    notes: list[str] = []
    for name, folder in _named(folders, notes).items():
        dataset = _DataSet(name, folder)
        scans += dataset.scans()
        notes += [f"{name}: {kind}: {_some(cases)}" for kind, cases in dataset.odd.items()]
    subjects = same_person(scans)
    copies = {f"{scan.dataset}/{scan.participant_id} = {subject}" for scan, subject in zip(scans, subjects)
              if f"{scan.dataset}/{scan.participant_id}" != subject}
    if copies:
        notes.append(f"the same file stands under two participants, who count as one subject: {_some(sorted(copies))}")
    return Cohort(tuple(replace(scan, subject=subject) for scan, subject in zip(scans, subjects)), tuple(notes))


def _some(cases: Sequence[str]) -> str:
    more = f" and {len(cases) - NAMED} more" if len(cases) > NAMED else ""
    return ", ".join(case[:120] for case in cases[:NAMED]) + more


def _named(folders: Sequence[Path], notes: list[str]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for folder in map(Path, folders):
        path = _resolved(folder)
        if path in named.values():
            notes.append(f"{folder} was given twice and counts once")
            continue
        base = re.sub(r"[^\w.+-]+", "-", path.name) or "data"
        name, n = base, 1
        while name in named:
            n += 1
            name = f"{base}-{n}"
        if n > 1:
            notes.append(f"{folder} is called {name}, because another data set is called {base}")
        named[name] = path
    return named


def _resolved(folder: Path) -> Path:
    fix = "Give a BIDS folder: one that holds sub-*/anat/*_T1w.nii.gz."
    try:
        path = folder.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a symlink loop, before Python 3.13
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise HeadstartError(reason, path=folder, fix=fix) from error
    if not path.is_dir():
        raise HeadstartError("is not a folder", path=folder, fix=fix)
    return path


@dataclass
class _DataSet:
    """One folder while it is being read."""

    name: str
    folder: Path
    odd: Oddities = field(default_factory=lambda: defaultdict(list))

    def scans(self) -> list[Scan]:
        found = find_scans(self.folder, self.odd)
        rows = self._merged(self._participants())
        self._compare(found, {participant for participant, _ in rows})
        rows = {**rows, **self._sessions(found, rows)}
        return self._described(found, [_lookup(rows, scan) for scan in found])

    def _participants(self) -> Iterable[tuple[Visit, dict[str, str]]]:
        """Rows of ``participants.tsv``, by visit where it has one row for each."""
        for table in self._table(self.folder / "participants.tsv", "participant_id"):
            session = next((name for name in table.columns if name.casefold() in ("session_id", "session")), "")
            for row in table.rows:
                if participant := self._identifier(row.pop("participant_id", ""), "sub-"):
                    yield (participant, self._identifier(row.pop(session, ""), "ses-")), row

    def _sessions(self, found: Sequence[Found], rows: Mapping[Visit, dict[str, str]]) -> dict[Visit, dict[str, str]]:
        """What the subjects' own tables say of their visits, on top of ``rows``."""
        visits: list[tuple[Visit, dict[str, str]]] = []
        for participant, path in dict.fromkeys((scan.participant_id, scan.sessions_table) for scan in found):
            for table in self._table(path, "session_id") if path else ():
                for row in table.rows:
                    if session := self._identifier(row.pop("session_id", ""), "ses-"):
                        visits.append(((participant, session), row))
        return {visit: {**rows.get(visit, {}), **row} for visit, row in self._merged(visits).items()}

    def _table(self, path: Path, key: str) -> list[Table]:
        """The table at ``path`` with its key column spelt as in the standard; none if it cannot be used."""
        name = path.relative_to(self.folder)
        try:
            if not path.exists():
                raise HeadstartError("is missing; ages, sexes and other columns are unknown")
            table = read_table(path)
            spelt = next((column for column in table.columns if column.casefold() == key), None)
            if spelt is None:
                raise HeadstartError(f"has no column {key}")
        except (HeadstartError, OSError) as error:
            self.odd["tables that are not used"].append(f"{name} {getattr(error, 'problem', error)}")
            return []
        if spelt == key:
            return [table]
        rows = tuple({key if column == spelt else column: cell for column, cell in row.items()} for row in table.rows)
        return [Table(tuple(key if column == spelt else column for column in table.columns), rows)]

    def _identifier(self, cell: str, prefix: str) -> str:
        """``cell`` with the prefix it should have; empty if it is absent or could lead out of the folder."""
        if cell and (not _ID.fullmatch(cell) or ".." in cell):
            self.odd["ids left out, because an id is made of letters and digits"].append(ascii(cell))
            return ""
        return cell if not cell or cell.startswith(prefix) else prefix + cell

    def _merged(self, rows: Iterable[tuple[Visit, dict[str, str]]]) -> dict[Visit, dict[str, str]]:
        grouped: dict[Visit, list[dict[str, str]]] = defaultdict(list)
        for visit, row in rows:
            grouped[visit].append(row)
        merged = {}
        for visit, same in grouped.items():
            merged[visit], contradicted = merge_rows(same)
            if contradicted:
                who = "/".join(part for part in visit if part)
                self.odd["ids with several rows that contradict each other; those values are left out"].append(
                    f"{who} ({', '.join(sorted(contradicted))})")
        return merged

    def _compare(self, found: Sequence[Found], listed: Collection[str]) -> None:
        scanned = {scan.participant_id for scan in found}
        if listed and (missing := sorted(scanned - set(listed))):
            self.odd["scans without a row in participants.tsv"] += missing
        if missing := sorted(set(listed) - scanned):
            self.odd["rows of participants.tsv without a T1w scan"] += missing

    def _described(self, found: Sequence[Found], rows: Sequence[dict[str, str]]) -> list[Scan]:
        codebook, simulated = self._codebook(), self._simulated()
        folded = [{name.casefold(): cell for name, cell in row.items()} for row in rows]
        ages = self._ages([row.get("age", row.get("age_years", "")) for row in folded], codebook)
        sexes = self._sexes([row.get("sex", row.get("gender", "")) for row in folded], codebook)
        return [Scan(dataset=self.name, participant_id=scan.participant_id, session=scan.session, path=scan.path,
                     site=fold.get("site", self.name), age_years=age[0] if age else None,
                     age_censored=bool(age and age[1]), sex=sex, simulated=simulated,
                     columns={name: cell for name, cell in row.items() if name.casefold() not in _OWN})
                for scan, row, fold, age, sex in zip(found, rows, folded, ages, sexes)]

    def _simulated(self) -> bool:
        """Whether ``dataset_description.json`` says that ``headstart simulate`` made the data set."""
        try:
            description = read_json(self.folder / "dataset_description.json")
            return any(made.get("Name") == SIMULATOR for made in description.get("GeneratedBy", ()))
        except (HeadstartError, AttributeError, TypeError):
            return False

    def _codebook(self) -> Codebook:
        path = self.folder / "participants.json"
        try:
            return Codebook.read(path) if path.exists() else Codebook()
        except (HeadstartError, OSError) as error:
            self.odd["tables that are not used"].append(f"{path.name} {getattr(error, 'problem', error)}")
            return Codebook()

    def _ages(self, cells: Sequence[str], codebook: Codebook) -> list[tuple[float, bool] | None]:
        ages = [codebook.age(cell) if cell else None for cell in cells]
        unread = [cell for cell, age in zip(cells, ages) if cell and age is None]
        if unread:
            self.odd["ages left out, because they are not years (another unit? name it in participants.json: "
                     '"age": {"Units": "months"})'] += _distinct(unread)
        if 2 * len(unread) > sum(map(bool, cells)):  # the few that could be years are months as well
            return [None] * len(cells)
        if any(ages) and not codebook.in_years:
            self.odd["ages turned into years, as participants.json says"].append(str(codebook.age_unit))
        return ages

    def _sexes(self, cells: Sequence[str], codebook: Codebook) -> list[str | None]:
        sexes = [codebook.sex(cell) if cell else None for cell in cells]
        unread = [cell for cell, sex in zip(cells, sexes) if cell and sex is None]
        if unread:
            self.odd["sexes left out, because they are neither F nor M (numbers need Levels in participants.json)"] += (
                _distinct(unread))
        return sexes


def _distinct(cells: Sequence[str]) -> list[str]:
    return [f"{cell!a} ({count}×)" for cell, count in Counter(cells).most_common()]


def _lookup(rows: Mapping[Visit, dict[str, str]], scan: Found) -> dict[str, str]:
    """The participant's row, overridden by the visit's."""
    return {**rows.get((scan.participant_id, ""), {}), **rows.get((scan.participant_id, scan.session), {})}
