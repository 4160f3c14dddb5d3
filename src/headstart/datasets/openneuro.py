"""OpenNeuro's public bucket: it lists its files with sizes and digests; scans and tables are taken, nothing else."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from xml.etree import ElementTree

from headstart.datasets.catalogue import RemoteFile
from headstart.download import TIMEOUT_S
from headstart.errors import HeadstartError

TABLES = r"(dataset_description\.json|participants\.(tsv|json)|README(\.\w+)?|CHANGES|LICEN[CS]E(\.\w+)?|T1w\.json)"
SCANS = r"sub-[\w+.-]+/(ses-[\w+.-]+/)?anat/[\w+.-]+_T1w\.(nii(\.gz)?|json)"
SESSIONS = r"sub-[\w+.-]+/sub-[\w+.-]+_sessions\.tsv"
WANTED = re.compile(f"({TABLES}|{SCANS}|{SESSIONS})")
MD5 = re.compile(r"[0-9a-f]{32}")  # an object's tag, unless it was uploaded in parts


def list_files(accession: str, base: str) -> tuple[RemoteFile, ...]:
    """The T1w scans and tables of ``accession`` as the bucket lists them.

    Raises:
        HeadstartError: the bucket cannot be listed, or has no scan of it.
    """
    found = tuple(_wanted(f"{accession}/", base))
    if not any(file.path.startswith("sub-") for file in found):
        raise HeadstartError(f"lists no T1w scan of {accession}", path=base,
                             fix=f"See https://openneuro.org/datasets/{accession}; a mirror must list like S3.")
    return found


def _wanted(prefix: str, base: str) -> Iterator[RemoteFile]:
    for key, size, tag in _objects(prefix, base):
        path = key.removeprefix(prefix)
        if WANTED.fullmatch(path) and ".." not in path:
            yield RemoteFile(key, path, size, md5=tag if MD5.fullmatch(tag) else None)


def _objects(prefix: str, base: str) -> Iterator[tuple[str, int, str]]:
    """(key, bytes, tag) of every object below ``prefix``, page by page."""
    token: str | None = ""
    while token is not None:
        query = {"list-type": "2", "prefix": prefix, **({"continuation-token": token} if token else {})}
        page = _page(f"{base}/?{urllib.parse.urlencode(query)}")
        for item in page.iterfind("{*}Contents"):
            yield (item.findtext("{*}Key", ""), int(item.findtext("{*}Size", "-1")),
                   item.findtext("{*}ETag", "").strip('"'))
        token = page.findtext("{*}NextContinuationToken")


def _page(url: str) -> ElementTree.Element:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            return ElementTree.fromstring(response.read())
    except (OSError, http.client.HTTPException, ElementTree.ParseError) as error:
        raise HeadstartError(f"cannot be listed ({getattr(error, 'reason', error)})", path=url,
                             fix="Check the network and run the same command again.") from error
