"""Synthetic MRI, and the other starts that ``headstart pretrain`` makes: one model folder per backbone and volume."""

from __future__ import annotations

from headstart.upstreams.base import Domain, Shipped, Upstream


def shipped(name: str, domain: Domain | None, seen: tuple[str, ...] | None, note: str) -> Upstream:
    """A start made here; its config.json states its data, contract and budget."""
    return Upstream(name, domain, (), Shipped(name), None, "Apache-2.0", True, "arXiv 2309.04651", seen,
                    "the contract in its config.json", None, note)


UPSTREAMS = (
    shipped("synthetic-mri", "synthetic-mri", (), "Simulated brains; the anatomy comes from templates and label maps."),
    shipped("procedural-images", "natural-images", (), "Procedural pictures: no photograph, no person."),
    shipped("procedural-video", "video", (), "Procedural clips: no camera, no person."),
    shipped("control", None, (), "The same budget on shuffled labels: what training alone gives."),
)
