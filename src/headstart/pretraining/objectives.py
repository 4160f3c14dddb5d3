"""The objectives by name: each puts around a backbone what it needs to learn by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from headstart.backbones.model import BrainModel
from headstart.brains.augment import Augmentation
from headstart.pretraining.config import PretrainConfig
from headstart.pretraining.contrastive import Contrastive, Projected
from headstart.pretraining.masked import Masked, masked_model
from headstart.pretraining.pool import Pool
from headstart.pretraining.supervised import Supervised
from headstart.training import Objective


@dataclass(frozen=True)
class Pretext:
    """What ``fit`` gets to work on.

    Attributes:
        module: the backbone and what is thrown away afterwards.
        objective: what is minimised.
        examples: the samples and what the objective knows of them.
        augmentation: strength that is left to the training loop.
    """

    module: nn.Module
    objective: Objective
    examples: Pool
    augmentation: float


def supervised(config: PretrainConfig, pool: Pool, model: BrainModel) -> Pretext:
    """All labels jointly."""
    taught = pool.with_shuffled_labels(config.seed) if config.shuffle_labels else pool
    return Pretext(model, Supervised(pool.labels), taught, config.augmentation)


def masked(config: PretrainConfig, pool: Pool, model: BrainModel) -> Pretext:
    """Hidden patches from visible ones; labels are not used."""
    spec = pool.store.spec
    return Pretext(masked_model(model.backbone, spec), Masked(spec), pool.with_ages_only(), config.augmentation)


def contrastive(config: PretrainConfig, pool: Pool, model: BrainModel) -> Pretext:
    """Two views of each sample, which the objective makes itself; ages where there are any."""
    limits = Augmentation(flip=config.flip).scaled(config.augmentation)
    return Pretext(Projected(model), Contrastive(limits), pool.with_ages_only(), 0.0)


OBJECTIVES: dict[str, Callable[[PretrainConfig, Pool, BrainModel], Pretext]] = {
    "supervised": supervised, "masked": masked, "contrastive": contrastive}
