"""All upstreams by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from headstart.errors import HeadstartError
from headstart.upstreams import natural_images, real_mri, synthetic_mri, video
from headstart.upstreams.base import DOMAINS, Upstream

SCRATCH = Upstream("scratch", None, (), None, None, "Apache-2.0", True, "none", (), "none", None, "Random weights.")
CATALOGUE: dict[str, Upstream] = {upstream.name: upstream for upstream in (
    SCRATCH, *natural_images.UPSTREAMS, *video.UPSTREAMS, *synthetic_mri.UPSTREAMS, *real_mri.UPSTREAMS)}


def is_name(source: str | Path) -> bool:
    """Whether ``source`` is a name in the catalogue; a path that exists under the same name loses."""
    return str(source) in CATALOGUE


def find(name: str) -> Upstream:
    """The record called ``name``.

    Raises:
        HeadstartError: there is none; the message gives the nearest names.
    """
    if name not in CATALOGUE:
        near = difflib.get_close_matches(name, CATALOGUE, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise HeadstartError(f"no upstream is called '{name}', and no such file or folder exists",
                             fix=f"{hint}See `headstart weights list`.")
    return CATALOGUE[name]


def catalogue(domain: str | None = None, backbone: str | None = None) -> list[Upstream]:
    """The records of a domain and for a backbone, in the catalogue's order.

    Raises:
        HeadstartError: there is no such domain, or nothing in the catalogue fits the backbone.
    """
    if domain is not None and domain not in DOMAINS:
        raise HeadstartError(f"unknown domain '{domain}'", fix=f"Choose one of: {', '.join(DOMAINS)}.")
    found = [upstream for upstream in CATALOGUE.values() if domain is None or upstream.domain == domain]
    return [upstream for upstream in found
            if backbone is None or not upstream.backbones or backbone in upstream.backbones]
