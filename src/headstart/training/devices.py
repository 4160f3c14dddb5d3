"""One Fabric per process: CPU or CUDA, alone or under torchrun, through the same code."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch

from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

COLLECTIVE_TIMEOUT = timedelta(minutes=5)


@lru_cache(maxsize=1)
def launch() -> Fabric:
    """The Fabric of this process; under ``torchrun`` it joins the others (gloo on CPU, NCCL on CUDA)."""
    from lightning_fabric import Fabric  # seconds to import: only what trains pays for it
    from lightning_fabric.plugins.environments import LightningEnvironment
    from lightning_fabric.strategies import DDPStrategy

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:  # the plugin keeps Fabric from reading SLURM's variables
        fabric = Fabric(accelerator="auto", devices=1, precision=_precision(), plugins=[LightningEnvironment()])
    else:
        fabric = Fabric(
            accelerator="auto", devices=int(os.environ["LOCAL_WORLD_SIZE"]), precision=_precision(),
            num_nodes=int(os.environ["WORLD_SIZE"]) // int(os.environ["LOCAL_WORLD_SIZE"]),
            strategy=DDPStrategy(timeout=COLLECTIVE_TIMEOUT))
    fabric.launch()
    if fabric.world_size > 1:  # gloo's threads must end before the interpreter does, or it may abort on its way out
        atexit.register(_leave)
    return fabric


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _precision() -> Literal["bf16-mixed", "32-true"]:
    return "bf16-mixed" if torch.cuda.is_available() else "32-true"  # bf16 is slower than float32 on most CPUs


@lru_cache(maxsize=1)
def bfloat16_is_fast() -> bool:
    """Whether the processor multiplies in bfloat16; to imitate it takes some ten times as long as float32."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return False
    return not words.isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))  # the last is ARM's


def reduce_sum(fabric: Fabric, *values: float) -> list[float]:
    """Sum numbers over all processes, in float64."""
    if fabric.world_size == 1:
        return list(values)
    with explained_loss_of_peers():
        total = fabric.all_reduce(torch.tensor(values, dtype=torch.float64, device=fabric.device), reduce_op="sum")
    return cast(torch.Tensor, total).tolist()


@contextmanager
def explained_loss_of_peers() -> Iterator[None]:
    """Say in plain words that another process died, where torch reports a closed socket."""
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in ("gloo", "nccl", "connection", "peer", "timed out")):
            raise
        raise HeadstartError("another process of this run has ended or does not answer",
                             fix="Run the same command again: training continues from its last checkpoint.") from error
