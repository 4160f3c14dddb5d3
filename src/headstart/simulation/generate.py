"""Whole batches of simulated scans: subject, tissue, scanner, intensities, labels."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.brains.volumes import VolumeSpec
from headstart.simulation.ageing import AGES_YEARS
from headstart.simulation.base import Brains, Generator, draw_subject, labels_of, stack
from headstart.simulation.scanner import acquire, as_prepared, draw_scanner


def generate(generator: Generator, seed: int, indices: Sequence[int], spec: VolumeSpec, *,
             ages: tuple[float, float] = AGES_YEARS, purpose: str = "upstream", strength: float = 1.0) -> Brains:
    """Simulated scans as preparation would leave them, every one from a scanner of its own.

    Each is a function of (seed, index) alone, whatever else is in the batch.

    Args:
        generator: what draws a brain, e.g. from ``Design.make_generator``.
        seed: of the population.
        indices: which subjects of the endless population ``seed``.
        spec: the grid.
        ages: years, uniform between.
        purpose: ``upstream`` and ``cohort`` never share a random stream or a scanner.
        strength: of the scanners' differences, 1 as real sites differ.

    Returns:
        Volumes (n, 1, X, Y, Z) and the labels of each.
    """
    volumes, rows = [], []
    for index in indices:
        subject = draw_subject(seed, int(index), ages=ages, purpose=purpose)
        shape = generator.shape(subject, spec)
        scanner = draw_scanner(subject.rng("scanner"), purpose=purpose, strength=strength)
        volumes.append(as_prepared(acquire(shape, subject, scanner, spec), spec)[None])
        rows.append(labels_of(subject, shape, spec))
    return stack(volumes, rows)
