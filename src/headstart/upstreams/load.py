"""Weights from a catalogue name, a headstart folder or a user's file go into a backbone, with a receipt."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from torch import nn

from headstart.adaptation import (
    Drop,
    Rename,
    ResizeKernel,
    ResizePositions,
    Step,
    TransferReport,
    read_checkpoint,
    transfer_weights,
)
from headstart.brains.volumes import VolumeSpec, volume_spec
from headstart.errors import HeadstartError
from headstart.files import read_json, sha256_file
from headstart.upstreams.base import Readout, Recipe, Shipped, Upstream
from headstart.upstreams.catalogue import CATALOGUE, find, is_name
from headstart.upstreams.fetch import Progress, expected_sha256, locate
from headstart.upstreams.recipes import RECIPES

CONFIG, WEIGHTS = "config.json", "model.safetensors"  # of our own model folders (headstart.modelfolder)
WRAPPED = Rename((("module.{rest}", "{rest}"),))  # torch.nn.DataParallel puts this before every key
OWN_NAMES = Rename((("backbone.{rest}", "{rest}"),))
OWN_HEAD = Drop(("norm.*", "head.*", "target_*"), "head")


def load_into(source: str | Path, backbone: nn.Module, backbone_name: str, spec: VolumeSpec, *,
              recipe: str | None = None, accept_licence: bool = False,
              progress: Progress | None = None) -> TransferReport:
    """Load weights into ``backbone`` in place; nothing is loaded unless every key is accounted for.

    Args:
        source: a catalogue name, ``scratch``, a folder that finetune or pretrain wrote, or a checkpoint file.
        backbone: a fresh backbone called ``backbone_name``, for volumes on ``spec``.
        recipe: for a file: the name of a recipe, or of the catalogue's record that it is a copy of.
        accept_licence: a licence that forbids commercial use is accepted.
        progress: told of every chunk that is fetched.

    Raises:
        HeadstartError: no such source, another architecture, a damaged file, or an unexplained key.
    """
    if is_name(source):
        return _load_upstream(find(str(source)), backbone, backbone_name, spec, accept_licence, progress)
    path = _existing(source)
    if path.is_dir():
        return load_folder(own_folder(path), backbone, backbone_name, spec)
    return load_file(path, backbone, backbone_name, recipe)


def _load_upstream(upstream: Upstream, backbone: nn.Module, backbone_name: str, spec: VolumeSpec,
                   accept_licence: bool, progress: Progress | None) -> TransferReport:
    if upstream.source is None:
        return transfer_weights(backbone, {}, source=upstream.name, initialised=("*",))
    check_fits(upstream, backbone_name)
    path = locate(upstream, backbone=backbone_name, volume=spec.name, accept_licence=accept_licence, progress=progress)
    if isinstance(upstream.source, Shipped):
        return load_folder(path, backbone, backbone_name, spec)
    state = read_checkpoint(path, sha256=expected_sha256(upstream))
    return _transfer(backbone, state, _recipe_of(upstream), upstream.name)


def seen_by(source: str | Path, backbone_name: str, spec: VolumeSpec) -> tuple[str, ...] | None:
    """Cohorts that the weights were trained on: the record's, or those in a folder's config.json; None: not known."""
    seen = _known(source, backbone_name, spec, "seen")
    return None if seen is None else tuple(seen)


def licence_of(source: str | Path, backbone_name: str, spec: VolumeSpec) -> str | None:
    """Licence of the weights, which binds what is made of them; None: not known."""
    return _known(source, backbone_name, spec, "licence")


def domain_of(source: str | Path, backbone_name: str, spec: VolumeSpec) -> str | None:
    """What the weights were trained on: the record's, or a folder's own (see ``ModelConfig``); None: not known."""
    return _known(source, backbone_name, spec, "domain")


def domain_of_recipe(recipe: str) -> str | None:
    """The domain of the records that are read by this recipe, where they agree; None: not known."""
    domains = {upstream.domain for upstream in CATALOGUE.values() if upstream.recipe and upstream.recipe.name == recipe}
    return domains.pop() if len(domains) == 1 else None


def readout_of(source: str | Path, backbone_name: str, spec: VolumeSpec, label: str) -> Readout | None:
    """How a model folder's own head reads ``label``, if that is among what it was taught; None otherwise."""
    folder = _folder(source, backbone_name, spec)
    outputs = read_own_config(folder)[0].get("outputs", []) if folder is not None else []
    if folder is None or outputs.count(label) != 1:  # a label with classes has several outputs
        return None
    state = read_checkpoint(folder / WEIGHTS)
    norm = {name: state[f"norm.{name}"].float() for name in ("weight", "bias")}
    return Readout(norm, state["head.weight"][outputs.index(label)].float())


def _folder(source: str | Path, backbone_name: str, spec: VolumeSpec) -> Path | None:
    """Where a model folder of our own lies, shipped or given; None for all else."""
    if not is_name(source):
        return own_folder(Path(source)) if Path(source).is_dir() else None
    upstream = find(str(source))
    return locate(upstream, backbone=backbone_name, volume=spec.name) if isinstance(upstream.source, Shipped) else None


def _known(source: str | Path, backbone_name: str, spec: VolumeSpec, field: str) -> Any:
    """A field of the record, or of a folder's config.json; None where a bare file says nothing."""
    if is_name(source) and not isinstance(find(str(source)).source, Shipped):
        return getattr(find(str(source)), field)
    folder = _folder(source, backbone_name, spec)
    return read_own_config(folder)[0].get(field) if folder is not None else None


def identity(source: str | Path, backbone_name: str, spec: VolumeSpec) -> str:
    """What stands for these weights in an experiment's digest: the catalogue's name, or the content of a file.

    A path alone would not do: the file behind it can change.
    """
    if is_name(source):
        upstream = find(str(source))
        if not isinstance(upstream.source, Shipped):
            return upstream.name
        path = locate(upstream, backbone=backbone_name, volume=spec.name)
    else:
        path = _existing(source)
    return f"sha256:{sha256_file(own_folder(path) / WEIGHTS if path.is_dir() else path)}"


def _existing(source: str | Path) -> Path:
    """The path of what is no name; HeadstartError with the nearest names where nothing is there."""
    if not Path(source).exists():
        find(str(source))
    return Path(source)


def own_folder(folder: Path) -> Path:
    """The folder of a model of our own: the one given, or the ``model`` folder of the run that it is.

    Raises:
        HeadstartError: there is no finished model.
    """
    for candidate in (folder, folder / "model"):
        if (candidate / CONFIG).is_file() and (candidate / WEIGHTS).is_file():
            return candidate
    if (folder / "request.json").is_file():
        raise HeadstartError("holds a pre-training or a run that has not ended", path=folder,
                             fix="Give its command again: it goes on where it was stopped.")
    if (folder / CONFIG).is_file():
        raise HeadstartError(f"lacks its weights ({WEIGHTS})", path=folder, fix="Copy the model folder again, whole.")
    raise HeadstartError(f"is not a headstart model (no {CONFIG})", path=folder,
                         fix="Give the folder that finetune, pretrain or weights import wrote, or a checkpoint file.")


def check_fits(upstream: Upstream, backbone_name: str) -> None:
    """HeadstartError unless ``upstream`` is for this backbone."""
    if upstream.backbones and backbone_name not in upstream.backbones:
        raise HeadstartError(f"'{upstream.name}' does not fit the backbone '{backbone_name}'",
                             fix=f"Use --backbone {' or '.join(upstream.backbones)}, or see "
                             f"`headstart weights list --backbone {backbone_name}`.")


def load_file(path: Path, backbone: nn.Module, backbone_name: str, recipe: str | None) -> TransferReport:
    """A user's own checkpoint, by a recipe or as a copy of a catalogue record."""
    if recipe is None:
        raise HeadstartError("is a checkpoint, and needs a recipe", path=path,
                             fix=f"Say how it is to be read: one of {', '.join(RECIPES)}, or a name in the catalogue.")
    if recipe in RECIPES:
        return _transfer(backbone, read_checkpoint(path), RECIPES[recipe], str(path))
    upstream = find(recipe)
    check_fits(upstream, backbone_name)
    sha256 = getattr(upstream.source, "sha256", None)
    return _transfer(backbone, read_checkpoint(path, sha256=sha256), _recipe_of(upstream), upstream.name)


def _recipe_of(upstream: Upstream) -> Recipe:
    if upstream.recipe is None:
        raise HeadstartError(f"'{upstream.name}' is not a file to import", fix="Give its name as --upstream instead.")
    return upstream.recipe


def _transfer(backbone: nn.Module, state: dict, recipe: Recipe, source: str) -> TransferReport:
    steps = (WRAPPED, *recipe.steps) if all(key.startswith("module.") for key in state) else recipe.steps
    return transfer_weights(backbone, state, steps, source=source, initialised=recipe.initialised)


def load_folder(folder: Path, backbone: nn.Module, backbone_name: str, spec: VolumeSpec) -> TransferReport:
    """A model that finetune or pretrain wrote: the same backbone, on any volume; its head stays behind."""
    config, contract = read_own_config(folder)
    if config.get("backbone") != backbone_name:
        raise HeadstartError(f"holds a '{config.get('backbone')}', not a '{backbone_name}'", path=folder,
                             fix=f"Use --backbone {config.get('backbone')}.")
    state = read_checkpoint(folder / WEIGHTS)
    steps = (OWN_HEAD, OWN_NAMES, *_own_resizing(backbone, volume_spec(contract.get("volume", spec.name))))
    return transfer_weights(backbone, state, steps, source=str(folder))


def read_own_config(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """``config.json`` of a model folder, and the preprocessing contract in it."""
    config = read_json(folder / CONFIG)
    contract = config.get("contract") if isinstance(config, dict) else None
    if not isinstance(contract, dict):
        raise HeadstartError("is not a model config", path=folder / CONFIG, fix="Copy the model folder again.")
    return config, contract


def _own_resizing(backbone: nn.Module, trained: VolumeSpec) -> tuple[Step, ...]:
    """For a ViT: from the grid it was trained on to the one it is built for; nothing happens where they agree."""
    positions = getattr(backbone, "pos_embed", None)
    if positions is None:
        return ()
    grid = tuple(size // trained.patch for size in trained.shape)
    prefix = positions.shape[1] - prod(backbone.grid)  # type: ignore[arg-type]
    return ResizeKernel(), ResizePositions(grid, prefix=prefix)
