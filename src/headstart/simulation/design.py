"""Simulated cohorts: who is in them, and how one of them is imaged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from headstart.brains.volumes import VolumeSpec, volume_spec
from headstart.errors import HeadstartError
from headstart.simulation import diffusion
from headstart.simulation.base import Generator, Subject, draw_subject, labels_of, rng_for
from headstart.simulation.disease import DIFFICULTIES, DISEASES
from headstart.simulation.scanner import Scanner, acquire, draw_scanner

AGES = {"ageing": (18.0, 90.0), "ad": (55.0, 90.0), "pd": (45.0, 85.0)}  # years; patients are as old as controls
GENERATORS = ("anatomy", "labelmaps", "diffusion")


@dataclass(frozen=True)
class Design:
    """A cohort that has not been imaged yet; every person is a function of (seed, index) and this.

    Attributes:
        cohort: ``ageing`` (healthy), ``ad`` or ``pd`` (half of the people are patients).
        sites: number of scanners; people and diagnoses are spread evenly over them.
        generator: ``anatomy``, ``labelmaps`` with the folder ``labelmaps``, or ``diffusion`` with that of a ``model``.
        difficulty: how large the disease's effects are: ``easy``, ``default`` or ``hard``.
        purpose: ``cohort`` for studies; ``upstream`` for pre-training: other random streams, other scanners, one for
            each person.
        strength: of what scanners differ by, 0 to 2 (``draw_scanner``).
        site_mix: how much sites differ in whom they scan: at 1 a site's ages span half of the cohort's, and between a
            tenth and nine tenths of its people are men; at 0 all sites are alike.

    Raises:
        HeadstartError: a value that does not exist.
    """

    cohort: str = "ageing"
    seed: int = 0
    sites: int = 2
    generator: str = "anatomy"
    labelmaps: Path | None = None
    volume: str = "2mm"
    difficulty: str = "default"
    ages: tuple[float, float] | None = None
    purpose: str = "cohort"
    model: Path | None = None
    strength: float = 1.0
    site_mix: float = 0.0

    def __post_init__(self) -> None:
        _one_of("cohort", self.cohort, AGES)
        _one_of("generator", self.generator, GENERATORS)
        _one_of("difficulty", self.difficulty, DIFFICULTIES)
        if not 1 <= self.sites <= 26:
            raise HeadstartError(f"{self.sites} sites cannot be simulated", fix="Choose 1 to 26.")
        if self.seed < 0:
            raise HeadstartError(f"seed {self.seed} is negative", fix="Choose 0 or more.")
        if (self.generator == "labelmaps") != (self.labelmaps is not None):
            raise HeadstartError("the generator 'labelmaps' and a folder of label maps belong together",
                                 fix="Give --generator labelmaps --labelmaps DIR, or neither.")
        for name, most in (("strength", 2), ("site_mix", 1)):
            if not 0 <= getattr(self, name) <= most:
                raise HeadstartError(f"{name.replace('_', '-')} {getattr(self, name):g} is not between 0 and {most}")
        volume_spec(self.volume)
        self._check_model()
        self.person(0)  # refuses ages that cannot be simulated

    def _check_model(self) -> None:
        if (self.generator == "diffusion") != (self.model is not None):
            raise HeadstartError("the generator 'diffusion' and a folder of its model belong together",
                                 fix="Give --generator diffusion --model DIR, or neither; --fit STORE makes a model.")
        if self.model is not None:
            if self.cohort in DISEASES:
                raise HeadstartError("a diffusion model knows no diseases", fix="Give --cohort ageing.")
            diffusion.check_grid(self.model, self.volume, store=False)

    @property
    def spec(self) -> VolumeSpec:
        return volume_spec(self.volume)

    @property
    def age_range(self) -> tuple[float, float]:
        """Years: as asked for, or those of the cohort; of a learned model, those that it was trained on."""
        low, high = AGES[self.cohort]
        if self.model is not None:
            trained = diffusion.trained_ages(self.model)
            low, high = max(low, trained[0]), min(high, trained[1])
        return self.ages or (low, high)

    def person(self, index: int) -> Subject:
        """The person with this index: at a site, with a diagnosis."""
        place, turn = index % self.sites, index // self.sites
        ages, men = self._who(place)
        subject = draw_subject(self.seed, index, ages=ages, purpose=self.purpose, men=men)
        subject = replace(subject, site=site_name(place))
        if self.cohort not in DISEASES or turn % 2 == 0:
            return subject
        disease = DISEASES[self.cohort]
        return disease.affect(subject, disease.draw_stage(subject.rng("stage")), self.difficulty)

    def _who(self, place: int) -> tuple[tuple[float, float], float]:
        """Ages of the people of a site, and the share of men among them."""
        low, high = self.age_range
        if not self.site_mix:
            return (low, high), 0.5
        where, men = rng_for(self.seed, place, "cohort/mix").random(2)
        width = (high - low) * (1 - self.site_mix / 2)
        low += float(where) * (high - low - width)
        return (low, low + width), float(0.5 + 0.8 * self.site_mix * (men - 0.5))

    def scanner(self, subject: Subject) -> Scanner:
        """The scanner of the person's site, whoever else is scanned there; in an upstream, one of the person's own."""
        if self.purpose == "upstream":
            return draw_scanner(subject.rng("scanner"), purpose="upstream", strength=self.strength)
        place = rng_for(self.seed, ord(subject.site[-1]), "cohort/scanner")
        return draw_scanner(place, name=subject.site, purpose="cohort", strength=self.strength)

    def make_generator(self) -> Generator | None:
        """None for a learned model, which has no tissue."""
        if self.model is not None:
            return None
        if self.labelmaps is not None:
            from headstart.simulation.labelmaps import LabelMapGenerator

            return LabelMapGenerator(self.labelmaps)
        from headstart.simulation.anatomy import AnatomyGenerator

        return AnatomyGenerator()

    def describe(self) -> str:
        """What made the images, in one line; equal lines make equal people."""
        ages = self.age_range
        return (f"Simulated brains, no real people: cohort {self.cohort}, seed {self.seed}, {self.sites} sites, "
                f"generator {self.generator}{self._source()}, volume {self.volume}, difficulty {self.difficulty}, "
                f"ages {ages[0]:g}-{ages[1]:g} years{self._dials()}")

    def _dials(self) -> str:
        """Only those that are moved: what was made before there were dials has the same line."""
        strength = f", scanners differ by {self.strength:g}" if self.strength != 1 else ""
        return strength + (f", sites differ in age and sex by {self.site_mix:g}" if self.site_mix else "")

    def _source(self) -> str:
        """What tells one model, or one folder of label maps, from another."""
        if self.model is not None:
            return f" {diffusion.identity(self.model)}"
        if self.labelmaps is not None:
            from headstart.simulation.labelmaps import LabelMapGenerator

            return f" {LabelMapGenerator(self.labelmaps).digest()}"
        return ""


def site_name(place: int) -> str:
    return f"sim-{chr(ord('a') + place)}"


def scan_person(design: Design, generator: Generator | None, index: int) -> tuple[torch.Tensor, dict[str, float | str]]:
    """Image one person.

    Returns:
        (X, Y, Z) float32 T1-weighted brain, white matter about 1, and the row of labels (``base.labels_of``).
    """
    subject = design.person(index)
    if design.model is not None:
        return diffusion.DiffusionGenerator(design.model).scan(subject)
    assert generator is not None  # Design sees to it
    shape = generator.shape(subject, design.spec)
    return acquire(shape, subject, design.scanner(subject), design.spec), labels_of(subject, shape, design.spec)


def _one_of(what: str, value: str, choices) -> None:
    if value not in choices:
        raise HeadstartError(f"unknown {what} '{value}'", fix=f"Choose one of: {', '.join(choices)}.")
