"""LDM100K as it is published: 100,000 brains drawn from a latent diffusion model (Pinaya et al., arXiv 2209.07162).

    LDM_100k/participants.tsv, participants.json, dataset_description.json
    LDM_100k/rawdata/sub-000001/anat/sub-000001_T1w.nii.gz

Each brain carries what it was drawn for: age, sex, ventricular volume and brain volume. The images are 160 x 224 x 160
at 1 mm, rigidly aligned and free of a scanner's bias. They are prepared under the same contract as any scan, so that a
network may go from them to real ones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from headstart.brains.cohort import Cohort, Scan
from headstart.brains.tables import Codebook, Table, read_table
from headstart.errors import HeadstartError

RAW = "rawdata"
# What a column's name looks like -> what it is called here. The table gives volumes as the model was conditioned on
# them, scaled to [0, 1] over UK Biobank or not: they are labels to learn, and kept as they are.
LABELS = {"age": r"age(_years)?", "sex": r"sex|gender",
          "ventricular_volume": r".*ventric.*|vent_?vol.*", "brain_volume": r"(?!.*ventric).*brain.*"}
CODED_SEX = {0.0: "F", 1.0: "M"}  # UK Biobank's coding, and the bundle's
OLDEST_NORMALISED = 3.0  # no one in UK Biobank is three: such ages are scaled


def is_ldm100k(folder: str | Path) -> bool:
    """Whether ``folder`` has the table beside, not within, its folder of raw data."""
    folder = Path(folder)
    return (folder / "participants.tsv").is_file() and (folder / RAW).is_dir() and not (
        folder / RAW / "participants.tsv").exists()


def read_ldm100k(folder: str | Path) -> Cohort:
    """The brains of LDM100K with their four labels; rows without an image are noted and left out.

    Ages that the table gives scaled to about [0, 1] become the column ``age_scaled``, because years are then not known.

    Raises:
        HeadstartError: the table lacks a label, or no image is there.
    """
    folder = Path(folder).resolve()
    table = read_table(folder / "participants.tsv")
    names = _columns(table, folder / "participants.tsv")
    book = Codebook.read(folder / "participants.json") if (folder / "participants.json").exists() else Codebook()
    rows = [(row, path) for row in table.rows if (path := _image(folder, row.get("participant_id", ""))) is not None]
    if not rows:
        raise HeadstartError("holds none of the images that participants.tsv names", path=folder / RAW,
                             fix="Unpack the archive whole: rawdata/sub-000001/anat/sub-000001_T1w.nii.gz, and so on.")
    scaled = _are_scaled([row.get(names["age"], "") for row, _ in rows])
    scans = tuple(_scan(folder.name, row, path, names, book, scaled) for row, path in rows)
    missing = len(table.rows) - len(rows)
    notes = (f"{folder.name}: rows of participants.tsv without an image: {missing:,}",) if missing else ()
    return Cohort(scans, notes + ((f"{folder.name}: ages are scaled, not years: column age_scaled",) if scaled else ()))


def _columns(table: Table, path: Path) -> dict[str, str]:
    """Label -> the table's own column."""
    found = {label: next((name for name in table.columns if re.fullmatch(pattern, name.lower().replace(" ", "_"))), "")
             for label, pattern in LABELS.items()}
    if missing := [label for label, name in found.items() if not name]:
        raise HeadstartError(f"has no column for {', '.join(missing)} among {', '.join(table.columns)}", path=path,
                             fix="Is this LDM100K's table? Rename its columns to age, sex, ventricular_volume and "
                             "brain_volume.")
    return found


def _image(folder: Path, participant: str) -> Path | None:
    if not re.fullmatch(r"sub-\w+", participant):
        return None
    path = folder / RAW / participant / "anat" / f"{participant}_T1w.nii.gz"
    return path if path.is_file() else None


def _are_scaled(cells: Sequence[str]) -> bool:
    ages = [age for cell in cells if (age := _number(cell)) is not None]
    return bool(ages) and max(ages) < OLDEST_NORMALISED


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _scan(dataset: str, row: dict[str, str], path: Path, names: dict[str, str], book: Codebook, scaled: bool) -> Scan:
    participant, age = row["participant_id"], row.get(names["age"], "")
    years = None if scaled or not age else book.age(age)
    columns = {label: row.get(names[label], "") for label in ("ventricular_volume", "brain_volume")}
    columns |= {"age_scaled": age} if scaled else {}
    known = {name: cell for name, cell in columns.items() if cell}
    return Scan(dataset, participant, "", path, dataset, age_years=years[0] if years else None,
                sex=_sex(row.get(names["sex"], ""), book), columns=known,
                subject=f"{dataset}/{participant}", simulated=True)


def _sex(cell: str, book: Codebook) -> str | None:
    code = _number(cell)
    return book.sex(cell) or (CODED_SEX.get(code) if code is not None else None)
