"""MONAI's bundle brain_image_synthesis_latent_diffusion_model: its own configuration and weights, read as data.

    BUNDLE/configs/inference.json   networks and schedule
    BUNDLE/models/autoencoder.pt, model.pt

The configuration may hold expressions to be run; none is: only the plain entries of the two networks and the schedule
are read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.errors import HeadstartError

INFERENCE = Path("configs") / "inference.json"
FILES = {"autoencoder_def": Path("models") / "autoencoder.pt", "diffusion_def": Path("models") / "model.pt"}
TARGETS = {"autoencoder_def": "AutoencoderKL", "diffusion_def": "DiffusionModelUNet", "scheduler": "DDIMScheduler"}
LATENT_SHAPE = (3, 20, 28, 20)
# The authors' demo gives this orientation, for images cut by five voxels on two axes; registration does the rest.
BUNDLE_AFFINE = np.array([[-1.0, 0, 0, 101.5], [0, 1, 0, -146.5], [0, 0, 1, -156.5], [0, 0, 0, 1]])
# Ranges of the conditions: the paper's section 2.1; sex, years, mL. How volumes go with age and sex it does not say:
# "expected" and "residual_sd" were chosen here, after the trajectories in ageing.py.
UK_BIOBANK: dict[str, Any] = {
    "low": (0.0, 44.0, 6.99568, 1144.24), "high": (1.0, 82.0, 171.375, 1793.91),
    "centre": (0.0, 44.0, 6.99568, 1144.24), "spread": (1.0, 38.0, 164.37932, 649.67),  # shares of its ranges
    "expected": ((-18.0, 0.85, 4.0), (1740.0, -3.8, -10.0)), "residual_sd": (14.0, 70.0)}


def is_bundle(folder: Path) -> bool:
    return (Path(folder) / INFERENCE).is_file()


def load_bundle(folder: Path) -> tuple[dict[str, Any], torch.nn.Module, torch.nn.Module, tuple[int, int, int, int]]:
    """(schedule for a ``Recipe``, autoencoder, diffusion model, latent shape).

    Raises:
        HeadstartError: a file is missing or damaged, or the configuration describes something else.
    """
    config = _entries(folder / INFERENCE)
    autoencoder, unet = (_network(config[name], folder / path, TARGETS[name]) for name, path in FILES.items())
    schedule = config["scheduler"]
    recipe = {"patch": 1, "beta_start": schedule["beta_start"], "beta_end": schedule["beta_end"],
              "timesteps": schedule["num_train_timesteps"], "prediction": schedule.get("prediction_type", "epsilon")}
    return recipe, autoencoder, unet, LATENT_SHAPE


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        entries = {name: dict(config[name]) for name in TARGETS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HeadstartError(f"is not the bundle's configuration ({error!r})", path=path,
                             fix="Fetch brain_image_synthesis_latent_diffusion_model from MONAI's zoo.") from error
    for name, target in TARGETS.items():
        if str(entries[name].get("_target_", "")).rsplit(".", 1)[-1] != target:
            raise HeadstartError(f"has no {target} as {name}", path=path, fix="Use the bundle's own configuration.")
    return {name: {key: value for key, value in entry.items() if not key.startswith("_")}
            for name, entry in entries.items()}


def _network(arguments: Mapping[str, Any], path: Path, target: str) -> torch.nn.Module:
    from monai.networks import nets

    if not path.is_file():
        raise HeadstartError("is missing", path=path, fix="The bundle's large_files.yml says where it is.")
    network = getattr(nets, target)(**arguments)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        load = network.load_old_state_dict if _is_old(state, network) else network.load_state_dict
        load(state)
    except Exception as error:  # torch raises many kinds
        raise HeadstartError(f"does not fit the bundle's configuration ({error})", path=path,
                             fix="Fetch the file again.") from error
    return network


def _is_old(state: Mapping[str, Any], network: torch.nn.Module) -> bool:
    """Whether the keys are those of MONAI's former generative package, as in the published files."""
    return set(state) != set(network.state_dict())
