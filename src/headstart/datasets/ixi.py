"""IXI as BIDS: one flat archive of scans and one old spreadsheet of people."""

from __future__ import annotations

import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from headstart.brains.tables import merge_rows
from headstart.datasets.catalogue import Dataset
from headstart.errors import HeadstartError
from headstart.files import atomic_write, write_json

SCAN = re.compile(r"(?:.*/)?IXI(?P<number>\d{3})-(?P<site>\w+)-\d+-T1\.nii\.gz")  # IXI002-Guys-0828-T1.nii.gz
SHEET = "Table"
SEXES = {1: "M", 2: "F"}  # as the column's own name says: SEX_ID (1=m, 2=f)
AGAIN = "Remove it and run the same command again."


def lay_out(parts: Path, out: Path, dataset: Dataset) -> None:
    """Write the BIDS folder ``out`` from ``IXI-T1.tar`` and ``IXI.xls`` in ``parts``, then remove those."""
    people = read_people(parts / "IXI.xls")
    scans = sorted(_unpack(parts / "IXI-T1.tar", out))
    with atomic_write(out / "participants.tsv") as file:
        file.write("participant_id\tage\tsex\tsite\n")
        for number, site in scans:
            person = people.get(number, {})
            cells = (f"sub-IXI{number:03d}", person.get("age", "n/a"), person.get("sex", "n/a"), f"IXI-{site}")
            file.write("\t".join(cells) + "\n")
    write_json(out / "participants.json", {
        "age": {"Description": "Age at the scan", "Units": "years"},
        "sex": {"Description": "Sex", "Levels": {"F": "female", "M": "male"}},
        "site": {"Description": "Hospital: Guys 1.5 T Philips, HH 3 T Philips (Hammersmith), IOP 1.5 T GE"}})
    write_json(out / "dataset_description.json", {
        "Name": "IXI, T1w scans", "BIDSVersion": "1.9.0", "DatasetType": "raw", "License": "CC BY-SA 3.0",
        "HowToAcknowledge": dataset.licence, "ReferencesAndLinks": [dataset.page]})
    shutil.rmtree(parts)


def _unpack(archive: Path, out: Path) -> Iterator[tuple[int, str]]:
    """Write each scan where BIDS wants it, whole or not at all; yields (IXI number, site)."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if not (member.isfile() and (name := SCAN.fullmatch(member.name))):
                    continue
                subject, content = f"sub-IXI{name['number']}", tar.extractfile(member)
                assert content is not None  # it is a file
                with atomic_write(out / subject / "anat" / f"{subject}_T1w.nii.gz", "wb") as file:
                    shutil.copyfileobj(content, file)
                yield int(name["number"]), name["site"]
    except tarfile.TarError as error:
        raise HeadstartError(f"is not a whole archive ({error})", path=archive, fix=AGAIN) from error


def read_people(path: Path) -> dict[int, dict[str, str]]:
    """IXI number -> age (years) and sex; where a person's rows contradict each other the value is left out.

    Raises:
        HeadstartError: the spreadsheet is damaged, or has other columns.
    """
    import xlrd

    try:
        sheet = xlrd.open_workbook(path).sheet_by_name(SHEET)
    except (xlrd.XLRDError, OSError, AssertionError) as error:
        raise HeadstartError(f"is not IXI's spreadsheet ({error})", path=path, fix=AGAIN) from error
    header = [str(name).strip().upper() for name in sheet.row_values(0)]
    columns = [next((i for i, name in enumerate(header) if name.startswith(wanted)), None)
               for wanted in ("IXI_ID", "AGE", "SEX_ID")]
    if None in columns:
        raise HeadstartError("lacks a column of IXI_ID, AGE and SEX_ID", path=path, fix=AGAIN)
    rows: dict[int, list[dict[str, str]]] = {}
    for cells in (sheet.row_values(index) for index in range(1, sheet.nrows)):
        number, age, sex = (cells[column] for column in columns if column is not None)
        if isinstance(number, float):
            rows.setdefault(int(number), []).append(_person(age, sex))
    return {number: merge_rows(same)[0] for number, same in rows.items()}


def _person(age: object, sex: object) -> dict[str, str]:
    """What a row says; blanks, and zeros that stand for blanks, are left out."""
    person = {"age": f"{age:.2f}"} if isinstance(age, float) and age > 0 else {}
    return person | ({"sex": SEXES[int(sex)]} if isinstance(sex, float) and int(sex) in SEXES else {})
