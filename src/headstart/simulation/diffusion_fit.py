"""Training a latent diffusion model on a store: first the autoencoder, then the diffusion model in its latents.

Every step is a function of (seed, phase, step) and the weights before it, so that a run that was killed and resumed
ends in the same weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from headstart.brains.progress import progress_bar
from headstart.brains.store import Store
from headstart.brains.volumes import template
from headstart.errors import HeadstartError
from headstart.files import atomic_write, digest_json, one_writer, read_json, write_json
from headstart.processes import stop_signals
from headstart.simulation.diffusion import (
    CONFIG,
    OUTSIDE,
    WEIGHTS,
    Fitted,
    Recipe,
    latent_shape_of,
    predicted,
    read_fitted,
)
from headstart.simulation.realism import DARK, ventricles_ml
from headstart.simulation.regions import label_regions

CHECKPOINT = "checkpoint.pt"
TRAINING = "training.json"  # of a finished model: what tells its training from another
FEWEST = 8  # scans
PHASES = ("autoencoder", "diffusion")
ENCODED = 8  # scans at a time
LEAST_SD = 0.1  # of a latent's element over the mean of all: what never varies must not become noise when drawn
OnStep = Callable[[str, int], None]


def fit(store_path: str | Path, out: str | Path, recipe: Recipe | None = None, *, seed: int = 0, progress: bool = True,
        on_step: OnStep = lambda phase, step: None) -> Path:
    """Train on the scans of a store whose age and sex are known; stopped or killed, the same call goes on.

    Args:
        out: folder for the model.
        recipe: sizes and steps; the small model's by default.
        on_step: told of every finished step.

    Raises:
        HeadstartError: too few scans, a grid that does not suit the recipe, or ``out`` holds another training.
        Stopped: a signal came; the same call goes on.
    """
    store, out, recipe = Store.open(store_path), Path(out), recipe or Recipe()
    latent_shape_of(recipe, store.contract.volume)
    if _is_finished(out, store, recipe, seed):
        return out
    indices, conditions = measured_conditions(store)
    with one_writer(out), stop_signals():
        if _is_finished(out, store, recipe, seed):  # by another process in the meantime
            return out
        training = _Training(store, indices, _describe(store, indices, conditions, recipe), conditions, seed)
        training.restore(out)
        for phase in PHASES[PHASES.index(training.phase):]:
            training.run(phase, out, progress, on_step)
        training.save(out)
    return out


def _is_finished(out: Path, store: Store, recipe: Recipe, seed: int) -> bool:
    """Whether the model of this very training is there; HeadstartError where it is that of another.

    A model that an older version has trained says nothing of its seed and its scans.
    """
    if not ((out / CONFIG).exists() and (out / WEIGHTS).exists()):
        return False
    there, wanted = read_fitted(out), _training(store, seed)
    known = read_json(out / TRAINING) if (out / TRAINING).exists() else wanted
    pairs = {"recipe": (there.recipe, recipe), "grid": (there.volume, store.contract.volume),
             **{name: (known.get(name), value) for name, value in wanted.items()}}
    if differing := [name for name, (ours, theirs) in pairs.items() if ours != theirs]:
        raise HeadstartError(f"holds another training, of another {' and '.join(differing)}", path=out,
                             fix="Give another --out folder.")
    return True


def _training(store: Store, seed: int) -> dict[str, Any]:
    scans = [[stored.crc32, stored.scan.age_years, stored.scan.sex] for stored in store.scans]
    return {"seed": seed, "store": digest_json(scans)}


def measured_conditions(store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Indices of usable scans (n,) and their conditions (n, 4); volumes by intensity alone, true of the image."""
    known = [i for i, stored in enumerate(store.scans) if stored.scan.age_years is not None and stored.scan.sex]
    if len(known) < FEWEST:
        raise HeadstartError(f"holds {len(known)} scans with age and sex, fewer than {FEWEST}", path=store.path,
                             fix="Give a store of more scans.")
    regions, ml, rows = label_regions(template(store.spec.name)), store.spec.spacing_mm**3 / 1000, []
    for index in known:
        volume, scan = store.volumes([index])[0, 0].numpy(), store.scans[index].scan
        brain = float(np.clip(volume / DARK, 0, 1).sum()) * ml
        rows.append((float(scan.sex == "M"), scan.age_years, ventricles_ml(volume, store.spec, regions), brain))
    return np.array(known), np.array(rows, float)


def _describe(store: Store, indices: np.ndarray, conditions: np.ndarray, recipe: Recipe) -> Fitted:
    design = np.column_stack([np.ones(len(conditions)), conditions[:, 1], conditions[:, 0]])
    weights = np.linalg.lstsq(design, conditions[:, 2:], rcond=None)[0]
    residuals = conditions[:, 2:] - design @ weights
    low, high = conditions.min(0), conditions.max(0)
    low[0], high[0] = 0.0, 1.0
    return Fitted(recipe=recipe, volume=store.contract.volume, low=tuple(low.tolist()), high=tuple(high.tolist()),
                  centre=tuple(conditions.mean(0).tolist()), spread=tuple(conditions.std(0).tolist()),
                  expected=tuple(map(tuple, weights.T.tolist())), residual_sd=tuple(residuals.std(0).tolist()),
                  residual_r=float(np.corrcoef(residuals.T)[0, 1]),
                  trained_on=tuple(sorted({store.scans[i].scan.dataset for i in indices})))


@dataclass
class _Training:
    store: Store
    indices: np.ndarray
    fitted: Fitted
    conditions: np.ndarray
    seed: int
    phase: str = PHASES[0]
    step: int = 0

    def __post_init__(self) -> None:
        with torch.random.fork_rng(devices=[]):  # initial weights are the seed's, and nobody else's draws change
            torch.manual_seed(self.seed)
            self.networks = dict(zip(PHASES, self.fitted.recipe.networks()))
        self.averaged = {name: value.clone() for name, value in self.networks["diffusion"].state_dict().items()}
        self.optimiser = self._new_optimiser(self.phase)

    def run(self, phase: str, out: Path, progress: bool, on_step: OnStep) -> None:
        """Finish ``phase`` from where it stands."""
        recipe = self.fitted.recipe
        if phase != self.phase:
            self.phase, self.step, self.optimiser = phase, 0, self._new_optimiser(phase)
        if phase == "diffusion":
            self._encode()
        total = getattr(recipe, f"{phase}_steps")
        with progress_bar(f"Training the {phase}", total - self.step, progress) as advance:
            while self.step < total:
                self._learn(phase)
                self.step += 1
                if self.step % recipe.checkpoint_every == 0 or self.step == total:
                    self._checkpoint(out)
                on_step(phase, self.step)
                advance()

    def _learn(self, phase: str) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate(phase)
        loss = self._autoencoder_loss() if phase == "autoencoder" else self._diffusion_loss()
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.networks[phase].parameters(), 1.0)
        self.optimiser.step()
        if phase == "diffusion":
            self._average()

    @torch.no_grad()
    def _average(self) -> None:
        """Moving average of the diffusion model's weights, over few steps at first."""
        keep = min(self.fitted.recipe.averaging, (1 + self.step) / (10 + self.step))
        for name, value in self.networks["diffusion"].state_dict().items():
            self.averaged[name].lerp_(value, 1 - keep)

    def _rate(self, phase: str) -> float:
        """Cosine from the peak to a twentieth of it."""
        done = self.step / getattr(self.fitted.recipe, f"{phase}_steps")
        return self.fitted.recipe.learning_rate * (0.05 + 0.95 * 0.5 * (1 + float(np.cos(np.pi * done))))

    def _autoencoder_loss(self) -> torch.Tensor:
        """Mean absolute error and the latent's divergence from a normal distribution."""
        network, recipe = self.networks["autoencoder"], self.fitted.recipe
        rows, generator = self._draw("autoencoder", recipe.autoencoder_batch)
        patches = self._patches(rows)
        mean, sd = network.encode(patches)
        latent = mean + sd * torch.randn(mean.shape, generator=generator)
        divergence = 0.5 * (mean**2 + sd**2 - 2 * sd.log() - 1).sum() / len(patches)
        return functional.l1_loss(network.decode(latent), patches) + recipe.kl_weight * divergence

    def _diffusion_loss(self) -> torch.Tensor:
        """Mean squared error of the noise that was added (Ho et al., arXiv 2006.11239), or of v."""
        from monai.networks.schedulers import DDPMScheduler

        recipe, scheduler = self.fitted.recipe, DDPMScheduler(**self.fitted.recipe.schedule())
        rows, generator = self._draw("diffusion", recipe.diffusion_batch)
        latent = self.latents[rows]
        noise = torch.randn(latent.shape, generator=generator)
        steps = torch.randint(recipe.timesteps, (len(latent),), generator=generator)
        wanted = noise if recipe.prediction == "epsilon" else scheduler.get_velocity(latent, noise, steps)
        given = scheduler.add_noise(latent, noise, steps)
        told = self.fitted.scaled(self.conditions[rows])
        return functional.mse_loss(predicted(self.networks["diffusion"], given, steps, told), wanted)

    def _draw(self, phase: str, size: int) -> tuple[np.ndarray, torch.Generator]:
        """Which scans (n,), and the step's own randomness."""
        rng = np.random.default_rng((self.seed, PHASES.index(phase), self.step))
        return rng.integers(len(self.indices), size=size), torch.Generator().manual_seed(int(rng.integers(2**62)))

    def _patches(self, rows: np.ndarray) -> torch.Tensor:
        """(n, channels, x, y, z) scans as the autoencoder sees them."""
        from monai.networks.utils import pixelunshuffle

        volumes = self.store.volumes(self.indices[rows])
        return pixelunshuffle(torch.where(volumes == 0, OUTSIDE, volumes), 3, self.fitted.recipe.patch)

    @torch.no_grad()
    def _encode(self) -> None:
        """The latents of all scans; made anew when training goes on.

        Element by element what the conditions say of it (a ridge that counts as one more person) is taken out, and the
        rest is standardised.
        """
        encode, every = self.networks["autoencoder"].encode, np.arange(len(self.indices))
        latents = torch.cat([encode(self._patches(every[i:i + ENCODED]))[0] for i in every[::ENCODED]])
        told, self.latent_mean = self.fitted.scaled(self.conditions), latents.mean(0)
        latents -= self.latent_mean
        slope = torch.linalg.solve(told.T @ told + torch.eye(told.shape[1]), told.T @ latents.flatten(1))
        sd = latents.flatten(1).sub_(told @ slope).view_as(latents).std(0)
        self.latent_slope, self.latent_sd = slope.view(-1, *sd.shape), sd.clamp_min(LEAST_SD * float(sd.mean()))
        self.latents = latents.div_(self.latent_sd)

    def _new_optimiser(self, phase: str) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.networks[phase].parameters(), lr=self.fitted.recipe.learning_rate)

    def _identity(self) -> str:
        """Of this training: a checkpoint of another one is refused."""
        return digest_json([self.fitted.model_dump(), self.seed, [self.store.scans[i].crc32 for i in self.indices]])

    def _checkpoint(self, out: Path) -> None:
        state: dict[str, Any] = {name: network.state_dict() for name, network in self.networks.items()}
        state |= {"optimiser": self.optimiser.state_dict(), "phase": self.phase, "step": self.step,
                  "averaged": self.averaged, "identity": self._identity()}
        with atomic_write(out / CHECKPOINT, "wb") as file:
            torch.save(state, file)

    def restore(self, out: Path) -> None:
        """Go on from the checkpoint in ``out``, if there is one."""
        if not (out / CHECKPOINT).exists():
            return
        state = torch.load(out / CHECKPOINT, weights_only=True)
        if state["identity"] != self._identity():
            raise HeadstartError("holds another training", path=out, fix="Give another --out folder.")
        self.phase, self.step = state["phase"], state["step"]
        for name, network in self.networks.items():
            network.load_state_dict(state[name])
        self.optimiser = self._new_optimiser(self.phase)
        self.optimiser.load_state_dict(state["optimiser"])
        self.averaged = state["averaged"]

    def save(self, out: Path) -> None:
        """The finished model; the checkpoint is of no more use."""
        from safetensors.torch import save

        parts = {"autoencoder.": self.networks["autoencoder"].state_dict(), "unet.": self.averaged,
                 "latent.": {"mean": self.latent_mean, "sd": self.latent_sd, "slope": self.latent_slope}}
        weights = save({prefix + name: value.contiguous() for prefix, state in parts.items()
                        for name, value in state.items()})
        with atomic_write(out / WEIGHTS, "wb") as file:
            file.write(weights)
        write_json(out / TRAINING, _training(self.store, self.seed))
        fitted = self.fitted.model_copy(update={"weights": hashlib.sha256(weights).hexdigest()})
        write_json(out / CONFIG, fitted.model_dump(mode="json"))
        (out / CHECKPOINT).unlink(missing_ok=True)
