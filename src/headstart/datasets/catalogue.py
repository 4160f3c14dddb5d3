"""The openly licensed data sets that ``headstart data`` knows: one frozen record each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headstart.errors import HeadstartError


@dataclass(frozen=True)
class RemoteFile:
    """A file of a data set.

    Attributes:
        url: its address, absolute or below the data set's ``base``.
        path: where it goes below the output folder.
        size: bytes, where the publisher tells.
        md5, sha256: digests, where they are known.
    """

    url: str
    path: str
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set.

    Attributes:
        name: as in ``headstart data list``.
        layout: how it comes: ``openneuro`` (a bucket that lists its files), ``ixi`` (an archive and a spreadsheet),
            ``files`` (the files named here), ``torrent`` (by other programs only).
        base: the address that its files' addresses begin with.
        page: for people to read.
        licence: its terms, and who is to be cited.
        what: scans, ages, state.
        gigabytes: to be downloaded, roughly.
        files: its files, where they are known beforehand.
    """

    name: str
    layout: Literal["openneuro", "ixi", "files", "torrent"]
    base: str
    page: str
    licence: str
    what: str
    gigabytes: float
    files: tuple[RemoteFile, ...] = ()


OPENNEURO = "https://s3.amazonaws.com/openneuro.org"
IXI = "https://biomedic.doc.ic.ac.uk/brain-development/downloads/IXI"
SYNTHSEG = "https://raw.githubusercontent.com/BBillot/SynthSeg/master"
LABEL_MAPS = (*(f"training_seg_{number:02d}.nii.gz" for number in range(1, 21)),)

DATASETS = {record.name: record for record in (
    Dataset("ixi", "ixi", IXI, "https://brain-development.org/ixi-dataset/",
            "CC BY-SA 3.0; acknowledge the IXI project, brain-development.org",
            "581 healthy people of 20-86 years, three London hospitals, whole heads", 4.5,
            (RemoteFile("IXI-T1.tar", "IXI-T1.tar", md5="34901a0593b41dd19c1a1f746eac2d58"),
             RemoteFile("IXI.xls", "IXI.xls",
                        sha256="5b974cf58e9fe5101c91f594473fcd2b4c76ba2cf98fbd02d88174bd20a21c2b"))),
    Dataset("ds002748", "openneuro", OPENNEURO, "https://openneuro.org/datasets/ds002748",
            "CC0; cite Bezmaternykh et al. 2021, doi 10.1155/2021/8846097",
            "72 people of 19-55 years, 51 with depression, brain-extracted", 0.6),
    Dataset("ds000011", "openneuro", OPENNEURO, "https://openneuro.org/datasets/ds000011",
            "PDDL; cite the data set, OpenNeuro ds000011", "14 people of 19-37 years, whole heads, defaced", 0.1),
    Dataset("synthseg-label-maps", "files", SYNTHSEG, "https://github.com/BBillot/SynthSeg",
            "Apache-2.0; cite Billot et al. 2023, doi 10.1016/j.media.2023.102789",
            "20 whole-head label maps with FreeSurfer ids, for simulate --labelmaps", 0.04,
            (*(RemoteFile(f"data/training_label_maps/{name}", name) for name in LABEL_MAPS),
             RemoteFile("LICENSE.txt", "LICENSE.txt"))),
    Dataset("ldm100k", "torrent", "", "https://academictorrents.com/details/63aeb864bbe2115ded0aa0d7d36334c026f0660b",
            "as stated on its page; cite Pinaya et al. 2022, arXiv 2209.07162",
            "100,000 brains drawn from a diffusion model of UK Biobank; prepare reads its folder", 591),
)}
"""The data sets by name."""


def find(name: str) -> Dataset:
    """The record called ``name``.

    Raises:
        HeadstartError: there is none; the message lists the names.
    """
    if name not in DATASETS:
        raise HeadstartError(f"unknown data set '{name}'", fix=f"Choose one of: {', '.join(DATASETS)}.")
    return DATASETS[name]
