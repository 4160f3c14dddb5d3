"""What is known of published weights: one frozen, typed record each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor

from headstart.adaptation.steps import Step

Domain = Literal["natural-images", "video", "synthetic-mri", "real-mri"]
DOMAINS: tuple[Domain, ...] = ("natural-images", "video", "synthetic-mri", "real-mri")


@dataclass(frozen=True)
class Url:
    """A file behind an address.

    Attributes:
        url: where it is.
        sha256: its digest, or the first digits that the publisher states; None: recorded at the first fetch.
    """

    url: str
    sha256: str | None = None

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True)
class Hub:
    """A file on the Hugging Face hub."""

    repo: str
    filename: str = "model.safetensors"
    sha256: str | None = None

    @property
    def url(self) -> str:
        return f"https://huggingface.co/{self.repo}/resolve/main/{self.filename}"

    def __str__(self) -> str:
        return f"hf:{self.repo}/{self.filename}"


@dataclass(frozen=True)
class Package:
    """A file that comes with a Python package.

    Attributes:
        distribution: what pip calls the package.
        filename: path among the installed files.
        sha256: its digest.
    """

    distribution: str
    filename: str
    sha256: str

    def __str__(self) -> str:
        return f"pip:{self.distribution}/{self.filename}"


@dataclass(frozen=True)
class Shipped:
    """Starts made by ``headstart pretrain``: one model folder for each backbone and volume."""

    folder: str

    def __str__(self) -> str:
        return f"headstart:{self.folder}/<backbone>-<volume>"


@dataclass(frozen=True)
class Manual:
    """Weights that a person must fetch: their page asks for an account or has no stable address."""

    page: str

    def __str__(self) -> str:
        return f"by hand from {self.page}"


Source = Url | Hub | Package | Shipped | Manual


@dataclass(frozen=True)
class Recipe:
    """How a family of checkpoints becomes a backbone's weights.

    Attributes:
        name: what ``weights import --recipe`` calls it.
        steps: the chain of adaptation, in order.
        initialised: patterns of the backbone's keys that the source does not have.
        reference: the package whose outputs the tests compare with; None: unverified.
    """

    name: str
    steps: tuple[Step, ...]
    initialised: tuple[str, ...] = ()
    reference: str | None = None


@dataclass(frozen=True)
class Upstream:
    """Published weights, and everything needed to use them honestly.

    Attributes:
        name: what ``--upstream`` calls them.
        domain: what they were trained on.
        backbones: the backbones they fit; empty: any.
        source: where the file comes from; None for ``scratch``.
        recipe: how they are adapted; None where they fit as they are.
        licence: as the publisher states it.
        commercial: whether the licence allows commercial use; None: the licence could not be read.
        paper: arXiv number or DOI.
        seen: cohorts of people among the training data; None: not known.
        preprocessing: what the source's input looked like, and what of it is folded into the weights.
        parameters: numbers in the encoder, in the source's own dimensions.
        note: what a user should know besides.
    """

    name: str
    domain: Domain | None
    backbones: tuple[str, ...]
    source: Source | None
    recipe: Recipe | None
    licence: str
    commercial: bool | None
    paper: str
    seen: tuple[str, ...] | None
    preprocessing: str
    parameters: int | None
    note: str = ""

    @property
    def verified(self) -> bool:
        """Whether the tests prove output parity with the publisher's own package."""
        return self.source is None or isinstance(self.source, Shipped) or bool(self.recipe and self.recipe.reference)

    @property
    def steps(self) -> tuple[str, ...]:
        """Names of the steps of adaptation, in order."""
        return tuple(step.name for step in self.recipe.steps) if self.recipe else ()

    @property
    def approximations(self) -> tuple[str, ...]:
        """Names of the steps after which the network is no longer the same function."""
        return tuple(step.name for step in self.recipe.steps if not step.exact) if self.recipe else ()

    def to_json(self) -> dict[str, Any]:
        """The record as plain data."""
        return {
            "name": self.name, "domain": self.domain, "backbones": list(self.backbones),
            "source": None if self.source is None else str(self.source),
            "sha256": getattr(self.source, "sha256", None), "recipe": self.recipe.name if self.recipe else None,
            "steps": list(self.steps), "approximations": list(self.approximations), "licence": self.licence,
            "commercial": self.commercial, "paper": self.paper, "seen": None if self.seen is None else list(self.seen),
            "preprocessing": self.preprocessing, "parameters": self.parameters,
            "verified": (self.recipe.reference or True) if self.recipe and self.verified else self.verified,
            "note": self.note,
        }


class Readout(NamedTuple):
    """How an upstream read one label off its features: by the normalisation before its head, and the head's row.

    Attributes:
        norm: its ``weight`` and ``bias``, (num_features,) each.
        direction: (num_features,).
    """

    norm: dict[str, Tensor]
    direction: Tensor
