"""The files of a BIDS data set: find the T1w scans, choose one a session, recognise a file seen before."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.brains.cohort import Scan
from headstart.errors import HeadstartError
from headstart.files import sha256_file

Oddities = defaultdict[str, list[str]]  # what is odd, in plain words: the cases
SAMPLE_BYTES = 2**14
_LABEL = re.compile(r"(sub|ses)-[\w.+-]+")


@dataclass(frozen=True)
class Found:
    """One session's T1w scan, and its subject's table of sessions where there is one."""

    participant_id: str
    session: str
    path: Path
    sessions_table: Path | None


def find_scans(folder: Path, odd: Oddities) -> list[Found]:
    """One T1w scan per session, sorted; what is odd is added to ``odd``.

    Only ``sub-*/anat`` and ``sub-*/ses-*/anat`` are looked at, so derivatives, hidden folders and symlink loops
    are never entered.

    Raises:
        HeadstartError: no subject, or no scan in any of them.
    """
    subjects = _folders(folder, "sub-", odd)
    if not subjects:
        raise HeadstartError("is not a BIDS data set: it holds no sub-* folder", path=folder,
                             fix="Give the folder that holds sub-*/anat/*_T1w.nii.gz. From DICOM files, dcm2bids or "
                                 "heudiconv makes one.")
    found = [scan for subject in subjects for scan in _subject(subject, odd)]
    if not found:
        reasons = "".join(f"; {kind}: {cases[0]}" for kind, cases in odd.items())
        raise HeadstartError(f"holds no T1w scan{reasons}", path=folder,
                             fix="Scans are looked for at sub-*/anat/*_T1w.nii.gz and sub-*/ses-*/anat/*_T1w.nii.gz.")
    return found


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _folders(folder: str | Path, prefix: str, odd: Oddities) -> list[os.DirEntry[str]]:
    """Sub-folders called ``prefix`` + label that can be used in tables and paths."""
    try:
        folders = [entry for entry in _entries(folder) if entry.name.startswith(prefix) and _is_folder(entry)]
    except OSError as error:
        odd[f"folders that cannot be read ({error.strerror})"].append(os.path.basename(folder))
        return []
    for entry in folders:
        if not _LABEL.fullmatch(entry.name):
            odd["folders left out, because of odd signs in their names"].append(ascii(entry.name))
    return [entry for entry in folders if _LABEL.fullmatch(entry.name)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symlink that points to itself
        return False


def _subject(subject: os.DirEntry[str], odd: Oddities) -> list[Found]:
    table = Path(subject.path, f"{subject.name}_sessions.tsv")
    sessions = [("", subject.path)] + [(entry.name, entry.path) for entry in _folders(subject.path, "ses-", odd)]
    sessions_table = table if len(sessions) > 1 and table.is_file() else None
    return [Found(subject.name, session, path, sessions_table) for session, folder in sessions
            if (path := _choose(subject.name, Path(folder, "anat"), odd))]


def _choose(participant_id: str, anat: Path, odd: Oddities) -> Path | None:
    try:
        entries = [entry for entry in _entries(anat) if entry.name.endswith(("_T1w.nii", "_T1w.nii.gz"))]
    except FileNotFoundError:
        return None
    except OSError as error:
        odd[f"folders that cannot be read ({error.strerror})"].append(f"{participant_id}/anat")
        return None
    usable = sorted((entry for entry in entries if _usable(entry, participant_id, odd)), key=_preference)
    if len(usable) > 1:
        odd["sessions with several T1w scans, of which one is used"].append(usable[0].name)
    return Path(usable[0].path) if usable else None


def _usable(entry: os.DirEntry[str], participant_id: str, odd: Oddities) -> bool:
    if entry.name.startswith("."):
        return False
    if not entry.name.startswith(f"{participant_id}_"):
        odd["scans left out, because their name is another participant's"].append(f"{participant_id}: {entry.name!a}")
        return False
    if not os.path.exists(entry.path):
        odd["scans left out, because they are links to nothing (not downloaded? try 'datalad get')"].append(entry.name)
        return False
    return True


def _preference(entry: os.DirEntry[str]) -> tuple[bool, int, str]:
    entities = entry.name.split("_")[1:-1]
    special = any(not entity.startswith(("ses-", "run-")) for entity in entities)
    return special, len(entry.name), entry.name


def same_person(scans: Sequence[Scan]) -> list[str]:
    """For each scan the subject it belongs to: the first participant that is linked to it by identical files.

    Few files are hashed whole: only those that agree in size and in three samples of their bytes.
    """
    names = [f"{scan.dataset}/{scan.participant_id}" for scan in scans]
    parent = {name: name for name in names}
    rank = {name: i for i, name in reversed(list(enumerate(names)))}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for group in _identical([scan.path for scan in scans]):
        roots = sorted({root(names[i]) for i in group}, key=rank.__getitem__)
        parent.update(dict.fromkeys(roots, roots[0]))
    return [root(name) for name in names]


def _identical(paths: Sequence[Path]) -> list[list[int]]:
    groups = [list(range(len(paths)))]
    for key in (lambda path: path.stat().st_size, _sample, sha256_file):
        groups = [part for group in groups for part in _partition(group, paths, key)]
    return groups


def _partition(group: list[int], paths: Sequence[Path], key: Callable[[Path], Hashable]) -> list[list[int]]:
    """Parts of ``group`` with equal keys, at least two in each; a file that cannot be read equals no other."""
    parts: dict[Hashable, list[int]] = defaultdict(list)
    for i in group:
        try:
            parts[key(paths[i])].append(i)
        except OSError:
            continue
    return [part for part in parts.values() if len(part) > 1]


def _sample(path: Path) -> bytes:
    """Digest of the beginning, the middle and the end of a file."""
    digest = hashlib.blake2b()
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        for start in (0, size // 2, max(0, size - SAMPLE_BYTES)):
            file.seek(start)
            digest.update(file.read(SAMPLE_BYTES))
    return digest.digest()
