"""How long an import of weights takes and how much memory it needs, each in a fresh process.

Published files are not needed: files with the true key names, shapes and dtypes are written first, from timm,
torchvision and transformers. EfficientNet-lite0 and deepbet are the real ones, from their packages. Memory is the peak
of the resident set above what the process holds once the packages are imported and a fresh backbone is built; a file
that is mapped counts with its pages.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import Row

VOLUME = "2mm"
LIMIT_S, LIMIT_TIMES = 5.0, 3.0  # of a ViT-B

CHILD = """
import json, sys, threading, time
import psutil
from headstart.backbones import build_backbone
from headstart.brains.volumes import volume_spec
from headstart.upstreams import load_into
source, backbone, volume, recipe = sys.argv[1:]
spec = volume_spec(volume)
net = build_backbone(backbone, spec)
process, peak, done = psutil.Process(), [0], threading.Event()
before = process.memory_info().rss
def watch():
    while not done.is_set():
        peak[0] = max(peak[0], process.memory_info().rss)
        time.sleep(0.002)
watcher = threading.Thread(target=watch); watcher.start()
start = time.perf_counter()
report = load_into(source, net, backbone, spec, recipe=recipe or None, accept_licence=True)
seconds = time.perf_counter() - start
done.set(); watcher.join()
size = sum(t.numel() * t.element_size() for t in net.state_dict().values())
print(json.dumps({"seconds": seconds, "memory": peak[0] - before, "size": size, "summary": report.summary()}))
"""


def fixtures(folder: Path) -> list[tuple[str, str, str, str]]:
    """(name, source, backbone, recipe) of every import to measure; files are written to ``folder``."""
    import timm
    import torch
    from safetensors.torch import save_file
    from torchvision import models
    from transformers import VideoMAEConfig, VideoMAEForPreTraining, VJEPA2Config, VJEPA2Model

    def file(name: str, model: torch.nn.Module) -> str:
        path = folder / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
        return str(path)

    def torch_file(name: str, model: torch.nn.Module) -> str:
        torch.save(model.state_dict(), folder / f"{name}.pth")
        return str(folder / f"{name}.pth")

    vit_base = timm.create_model("vit_base_patch16_224")
    return [
        ("deepbet (real)", "deepbet", "deepbet-encoder", ""),
        ("EfficientNet-lite0 (real)", "imagenet-efficientnet-lite0", "efficientnet-lite0", ""),
        ("DenseNet121, .pth", torch_file("densenet", models.densenet121()), "densenet121", "torchvision-densenet"),
        ("R3D-18, .pth", torch_file("r3d", models.video.r3d_18()), "r3d-18", "torchvision-video"),
        ("ViT-Ti/16", file("tiny", timm.create_model("vit_tiny_patch16_224")), "vit-tiny", "timm-vit"),
        ("ViT-S/16", file("small", timm.create_model("vit_small_patch16_224")), "vit-small", "timm-vit"),
        ("DINOv2-S/14, registers", file("dino", timm.create_model("vit_small_patch14_reg4_dinov2")),
         "vit-small-registers", "timm-vit-registers"),
        ("DINOv3-S/16", file("dinov3", timm.create_model("vit_small_patch16_dinov3")), "vit-small-dinov3",
         "timm-vit-dinov3"),
        ("ViT-B/16", file("base", vit_base), "vit-base", "timm-vit"),
        ("ViT-B/16, .pth", torch_file("base", vit_base), "vit-base", "timm-vit"),
        ("VideoMAE-B, with decoder", file("video", VideoMAEForPreTraining(VideoMAEConfig())), "vit-base-patches",
         "videomae"),
        ("V-JEPA 2-L, with predictor", file("jepa", VJEPA2Model(VJEPA2Config())), "vit-large-vjepa2", "vjepa2"),
    ]


def measure(source: str, backbone: str, recipe: str) -> dict:
    done = subprocess.run([sys.executable, "-c", CHILD, source, backbone, VOLUME, recipe],
                          capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run() -> list[Row]:
    """One row an import."""
    with tempfile.TemporaryDirectory() as folder:
        return [_row(name, measure(*arguments)) for name, *arguments in fixtures(Path(folder))]


def _row(name: str, found: dict) -> Row:
    times, limits = found["memory"] / found["size"], {}
    if name.startswith("ViT-B"):
        limits = {f"< {LIMIT_S:.0f} s": found["seconds"] < LIMIT_S,
                  f"peak < {LIMIT_TIMES:.0f} × its size: {times:.2f}": times < LIMIT_TIMES}
    return Row(f"import: {name}", found["seconds"], limits=limits,
               note=f"{found['size'] / 2**20:.0f} MiB, peak {found['memory'] / 2**20:.0f} MiB")
