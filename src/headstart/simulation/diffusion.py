"""Learned brains: a latent diffusion model draws scans for a given age, sex, ventricular volume and brain volume.

After Pinaya et al., "Brain Imaging Generation with Latent Diffusion Models" (arXiv 2209.07162): an autoencoder to a
coarse latent grid, and a diffusion model on it that is told the conditions both as channels and by cross-attention.
Networks and schedule are MONAI's. ``diffusion_fit`` trains one on a store; the published bundle loads as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError
from pydantic import model_validator as validator
from scipy import ndimage

from headstart.brains.volumes import template, volume_spec
from headstart.errors import HeadstartError
from headstart.files import digest_json, read_json, sha256_file
from headstart.simulation.base import Subject
from headstart.simulation.diffusion_bundle import BUNDLE_AFFINE, UK_BIOBANK, is_bundle, load_bundle

CONFIG, WEIGHTS = "diffusion.json", "diffusion.safetensors"
CONDITIONS = ("sex", "age", "ventricular_volume", "brain_volume")  # the bundle's order; sex 0 is F, 1 is M
RESTORE = "Restore the model's folder from a copy, or train it again into another one."
OUTSIDE = -1.0  # level of the background inside the networks: fluid is near 0 too, and must not be taken for it
EDGE = -0.65  # between the background and the darkest fluid
COLUMNS = {
    "age": {"Description": "Age that the brain was drawn for", "Units": "years"},
    "sex": {"Description": "Sex that the brain was drawn for", "Levels": {"F": "female", "M": "male"}},
    "site": {"Description": "Simulated site"},
    "ventricular_volume": {"Description": "Ventricular volume that the brain was drawn for", "Units": "mL"},
    "brain_volume": {"Description": "Brain volume that the brain was drawn for", "Units": "mL"},
}


class Recipe(BaseModel):
    """Sizes of the networks and how they are trained; the defaults are the small model for 4 mm.

    Attributes:
        patch: voxels along each axis that become channels of the autoencoder's input, to save time.
        channels, blocks: of the autoencoder; every level after the first halves the grid.
        unet_channels, unet_attention, unet_blocks, head_channels: of the diffusion model, by level.
        groups: of group normalisation.
        upsampling: the decoder's, by transposed convolution or by a whole one at the finer level (slower).
        kl_weight: of the latent's divergence from a normal distribution.
        beta_start, beta_end, timesteps: of the schedule (scaled linear). sampling_steps: of DDIM.
        prediction: what the diffusion model is asked for: the noise, or v (Salimans and Ho, arXiv 2202.00512), for
            which a network that has learnt nothing already draws latents of the right mean and spread.
        averaging: of the diffusion model's weights over steps; the average is what is drawn with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    patch: PositiveInt = 2
    channels: tuple[PositiveInt, ...] = Field((16, 32), min_length=1)
    blocks: PositiveInt = 1
    latent_channels: PositiveInt = 4
    unet_channels: tuple[PositiveInt, ...] = Field((32, 64), min_length=1)
    unet_attention: tuple[bool, ...] = (False, True)
    unet_blocks: PositiveInt = 1
    head_channels: PositiveInt = 32
    groups: PositiveInt = 4
    upsampling: Literal["transposed", "whole"] = "transposed"
    kl_weight: NonNegativeFloat = 1e-6
    beta_start: PositiveFloat = 0.0015
    beta_end: float = Field(0.0205, gt=0, lt=1)
    timesteps: PositiveInt = 1000
    sampling_steps: PositiveInt = 50
    prediction: Literal["epsilon", "v_prediction"] = "v_prediction"
    averaging: float = Field(0.995, ge=0, lt=1)
    autoencoder_steps: PositiveInt = 2000
    autoencoder_batch: PositiveInt = 2
    diffusion_steps: PositiveInt = 3000
    diffusion_batch: PositiveInt = 8
    learning_rate: PositiveFloat = 1e-3
    checkpoint_every: PositiveInt = 100

    @validator(mode="after")
    def _goes_together(self) -> Recipe:
        attending = [n for n, attends in zip(self.unet_channels, self.unet_attention) if attends]
        problems = {
            "unet_attention has another length than unet_channels": len(self.unet_attention) != len(self.unet_channels),
            f"channels must be multiples of groups, {self.groups}": any(n % self.groups for n in (
                *self.channels, *self.unet_channels)),
            f"unet_channels with attention must be multiples of head_channels, {self.head_channels}": any(
                n % self.head_channels for n in attending),
            "sampling_steps are more than timesteps": self.sampling_steps > self.timesteps}
        if found := [problem for problem, is_so in problems.items() if is_so]:
            raise ValueError("; ".join(found))
        return self

    @classmethod
    def read(cls, path: Path | None) -> Recipe:
        """The recipe in a YAML file; the small one without a file."""
        import yaml

        try:
            return cls.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {} if path else {})
        except (OSError, ValueError, yaml.YAMLError) as error:  # what is no UTF-8 is a ValueError
            raise HeadstartError(f"is not a recipe ({_said(error)})", path=path,
                                 fix="See configs/diffusion-*.yaml.") from error

    def networks(self) -> tuple[Any, Any]:
        """(MONAI's AutoencoderKL, DiffusionModelUNet), untrained."""
        from monai.networks.nets import AutoencoderKL, DiffusionModelUNet

        no_attention = (False,) * len(self.channels)
        autoencoder = AutoencoderKL(
            spatial_dims=3, in_channels=self.patch**3, out_channels=self.patch**3, channels=self.channels,
            num_res_blocks=self.blocks,
            latent_channels=self.latent_channels, attention_levels=no_attention, norm_num_groups=self.groups,
            with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False,
            use_convtranspose=self.upsampling == "transposed")
        heads = tuple(self.head_channels if attention else 0 for attention in self.unet_attention)
        unet = DiffusionModelUNet(
            spatial_dims=3, in_channels=self.latent_channels + len(CONDITIONS), out_channels=self.latent_channels,
            channels=self.unet_channels, attention_levels=self.unet_attention, num_res_blocks=self.unet_blocks,
            num_head_channels=heads, norm_num_groups=self.groups, resblock_updown=True, with_conditioning=True,
            transformer_num_layers=1, cross_attention_dim=len(CONDITIONS))
        return autoencoder, unet

    def schedule(self) -> dict[str, Any]:
        return {"num_train_timesteps": self.timesteps, "schedule": "scaled_linear_beta",
                "beta_start": self.beta_start, "beta_end": self.beta_end, "prediction_type": self.prediction}


def _said(error: Exception) -> str:
    """On one line; of values that were refused, which and why."""
    if not isinstance(error, ValidationError):
        return " ".join(str(error).split())
    return "; ".join(".".join(map(str, each["loc"])) + f" {each['msg'].removeprefix('Value error, ')}"
                     for each in error.errors()).strip()


class Fitted(BaseModel):
    """What a model needs beside its weights.

    Attributes:
        volume: its grid. low, high: of the conditions, in ``CONDITIONS``' order and its own units (years, mL).
        centre, spread: the network is told a condition less the one, over the other: mean and standard deviation. Told
            as shares of the whole range, as the published model is, ventricles hardly differ, and are not learnt.
        expected: (2, 3) ventricular and brain volume as a linear function of (1, age, sex). residual_sd: (2,) about it.
        residual_r: correlation of the two residuals. Drawn apart, they ask for people whom the training set has not.
        trained_on: data sets. weights: SHA-256 of the file of weights.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Recipe
    volume: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    expected: tuple[tuple[float, ...], ...]
    residual_sd: tuple[float, ...]
    residual_r: float = 0.0
    trained_on: tuple[str, ...] = ()
    weights: str = ""

    def conditions(self, subject: Subject) -> dict[str, float]:
        """What a subject's brain is drawn for: volumes as people of that age and sex have them in the training set."""
        sex, z = float(subject.sex == "M"), subject.rng("conditions").standard_normal(2)
        z[1] = self.residual_r * z[0] + np.sqrt(1 - self.residual_r**2) * z[1]
        volumes = np.asarray(self.expected) @ [1, subject.age, sex] + np.asarray(self.residual_sd) * z
        volumes = np.clip(volumes, self.low[2:], self.high[2:])
        return dict(zip(CONDITIONS, (sex, subject.age, *volumes.tolist())))

    def scaled(self, values: np.ndarray) -> torch.Tensor:
        """(..., 4) float32 what the network is told, from (..., 4) ``CONDITIONS`` in their own units."""
        return torch.from_numpy((values - np.array(self.centre)) / np.maximum(self.spread, 1e-6)).float()


@dataclass(frozen=True)
class DiffusionGenerator:
    """Draws scans from the model in ``folder``: one that ``fit`` wrote, or the published bundle.

    Unlike other generators it makes the image itself; its scanner is whatever the training set was scanned with.
    """

    folder: Path
    name: str = "diffusion"

    def affine(self) -> np.ndarray:
        """(4, 4) voxel to world of its images."""
        return BUNDLE_AFFINE if is_bundle(self.folder) else volume_spec(_model(self.folder).fitted.volume).affine

    def scan(self, subject: Subject) -> tuple[torch.Tensor, dict[str, float | str]]:
        """A pure function of the subject's seed and index.

        Returns:
            (X, Y, Z) float32 image and the row of labels: what the brain was drawn for.
        """
        model = _model(self.folder)
        conditions = model.fitted.conditions(subject)
        noise = torch.from_numpy(subject.rng("latent").standard_normal(model.latent_shape).astype(np.float32))
        told = model.fitted.scaled(np.array([conditions[name] for name in CONDITIONS]))
        image = model.decode(model.draw(noise, told), told)
        row = {name: conditions[name] for name in ("ventricular_volume", "brain_volume")}
        return image, {"age": subject.age, "sex": subject.sex, "site": subject.site, **row}


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes:
        latent_mean, latent_sd, latent_slope: of every element of the latents: its mean in the training set, what it
            gains with one of each condition (4, C, x, y, z), and the standard deviation of what these leave, which is
            what the diffusion model draws. So people are as asked for on average, however little it has learnt.
        masked: its background is ``OUTSIDE`` (the published one's is 0).
    """

    fitted: Fitted
    autoencoder: Any  # MONAI's AutoencoderKL
    unet: torch.nn.Module
    latent_shape: tuple[int, int, int, int]
    latent_mean: torch.Tensor
    latent_sd: torch.Tensor
    latent_slope: torch.Tensor
    masked: bool = True

    @torch.no_grad()
    def draw(self, noise: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        """DDIM (Song et al., arXiv 2010.02502) from noise (C, x, y, z) to a latent (1, C, x, y, z)."""
        from monai.networks.schedulers import DDIMScheduler

        recipe, latent = self.fitted.recipe, noise[None]
        scheduler = DDIMScheduler(clip_sample=False, **recipe.schedule())
        scheduler.set_timesteps(recipe.sampling_steps)
        for step in scheduler.timesteps:
            output = predicted(self.unet, latent, step.reshape(1), conditions[None])
            latent, _ = scheduler.step(output, int(step), latent)
        return latent

    @torch.no_grad()
    def decode(self, latent: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        """(X, Y, Z) image of a latent (1, C, x, y, z) that was drawn for ``conditions`` (4,), background exactly 0."""
        from monai.networks.utils import pixelshuffle

        expected = self.latent_mean + torch.tensordot(conditions, self.latent_slope, 1)
        patches = self.autoencoder.decode_stage_2_outputs(latent * self.latent_sd + expected)
        image = pixelshuffle(patches, 3, self.fitted.recipe.patch)[0, 0]
        if not self.masked:
            return image.clamp_min(0)
        kept = (image > EDGE).numpy() & template(self.fitted.volume).kept
        inside = torch.from_numpy(ndimage.binary_fill_holes(kept))  # a dark ventricle is no background
        return torch.where(inside, image.clamp(-0.5, 2), 0)


def predicted(unet: torch.nn.Module, latent: torch.Tensor, steps: torch.Tensor,
              conditions: torch.Tensor) -> torch.Tensor:
    """What ``Recipe.prediction`` asks for, of latents (n, C, x, y, z) at ``steps`` (n,), under conditions (n, 4)."""
    channels = conditions[:, :, None, None, None].expand(-1, -1, *latent.shape[2:])
    return unet(torch.cat((latent, channels), 1), timesteps=steps, context=conditions[:, None])


@lru_cache(maxsize=2)
def _model(folder: Path) -> Model:
    if is_bundle(folder):
        recipe, autoencoder, unet, latent_shape = load_bundle(folder)
        fitted = Fitted(recipe=Recipe(**recipe), volume="1mm", trained_on=("UK Biobank",), **UK_BIOBANK)
        return Model(fitted, autoencoder.eval(), unet.eval(), latent_shape, torch.zeros(1), torch.ones(1),
                     torch.zeros(len(CONDITIONS), 1), masked=False)
    check_weights(folder)
    fitted = read_fitted(folder)
    autoencoder, unet = fitted.recipe.networks()
    try:
        latents = _load(folder / WEIGHTS, {"autoencoder.": autoencoder, "unet.": unet})
    except Exception as error:  # safetensors and torch raise many kinds
        raise HeadstartError(f"does not fit {CONFIG} ({_said(error)})", path=folder / WEIGHTS, fix=RESTORE) from error
    return Model(fitted, autoencoder.eval(), unet.eval(), latent_shape_of(fitted.recipe, fitted.volume), *latents)


def _load(path: Path, networks: Mapping[str, torch.nn.Module]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put each network's weights into it; mean, standard deviation and slope of the latents are left."""
    from safetensors.torch import load_file

    state = load_file(path)
    for prefix, network in networks.items():
        network.load_state_dict({key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)})
    return state["latent.mean"], state["latent.sd"], state["latent.slope"]


def check_weights(folder: Path) -> None:
    """HeadstartError where the weights are not those that ``fit`` wrote; of the bundle's nothing is recorded."""
    if is_bundle(folder):
        return
    recorded = read_fitted(folder).weights
    if recorded and sha256_file(folder / WEIGHTS) != recorded:
        raise HeadstartError(f"is not the file that {CONFIG} describes (its SHA-256 differs)", path=folder / WEIGHTS,
                             fix=RESTORE)


def latent_shape_of(recipe: Recipe, volume: str) -> tuple[int, int, int, int]:
    """(channels, x, y, z) of a latent.

    Raises:
        HeadstartError: the grid cannot be halved as often as the networks do.
    """
    factor, shape = recipe.patch * 2 ** (len(recipe.channels) - 1), volume_spec(volume).shape
    if any(n % (factor * 2 ** (len(recipe.unet_channels) - 1)) for n in shape):
        raise HeadstartError(f"the grid {volume} cannot be halved as often as this recipe does",
                             fix="Give a recipe with fewer levels, or another --volume.")
    x, y, z = (n // factor for n in shape)
    return recipe.latent_channels, x, y, z


def read_fitted(folder: Path) -> Fitted:
    """The description of a model that ``fit`` has finished."""
    if not (folder / CONFIG).exists() or not (folder / WEIGHTS).exists():
        raise HeadstartError("holds no finished diffusion model", path=folder,
                             fix="Train one: headstart simulate --generator diffusion --fit STORE --out DIR; or give "
                             "the folder of MONAI's bundle brain_image_synthesis_latent_diffusion_model.")
    try:
        return Fitted.model_validate(read_json(folder / CONFIG))
    except ValidationError as error:
        raise HeadstartError(f"does not describe a diffusion model ({error})", path=folder / CONFIG) from error


def check_grid(folder: Path, volume: str, *, store: bool) -> None:
    """HeadstartError unless the model draws scans for grid ``volume``; the bundle's need preparing first."""
    if is_bundle(folder):
        if store:
            raise HeadstartError("draws whole 1 mm images, which have to be prepared first", path=folder,
                                 fix="Leave --store out, then run `headstart prepare OUT --store STORE`.")
    elif (own := read_fitted(folder).volume) != volume:
        raise HeadstartError(f"draws scans at {own}, not {volume}", path=folder, fix=f"Give --volume {own}.")


def identity(folder: Path) -> str:
    """What tells one model from another."""
    return "bundle" if is_bundle(folder) else digest_json(read_fitted(folder).model_dump())


def trained_ages(folder: Path) -> tuple[float, float]:
    """Youngest and oldest of the training set, years."""
    age = CONDITIONS.index("age")
    fitted: Any = UK_BIOBANK if is_bundle(folder) else read_fitted(folder).model_dump()
    return float(fitted["low"][age]), float(fitted["high"][age])
