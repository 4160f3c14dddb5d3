"""Video: Kinetics. Time becomes X (left to right), height Y and width Z."""

from __future__ import annotations

from headstart.upstreams.base import Hub, Upstream, Url
from headstart.upstreams.natural_images import PYTORCH
from headstart.upstreams.recipes import RECIPES

NOBODY: tuple[str, ...] = ()
FOLDED = "RGB clips; their normalisation is folded into the first layer, which reads one channel in [0, 1]"
RESNETS, VIDEOMAE = "arXiv 1711.11248", "arXiv 2203.12602"


def _resnet(name: str, backbone: str, file: str, sha256: str, millions: float) -> Upstream:
    return Upstream(name, "video", (backbone,), Url(f"{PYTORCH}/{file}", sha256), RECIPES["torchvision-video"],
                    "BSD-3-Clause (torchvision)", True, RESNETS, NOBODY, FOLDED, round(millions * 1e6))


def _videomae(name: str, size: str, hub: Hub, millions: float, note: str, *, recipe: str = "videomae",
              paper: str = VIDEOMAE) -> Upstream:
    return Upstream(name, "video", (f"vit-{size}-patches",), hub, RECIPES[recipe], "CC BY-NC 4.0", False, paper, NOBODY,
                    FOLDED, round(millions * 1e6), note)


UPSTREAMS = (
    _resnet("kinetics-r3d18", "r3d-18", "r3d_18-b3b3357e.pth", "b3b3357e", 33.2),
    _resnet("kinetics-mc3-18", "mc3-18", "mc3_18-a90a0ba3.pth", "a90a0ba3", 11.5),
    _resnet("kinetics-r2plus1d18", "r2plus1d-18", "r2plus1d_18-91a641e6.pth", "91a641e6", 31.3),
    _videomae("videomae-base", "base", Hub("MCG-NJU/videomae-base"), 86.2, "Self-supervised on Kinetics-400."),
    _videomae("videomae-base-kinetics", "base", Hub("MCG-NJU/videomae-base-finetuned-kinetics"), 86.2,
              "Fine-tuned on Kinetics-400."),
    _videomae("videomae2-base", "base", Hub("OpenGVLab/VideoMAEv2-Base"), 86.2,
              "Self-supervised on UnlabeledHybrid-1M. Its code lives on the hub only, and hub code is not run here: "
              "the outputs are unverified.", recipe="videomae-original", paper="arXiv 2303.16727"),
    _videomae("videomae-small-kinetics", "small",
              Hub("MCG-NJU/videomae-small-finetuned-kinetics", "pytorch_model.bin"), 22.0,
              "Fine-tuned on Kinetics-400; the publisher has no safetensors file, so it is read with weights_only."),
    Upstream("kinetics-swin3d-tiny", "video", ("swin3d-tiny",), Url(f"{PYTORCH}/swin3d_t-7615ae03.pth", "7615ae03"),
             RECIPES["torchvision-video-swin"], "BSD-3-Clause (torchvision)", True, "arXiv 2106.13230", NOBODY, FOLDED,
             27_800_000, "Kinetics-400, from ImageNet."),
    Upstream("mae-st-large", "video", ("vit-large",),
             Url("https://dl.fbaipublicfiles.com/video-mae/pretrain/mae_pretrain_vit_large_k400.pth"),
             RECIPES["mae-st"], "CC BY-NC 4.0", False, "arXiv 2205.09113", NOBODY, FOLDED, 304_000_000,
             "Self-supervised on Kinetics-400. The authors publish code but no package: key names are theirs, the "
             "outputs unverified. Large: a GPU."),
    Upstream("vjepa2-large", "video", ("vit-large-vjepa2",), Hub("facebook/vjepa2-vitl-fpc64-256"), RECIPES["vjepa2"],
             "MIT", True, "arXiv 2506.09985", NOBODY, FOLDED, 303_900_000,
             "Self-supervised on VideoMix22M. Rotary positions along all three axes, as in the source. Large: a GPU."),
)
