"""3D backbones for any volume; a new one is one new entry in ``BACKBONES``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from headstart.backbones.base import Backbone
from headstart.backbones.cnn import SmallCNN
from headstart.backbones.deepbet_net import DeepbetEncoder
from headstart.backbones.efficientnet_lite import EfficientNetLite0
from headstart.backbones.medicalnet import DEPTHS, MedicalNet
from headstart.backbones.model import BrainModel
from headstart.backbones.monai_nets import DenseNet121
from headstart.backbones.resenc import ResidualEncoder
from headstart.backbones.sfcn import SFCN
from headstart.backbones.swin import SwinUnetrEncoder, VideoSwin
from headstart.backbones.video_nets import NAMES, VideoResNet
from headstart.backbones.vit import SIZES, VisionTransformer
from headstart.brains.volumes import VolumeSpec
from headstart.errors import HeadstartError


def _vit(name: str, prefix: int, spec: VolumeSpec) -> Backbone:
    return VisionTransformer(spec, *SIZES[name], prefix=prefix)


def _dinov3(name: str, spec: VolumeSpec) -> Backbone:
    return VisionTransformer(spec, *SIZES[name], prefix=5, rotary="dinov3", epsilon=1e-5)


def _vjepa2(spec: VolumeSpec) -> Backbone:
    return VisionTransformer(spec, 24, 1024, 16, prefix=0, rotary="vjepa2")


def _medicalnet(depth: int, spec: VolumeSpec) -> Backbone:
    return MedicalNet(depth)


def _video(name: str, spec: VolumeSpec) -> Backbone:
    return VideoResNet(name)


BACKBONES: dict[str, Callable[[VolumeSpec], Backbone]] = {
    **{name: partial(_vit, name, 1) for name in SIZES},
    "cnn-small": lambda spec: SmallCNN(),
    "densenet121": lambda spec: DenseNet121(),
    "resnet18": lambda spec: MedicalNet(18, shortcut="B"),
    # What published weights need besides: no class token (VideoMAE, MONAI), a class token and four registers (DINOv2).
    **{f"{name}-patches": partial(_vit, name, 0) for name in ("vit-small", "vit-base")},
    **{f"{name}-registers": partial(_vit, name, 5) for name in ("vit-small", "vit-base")},
    **{f"{name}-dinov3": partial(_dinov3, name) for name in ("vit-small", "vit-base")},
    "vit-large-vjepa2": _vjepa2,
    **{f"medicalnet-resnet{depth}": partial(_medicalnet, depth) for depth in DEPTHS},
    **{name: partial(_video, name) for name in NAMES},
    "swin3d-tiny": lambda spec: VideoSwin(),
    "efficientnet-lite0": lambda spec: EfficientNetLite0(),
    "sfcn": lambda spec: SFCN(),
    "deepbet-encoder": lambda spec: DeepbetEncoder(),
    "swin-unetr": lambda spec: SwinUnetrEncoder(),
    "resenc-large": lambda spec: ResidualEncoder(),
}
"""Backbones by name: what builds a fresh one for volumes on a grid."""


def build_backbone(name: str, spec: VolumeSpec, *, seed: int = 0) -> Backbone:
    """The backbone called ``name`` for volumes on ``spec``; its initial weights are a function of ``seed`` alone.

    Raises:
        HeadstartError: there is no such backbone; the message lists those there are.
    """
    if name not in BACKBONES:
        raise HeadstartError(f"unknown backbone '{name}'", fix=f"Choose one of: {', '.join(BACKBONES)}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BACKBONES[name](spec)


def build_model(name: str, spec: VolumeSpec, num_outputs: int, *, seed: int = 0) -> BrainModel:
    """A fresh backbone with a fresh head of ``num_outputs``, both a function of ``seed`` alone.

    Raises:
        HeadstartError: there is no such backbone.
    """
    backbone = build_backbone(name, spec, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        return BrainModel(backbone, num_outputs)


__all__ = ["BACKBONES", "Backbone", "BrainModel", "build_backbone", "build_model"]
