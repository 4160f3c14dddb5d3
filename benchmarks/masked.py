"""Masked pre-training of ViT-Small/8 at 3 mm against MONAI's ``MaskedAutoEncoderViT``, and how busy the network is.

Both hide 75 %, reconstruct normalised patches and take a step of fused AdamW. MONAI has the same encoder; once with a
decoder of our size, once with its own default. The share of time is that of forward, backward and optimiser in a whole
supervised step from a pool: loading, augmentation and book-keeping are the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.common import Row, medians
from benchmarks.vit import in_bfloat16
from headstart.backbones import build_backbone, build_model
from headstart.backbones.vit import cut_patches
from headstart.brains.volumes import template, volume_spec
from headstart.pretraining.masked import DECODER_BLOCKS, DECODER_HEAD, Masked, masked_model, normalised
from headstart.pretraining.pool import Pool
from headstart.pretraining.procedural import write_pool
from headstart.pretraining.supervised import Supervised
from headstart.training import Batch, TrainingPlan, fit

BATCH, SPEC = 8, volume_spec("3mm")
WIDTH, DEPTH, HEADS = 384, 12, 6  # of ViT-Small
POOL, POOL_BATCH, BUSY = 512, 32, 0.85


def run(repeats: int = 5) -> list[Row]:
    """Seconds a masked step of eight scans, and seconds a supervised epoch from a pool."""
    volumes = torch.rand(BATCH, 1, *SPEC.shape) * torch.from_numpy(template(SPEC.name).brain)
    narrow = WIDTH // 2
    work = {"headstart": ours(volumes), "MONAI": theirs(volumes, DECODER_BLOCKS, narrow, narrow // DECODER_HEAD),
            "MONAI, its own decoder": theirs(volumes, 4, 384, 12)}
    seconds = medians(work | {"bfloat16": in_bfloat16(work["headstart"])}, repeats)  # MONAI's fails under autocast
    own, fast = seconds.pop("headstart"), seconds.pop("bfloat16")
    name, threads = "masked ViT-Small/8 step, 3 mm", torch.get_num_threads()
    return [Row(name, own, seconds, {"MONAI": 4.0}, note=note(own, threads)),
            Row(f"{name}, bfloat16", fast, seconds, note=note(fast, threads)),
            *(busy(backbone) for backbone in ("cnn-small", "vit-mini"))]


def note(seconds: float, threads: int) -> str:
    return f"{BATCH / seconds:.1f} scans/s in batches of {BATCH}, {threads} threads"


def ours(volumes: Tensor) -> Callable[[], None]:
    """A step of ours, ready to be called."""
    model, objective = masked_model(build_backbone("vit-small", SPEC), SPEC), Masked(SPEC)
    batch = Batch(volumes, torch.zeros(BATCH, 1), np.arange(BATCH, dtype=np.uint64))
    return step(model, lambda: objective(model, batch).loss.mean())


def theirs(volumes: Tensor, depth: int, width: int, heads: int) -> Callable[[], None]:
    """A step of MONAI's, with a decoder of this size."""
    from monai.networks.nets import MaskedAutoEncoderViT

    model = MaskedAutoEncoderViT(
        1, SPEC.shape, SPEC.patch, hidden_size=WIDTH, mlp_dim=4 * WIDTH, num_layers=DEPTH, num_heads=HEADS,
        masking_ratio=0.75, decoder_hidden_size=width, decoder_mlp_dim=4 * width, decoder_num_layers=depth,
        decoder_num_heads=heads)

    def loss() -> Tensor:
        said, hidden = model(volumes)
        truth, _ = normalised(cut_patches(volumes, SPEC.patch))
        return ((said - truth).square().mean(2) * hidden).sum() / hidden.sum()

    return step(model, loss)


def step(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """One step of the optimiser, ready to be called."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def one_step() -> None:
        optimizer.zero_grad()
        loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return one_step


def busy(backbone: str) -> Row:
    """An epoch over a pool at 4 mm: how much of it the network needs, and how much of it no step waits for samples."""
    with TemporaryDirectory() as folder:
        pool = Pool.open(write_pool(Path(folder), "procedural-images", n=POOL, seed=0, volume="4mm", progress=False))
        everyone, nobody = np.arange(POOL), np.arange(0)
        model = build_model(backbone, pool.store.spec, pool.outputs)
        plan = TrainingPlan(max_epochs=3, batch_size=POOL_BATCH)
        history = fit(model, Supervised(pool.labels), pool, everyone, nobody, plan, seed=0)
        epoch = median(one.seconds + one.waited for one in history.epochs)
        alone = POOL // POOL_BATCH * network_seconds(backbone, pool)
    share = alone / epoch
    return Row(f"{backbone}, an epoch over {POOL} cached samples, 4 mm", epoch, limits={
        f"steps without augmentation {share:.0%} of the time (≥ {BUSY:.0%})": share >= BUSY,
        f"no step waits {history.busy:.0%} of the time (≥ {BUSY:.0%})": history.busy >= BUSY})


def network_seconds(backbone: str, pool: Pool) -> float:
    """Forward, backward and optimiser on one batch that is there already."""
    model, objective = build_model(backbone, pool.store.spec, pool.outputs), Supervised(pool.labels)
    objective.prepare(model, pool.targets)
    first = np.arange(POOL_BATCH)
    batch = Batch(pool.volumes(first), torch.from_numpy(pool.targets[first]).float(), first.astype(np.uint64))
    return medians({"step": step(model, lambda: objective(model, batch).loss.mean())}, 5)["step"]
