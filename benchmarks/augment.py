"""Augmentation: affine + elastic + bias field + gamma + blur + noise + flip, against MONAI and TorchIO.

All do the same operations on every scan, with similar ranges, from and to tensors in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import Row, medians
from headstart.brains.augment import Augmentation, augment, sample_seeds
from headstart.brains.volumes import template, volume_spec

SCANS = {"4mm": 16, "2mm": 4}  # in a batch of ours
PEER_SCANS = 4  # peers work on one scan at a time: their time does not depend on how many there are
TARGETS = {"4mm": {"MONAI": 8.0, "TorchIO": 14.0}, "2mm": {"MONAI": 5.0, "TorchIO": 12.0}}


def run(repeats: int = 5) -> list[Row]:
    """One row per grid: seconds a scan."""
    return [_row(volume, count, repeats) for volume, count in SCANS.items()]


def _row(volume: str, count: int, repeats: int) -> Row:
    scans = brains(volume, count)
    seeds, limits = sample_seeds(0, 0, range(count)), Augmentation(flip=True)
    with ProcessPoolExecutor(2) as pool:
        work: dict[str, Callable[[], object]] = {
            "headstart": partial(augment, scans, seeds, limits),
            "MONAI": partial(one_by_one, "MONAI", volume, PEER_SCANS),
            "TorchIO": partial(one_by_one, "TorchIO", volume, PEER_SCANS),
            "MONAI, 2 workers": partial(in_workers, pool, "MONAI", volume, PEER_SCANS),
            "TorchIO, 2 workers": partial(in_workers, pool, "TorchIO", volume, PEER_SCANS),
        }
        seconds = medians(work, repeats)
    ours, peers = seconds.pop("headstart") / count, {name: time / PEER_SCANS for name, time in seconds.items()}
    return Row(f"augmentation of one scan, {volume}", ours, peers, TARGETS[volume],
               note=f"batches of {count}, {torch.get_num_threads()} threads")


def brains(volume: str, count: int) -> Tensor:
    """Template brains of different brightness, (count, 1, X, Y, Z)."""
    brain = torch.from_numpy(np.where(template(volume).brain, (template(volume).t1 - 0.3) / 0.7, 0)).float()
    return torch.stack([brain * (1 + 0.01 * i) for i in range(count)])[:, None]


def one_by_one(peer: str, volume: str, count: int) -> None:
    """A peer's transforms over ``count`` scans in this process."""
    apply, scan = PEERS[peer](volume), brain_once(volume)
    for _ in range(count):
        apply(scan)


def in_workers(pool: ProcessPoolExecutor, peer: str, volume: str, count: int) -> None:
    """The same shared by two processes of one thread each, without what it costs to send the scans about."""
    list(pool.map(_worker, [peer] * 2, [volume] * 2, [count // 2] * 2))


def _worker(peer: str, volume: str, count: int) -> None:
    torch.set_num_threads(1)
    one_by_one(peer, volume, count)


@cache
def brain_once(volume: str) -> Tensor:
    return brains(volume, 1)[0]


@cache
def monai(volume: str) -> Callable[[Tensor], object]:
    from monai import transforms as T

    mm, limits = volume_spec(volume).spacing_mm, Augmentation()
    elastic = T.Rand3DElastic(
        sigma_range=(5, 7), magnitude_range=(0, 100), prob=1, padding_mode="zeros",
        rotate_range=[np.deg2rad(limits.rotation_degrees)] * 3, shear_range=[limits.stretch] * 3,
        scale_range=[limits.stretch] * 3, translate_range=[limits.translation_mm / mm] * 3)
    blur = (0.0, limits.blur_mm / mm)
    return T.Compose([
        T.RandFlip(prob=0.5, spatial_axis=0), elastic, T.RandBiasField(prob=1), T.RandAdjustContrast(prob=1,
        gamma=(0.8, 1.25)), T.RandGaussianSmooth(prob=1, sigma_x=blur, sigma_y=blur, sigma_z=blur),
        T.RandRicianNoise(prob=1, std=limits.noise),
    ])


@cache
def torchio(volume: str) -> Callable[[Tensor], object]:
    import torchio as tio

    mm, limits = volume_spec(volume).spacing_mm, Augmentation()
    return tio.Compose([
        tio.RandomFlip(axes=0), tio.RandomAffine(scales=limits.stretch, degrees=limits.rotation_degrees,
                                                 translation=limits.translation_mm),
        tio.RandomElasticDeformation(num_control_points=7, max_displacement=limits.elastic_mm / mm),
        tio.RandomBiasField(), tio.RandomGamma(log_gamma=limits.gamma), tio.RandomBlur(std=(0, limits.blur_mm / mm)),
        tio.RandomNoise(std=(0, limits.noise)),
    ])


PEERS = {"MONAI": monai, "TorchIO": torchio}
