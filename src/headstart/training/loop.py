"""The training loop: short, resumable to the bit, the same on CPU and CUDA, in one process or several.

Everything random is a function of (seed, epoch, step), so a run that was killed continues from its last checkpoint to
the very weights it would have had. Processes share every batch and see the same loss: a mean over the whole batch.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from headstart.backbones.model import BrainModel
from headstart.brains.augment import Augmentation, augment
from headstart.errors import HeadstartError
from headstart.files import digest_json
from headstart.training.batches import Batch, Examples, epoch_batches, load_batch, prefetched, steps_per_epoch
from headstart.training.checkpoint import load_checkpoint, save_checkpoint
from headstart.training.devices import bfloat16_is_fast, explained_loss_of_peers, launch, reduce_sum
from headstart.training.freezing import learning_part, training_mode
from headstart.training.heads import fit_head
from headstart.training.objectives import Objective, Terms
from headstart.training.optimisation import build_optimizer, rate_factor, set_rate
from headstart.training.plan import Epoch, History, TrainingPlan
from headstart.training.signals import Preempted, StopRequest, stop_requests

# Scans asked at once: on a processor so few that their activations stay below the 32 MB from which the C library gives
# memory back and fetches it anew every time.
AT_ONCE = {"cpu": 8, "cuda": 64}
Watch = Callable[[int, float], None]  # how many steps are done, and the loss of the last


@dataclass
class Progress:
    """Where a run stands; ``step`` batches of ``epoch`` are done."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    weight_sum: float = 0.0
    seconds: float = 0.0  # of this epoch's steps
    waited: float = 0.0  # seconds of this epoch in which no batch was ready
    best_epoch: int = -1
    best_loss: float = math.inf
    epochs: list[dict[str, Any]] = field(default_factory=list)


class Run:
    """One training run; see ``fit`` for the arguments."""

    def __init__(self, model: nn.Module, objective: Objective, examples: Examples, train: np.ndarray,
                 validation: np.ndarray, plan: TrainingPlan, seed: int, folder: Path | None, flip: bool,
                 checkpoint_seconds: float, watch: Watch | None) -> None:
        self.model, self.objective, self.examples, self.plan = model, objective, examples, plan
        self.train, self.validation = np.asarray(train, np.int64), np.asarray(validation, np.int64)
        self.seed, self.folder, self.checkpoint_seconds, self.watch = seed, folder, checkpoint_seconds, watch
        self.limits = Augmentation(flip=flip).scaled(plan.augmentation) if plan.augmentation else None
        self.fabric = launch()
        self.in_bfloat16 = plan.precision == "bfloat16" and bfloat16_is_fast()
        self.progress, self.saved_at = Progress(), time.monotonic()
        self.best: dict[str, Tensor] = {}
        self._check()
        self.fingerprint = self._fingerprint(flip)
        targets = np.asarray(examples.targets, np.float64)[self.train].reshape(len(self.train), -1)
        objective.prepare(model, targets)
        self.network, self.optimizer = self.fabric.setup(model, build_optimizer(model, plan))

    def _check(self) -> None:
        if len(self.train) < self.fabric.world_size or self.plan.batch_size < self.fabric.world_size:
            raise HeadstartError(
                f"{len(self.train)} training scans in batches of {self.plan.batch_size} are too few for "
                f"{self.fabric.world_size} process(es)", fix="Use fewer processes, or more scans.")

    def _fingerprint(self, flip: bool) -> str:
        """A digest of all that decides the result, except the volumes themselves."""
        digest = hashlib.sha256()
        targets = np.asarray(self.examples.targets, np.float32)
        for array in (self.train, self.validation, targets[self.train], targets[self.validation]):
            digest.update(np.ascontiguousarray(array).tobytes() + b"|")
        for name, value in self.model.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().contiguous().view(-1).numpy().tobytes())
        settings = [self.plan.model_dump(), self.seed, flip, type(self.objective).__name__, digest.hexdigest()]
        return digest_json(settings, length=32)

    def __call__(self) -> History:
        with stop_requests() as stop, torch.random.fork_rng():
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)  # from here on a stop is answered with a saved state
            if not self._resume():
                while not self._done():
                    self._epoch(stop)
                self._finish()
        self.model.load_state_dict(self.best)
        return self._history()

    def _epoch(self, stop: StopRequest) -> None:
        training_mode(self.model)
        batches = epoch_batches(self.train, self.plan.batch_size, self.seed, self.progress.epoch)
        load = partial(self._load, epoch=self.progress.epoch, limits=self.limits)
        free = time.monotonic()
        for batch in prefetched(load, batches[self.progress.step:]):
            began = time.monotonic()
            self.progress.waited += began - free
            stopping, loss = self._step(batch, stop)
            self.progress.seconds += time.monotonic() - began
            if self.watch is not None and self.fabric.is_global_zero:
                self.watch(self._steps_done(), loss)
            if stopping:
                self._preempt(stop)
            if self.fabric.is_global_zero and time.monotonic() - self.saved_at > self.checkpoint_seconds:
                self._save()
            free = time.monotonic()
        self._close_epoch(self._validate())

    def _load(self, indices: np.ndarray, epoch: int, limits: Augmentation | None) -> Batch:
        """This process's share of a batch; where there is no other device it is augmented here, in the background."""
        share = np.array_split(indices, self.fabric.world_size)[self.fabric.global_rank]
        batch = load_batch(self.examples, share, self.seed, epoch)
        return _augmented(batch, limits) if self.fabric.device.type == "cpu" else batch

    def _on_device(self, batch: Batch, limits: Augmentation | None) -> Batch:
        if self.fabric.device.type == "cpu":
            return batch
        volumes = batch.volumes.to(self.fabric.device, non_blocking=True)
        return _augmented(Batch(volumes, batch.targets.to(self.fabric.device), batch.seeds), limits)

    def _step(self, batch: Batch, stop: StopRequest) -> tuple[bool, float]:
        """One step of the optimiser: whether any process was asked to stop, and the loss before it."""
        progress = self.progress
        set_rate(self.optimizer, self._rate())
        torch.manual_seed(_step_seed(self.seed, progress.epoch, progress.step))
        batch = self._on_device(batch, self.limits)
        with torch.autocast(self.fabric.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            terms = self.objective(self.network, batch)
        loss = (terms.loss * terms.weight).sum()
        loss_sum, weight_sum, stops = reduce_sum(
            self.fabric, float(loss.detach()), float(terms.weight.sum()), float(bool(stop.name)))
        self._guard(loss_sum)
        self.optimizer.zero_grad()
        # Processes average their gradients, hence the factor: together they follow the batch's global mean.
        self.fabric.backward(loss * (self.fabric.world_size / max(weight_sum, 1e-12)))
        self.fabric.clip_gradients(self.network, self.optimizer, max_norm=self.plan.clip_norm, error_if_nonfinite=False)
        self.optimizer.step()
        progress.step += 1
        progress.loss_sum += loss_sum
        progress.weight_sum += weight_sum
        return stops > 0, loss_sum / max(weight_sum, 1e-12)

    def _steps_done(self) -> int:
        return self.progress.epoch * steps_per_epoch(len(self.train), self.plan.batch_size) + self.progress.step

    def _rate(self) -> float:
        total = self.plan.max_epochs * steps_per_epoch(len(self.train), self.plan.batch_size)
        factor = rate_factor(self._steps_done(), total, self.plan.warmup_fraction)
        return self.plan.learning_rate * factor

    def _guard(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise HeadstartError(
                f"training diverged: the loss is {loss} in epoch {self.progress.epoch + 1}", path=self.folder,
                fix=f"Lower the learning rate (now {self.plan.learning_rate:g}), and look for scans with extreme "
                    "intensities on the QC page.")

    def _validate(self) -> float | None:
        """Mean loss over the validation scans, unaugmented; None without any."""
        if not len(self.validation):
            return None
        self.network.eval()
        loss_sum = weight_sum = 0.0
        batches = np.array_split(self.validation, steps_per_epoch(len(self.validation), self.plan.batch_size))
        with torch.no_grad():
            for batch in prefetched(partial(self._load, epoch=0, limits=None), batches):
                torch.manual_seed(_step_seed(self.seed, 0, 0))
                terms = self.objective(self.network, self._on_device(batch, None)) if len(batch) else _nothing()
                loss_sum += float((terms.loss * terms.weight).sum())
                weight_sum += float(terms.weight.sum())
        loss_sum, weight_sum = reduce_sum(self.fabric, loss_sum, weight_sum)
        self._guard(loss_sum)
        return loss_sum / weight_sum if weight_sum else None

    def _close_epoch(self, validation_loss: float | None) -> None:
        progress = self.progress
        if validation_loss is None or validation_loss < progress.best_loss:
            progress.best_epoch = progress.epoch
            progress.best_loss = math.inf if validation_loss is None else validation_loss
            self.best = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}
        progress.epochs.append(asdict(Epoch(
            progress.loss_sum / max(progress.weight_sum, 1e-12), validation_loss, self._rate(), progress.seconds,
            progress.waited)))
        progress.epoch += 1
        progress.step, progress.loss_sum, progress.weight_sum, progress.seconds, progress.waited = 0, 0.0, 0.0, 0.0, 0.0

    def _done(self) -> bool:
        waited = self.progress.epoch - 1 - self.progress.best_epoch
        return self.progress.epoch >= (self.plan.stop_after or self.plan.max_epochs) or waited >= self.plan.patience

    def _preempt(self, stop: StopRequest) -> None:
        if self.fabric.is_global_zero:
            self._save()
        self.fabric.barrier()  # no process leaves, and ends the job, before the state is on disk
        raise Preempted(stop.name or "a signal to another process", self.folder)

    def _save(self) -> None:
        self._write({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "finished": False})
        self.saved_at = time.monotonic()

    def _finish(self) -> None:
        if self.fabric.is_global_zero:
            self._write({"finished": True})

    def _write(self, state: dict[str, Any]) -> None:
        if self.folder is not None:
            state = {**state, "progress": asdict(self.progress), "best": self.best}
            save_checkpoint(self.folder, self.fingerprint, state)

    def _resume(self) -> bool:
        """Take up the last checkpoint, if there is one; True if the run was finished already."""
        state = load_checkpoint(self.folder, self.fingerprint) if self.folder is not None else None
        if state is None:
            return False
        self.progress, self.best = Progress(**state["progress"]), state["best"]
        if not state["finished"]:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        return state["finished"]

    def _history(self) -> History:
        epochs = tuple(Epoch(**epoch) for epoch in self.progress.epochs)
        seconds = sum(epoch.seconds for epoch in epochs)
        return History(epochs, self.progress.best_epoch, len(epochs) * len(self.train) / max(seconds, 1e-9))


def fit(model: nn.Module, objective: Objective, examples: Examples, train: np.ndarray, validation: np.ndarray,
        plan: TrainingPlan, *, seed: int, folder: Path | None = None, flip: bool = False,
        checkpoint_seconds: float = 60.0, watch: Watch | None = None) -> History:
    """Train ``model`` in place; it ends with the weights of the best validation loss.

    Without validation scans it runs all epochs and keeps the last weights. With a ``folder`` the state is saved every
    ``checkpoint_seconds`` and on SIGUSR1, SIGUSR2 and SIGTERM; called again with the same arguments, it continues.

    Args:
        model: a module with ``layer_groups()``; a ``BrainModel`` for every ``plan.mode`` but "full".
        objective: what to minimise.
        examples: scans and targets.
        train: indices of scans to learn from, (n,).
        validation: indices of scans that choose when to stop, (m,), or none.
        plan: rates, epochs, batch size, what learns.
        seed: of order, augmentation and, with LoRA, the first change.
        folder: where the state is kept; nothing is kept without one.
        flip: whether left and right may be swapped.
        checkpoint_seconds: between two savings of the state.
        watch: told of every step; it may look at the model but not change it. A run that was killed tells again of
            the steps since its last checkpoint, and they are the same.

    Raises:
        Preempted: a stop signal arrived; the state is saved.
        HeadstartError: the loss is not finite; the folder belongs to another run; another process of the run died.
    """
    if not plan.descends:
        return _fit_head(cast(BrainModel, model), objective, examples, train, validation, plan)
    several = launch().world_size > 1
    with explained_loss_of_peers() if several else nullcontext(), learning_part(model, plan.mode, seed):
        return Run(model, objective, examples, train, validation, plan, seed, folder, flip, checkpoint_seconds,
                   watch)()


def _fit_head(model: BrainModel, objective: Objective, examples: Examples, train: np.ndarray, validation: np.ndarray,
              plan: TrainingPlan) -> History:
    """A head on the features of a backbone that stays as it is, each scan encoded once."""
    model.to(launch().device)
    used = [np.asarray(indices, np.int64) for indices in (train, validation)]
    features = [torch.from_numpy(encode(model, examples, indices)) if len(indices) else torch.zeros(0, 0)
                for indices in used]
    targets = np.asarray(examples.targets, np.float32).reshape(len(examples.targets), -1)
    return fit_head(model, objective, [(part, targets[indices]) for part, indices in zip(features, used)], plan)


def predict(model: nn.Module, examples: Examples, indices: np.ndarray) -> np.ndarray:
    """What ``model`` says of the scans ``indices`` (n,): float32 (n, outputs), in the target's units or as logits."""
    return _apply(model, model, examples, indices)


def _apply(module: nn.Module, function: Callable[[Tensor], Tensor], examples: Examples,
           indices: np.ndarray) -> np.ndarray:
    device = next(module.parameters()).device
    indices, at_once = np.asarray(indices, np.int64), AT_ONCE.get(device.type, 64)
    batches = [indices[start : start + at_once] for start in range(0, len(indices), at_once)]
    was_training = module.training
    module.eval()
    with torch.no_grad():
        loaded = prefetched(examples.volumes, batches)
        outputs = [function(volumes.to(device)).float().cpu().numpy() for volumes in loaded]
    module.train(was_training)
    return np.concatenate(outputs)


def encode(model: BrainModel, examples: Examples, indices: np.ndarray) -> np.ndarray:
    """The features that the head of a ``BrainModel`` reads: float32 (n, num_features)."""
    return _apply(model, model.normed_features, examples, indices)


def _augmented(batch: Batch, limits: Augmentation | None) -> Batch:
    return replace(batch, volumes=augment(batch.volumes, batch.seeds, limits)) if limits else batch


def _step_seed(seed: int, epoch: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _nothing() -> Terms:
    return Terms(torch.zeros(0), torch.zeros(0))
