"""What a benchmark would cost: cells, hours and disk, before anything is done."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from headstart.backbones import build_backbone
from headstart.benchmark.config import Config, Hardware
from headstart.benchmark.plan import SCRATCH, Cell, Plan, PlannedTask
from headstart.brains.volumes import volume_spec

# Sustained, float32, with vit-mini and cnn-small at 4 mm on one core of a busy 2-core x86: 29 to 47.
CORE = Hardware(gigaflops=35.0, note="a core of a laptop; depthwise convolutions are ten times slower")
EPOCHS_SHARE = 0.7  # of the epochs asked for, before the validation loss ends training
PREPARE_SECONDS = 20.0  # a real scan on one core, most of it brain extraction
SIMULATE_SECONDS = {"4mm": 0.03, "3mm": 0.06, "2mm": 0.25, "1mm": 2.0}
KEPT = 0.55  # of a grid's voxels, near the template's brain
CELL_BYTES = 150_000  # predictions and receipt
STATES = 4  # of a model's size while a cell trains: weights, best weights and the optimiser's two moments


@dataclass(frozen=True)
class Estimate:
    """What is to be expected.

    Attributes:
        training_hours, preparation_hours: of one process.
        disk_gb: stores and results; working_gb: besides, for each worker while it trains.
    """

    cells: int
    training_hours: float
    preparation_hours: float
    disk_gb: float
    working_gb: float
    assumed: Hardware

    def hours(self, workers: int, preparing: int) -> float:
        """Of ``preparing`` processes that prepare all scans, then of ``workers`` that train."""
        return self.training_hours / workers + self.preparation_hours / preparing


def estimate(plan: Plan, config: Config) -> Estimate:
    """Cells by arithmetic, hours by each network's operations on the assumed hardware, disk by the grids' sizes."""
    hardware = config.hardware or CORE
    seconds = sum(operations(plan, cell) for cell in plan.cells) / (1e9 * hardware.gigaflops)
    return Estimate(len(plan.cells), seconds / 3600, sum(map(_preparation(plan), _stores(plan))) / 3600,
                    (_store_bytes(plan) + CELL_BYTES * len(plan.cells)) / 1e9,
                    4 * STATES * max(forward(backbone, plan.volume)[1] for backbone in plan.backbones) / 1e9, hardware)


def operations(plan: Plan, cell: Cell) -> float:
    """Floating-point operations of a cell: three forward passes a training step, one a prediction."""
    task, once = plan.task(cell.task), forward(cell.backbone, plan.volume)[0]
    people = plan.most_training(task) if cell.train_size == "full" else int(cell.train_size)
    tested = task.people_inside - plan.most_training(task) + task.people_outside
    if cell.mode in ("probe", "knn"):  # everyone is encoded once for all sizes, and seeds where nothing is drawn
        sharing = len(plan.sizes(task)) * (1 if cell.upstream == SCRATCH else len(plan.seeds))
        return once * (task.people_inside + task.people_outside) / sharing
    epochs, rates = EPOCHS_SHARE * plan.training.epochs, len(plan.training.learning_rates)
    passes = 3 * 0.8 + 0.2 if cell.mode == "full" else 1 + 0.2
    return once * (people * passes * epochs * rates + tested)


@lru_cache(maxsize=64)
def forward(backbone: str, volume: str) -> tuple[float, int]:
    """Operations of one scan's forward pass and parameters, counted on tensors that hold no numbers."""
    spec = volume_spec(volume)
    with torch.device("meta"):
        network = build_backbone(backbone, spec).eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, 1, *spec.shape))
    return float(counter.get_total_flops()), sum(parameter.numel() for parameter in network.parameters())


def _stores(plan: Plan) -> list[PlannedTask]:
    """One task for each store that is to be made."""
    return list({(str(task.simulate), task.bids): task for task in plan.tasks if task.store is None}.values())


def _preparation(plan: Plan):
    def seconds(task: PlannedTask) -> float:
        each = PREPARE_SECONDS if task.simulate is None else SIMULATE_SECONDS[plan.volume]
        return each * (task.people_inside + task.people_outside)

    return seconds


def _store_bytes(plan: Plan) -> float:
    x, y, z = volume_spec(plan.volume).shape
    return sum((task.people_inside + task.people_outside) * 2 * KEPT * x * y * z for task in _stores(plan))


def describe(plan: Plan, expected: Estimate, workers: int, job_cpus: int | None = None) -> str:
    """The dry run's last lines; ``job_cpus``: of the one job that prepares the scans, where workers are jobs."""
    preparing = job_cpus or workers
    where = "" if job_cpus is None else f" by one job on {job_cpus} CPU{'s' if job_cpus > 1 else ''}"
    return (f"{expected.cells} cells: {len(plan.tasks)} tasks x {len(plan.rows)} rows x {len(plan.train_sizes)} sizes "
            f"x {len(plan.seeds)} seeds\n"
            f"about {_hours(expected.hours(workers, preparing))} on {workers} worker{'s' if workers > 1 else ''}: "
            f"training {_hours(expected.training_hours / workers)}, preparing scans "
            f"{_hours(expected.preparation_hours / preparing)}{where} "
            f"(assumed {expected.assumed.gigaflops:g} GFLOP/s a worker: {expected.assumed.note})\n"
            f"about {expected.disk_gb:.1f} GB of disk, and {expected.working_gb:.1f} GB a worker while it trains")


def _hours(hours: float) -> str:
    return f"{60 * hours:.0f} minutes" if hours < 2 else f"{hours:,.0f} hours"
