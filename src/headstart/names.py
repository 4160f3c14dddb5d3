"""Names that the command line offers before it imports what they stand for; tests compare them with the registries."""

from __future__ import annotations

from enum import StrEnum

BACKBONES = (
    "vit-mini", "vit-tiny", "vit-small", "vit-base", "vit-large", "cnn-small", "densenet121", "resnet18",
    "vit-small-patches", "vit-base-patches", "vit-small-registers", "vit-base-registers", "vit-small-dinov3",
    "vit-base-dinov3", "vit-large-vjepa2", "medicalnet-resnet10", "medicalnet-resnet18", "medicalnet-resnet50",
    "r3d-18", "mc3-18", "r2plus1d-18", "swin3d-tiny", "efficientnet-lite0", "sfcn", "deepbet-encoder", "swin-unetr",
    "resenc-large",
)

OFFLINE = "HEADSTART_OFFLINE"  # set to anything but 0, forbids the network


class Volume(StrEnum):
    """Grids in template space."""

    mm4, mm3, mm2, mm1 = "4mm", "3mm", "2mm", "1mm"
