"""Weights move into a network, and every key on both sides is accounted for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from headstart.adaptation.keymap import Drop
from headstart.adaptation.steps import State, Step, Target
from headstart.errors import HeadstartError

COUNTERS = "*num_batches_tracked"  # BatchNorm's counter; older files do not have it and nothing here reads it


@dataclass(frozen=True)
class TransferReport:
    """The receipt of one transfer; JSON-able through ``to_json``.

    Attributes:
        source: where the weights come from.
        copied: the network's keys whose values are the source's own, each with its name in the source.
        adapted: the network's keys whose values were computed, each with the steps that did it.
        merged: keys of the source that went into adapted ones, each with the step that took them.
        initialised: the network's keys that keep their fresh values, as declared.
        dropped: keys of the source that were left behind, each with the reason.
        parameters: numbers copied or adapted, and numbers in the network.
    """

    source: str
    copied: dict[str, str] = field(default_factory=dict)
    adapted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    merged: dict[str, str] = field(default_factory=dict)
    initialised: tuple[str, ...] = ()
    dropped: dict[str, str] = field(default_factory=dict)
    parameters: tuple[int, int] = (0, 0)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers."""
        report = asdict(self)
        return report | {"adapted": {key: list(steps) for key, steps in self.adapted.items()},
                         "initialised": list(self.initialised), "parameters": list(self.parameters)}

    def summary(self) -> str:
        """One line: how many keys went which way."""
        moved, total = self.parameters
        return (f"{self.source}: {len(self.copied)} keys copied, {len(self.adapted)} adapted, "
                f"{len(self.initialised)} initialised, {len(self.dropped)} dropped; {moved:,} of {total:,} numbers")

    def rows(self) -> list[tuple[str, str, str]]:
        """(key, what happened, how) for every key of either side."""
        return [*((key, "copied", "" if theirs == key else f"from {theirs}") for key, theirs in self.copied.items()),
                *((key, "adapted", ", ".join(steps)) for key, steps in self.adapted.items()),
                *((key, "merged", step) for key, step in self.merged.items()),
                *((key, "initialised", "declared") for key in self.initialised),
                *((key, "dropped", why) for key, why in self.dropped.items())]


@dataclass
class _Trace:
    """A state dict on its way, with the origin and the steps of every tensor; identity tells what a step touched."""

    state: State
    origin: dict[str, str]
    steps: dict[str, tuple[str, ...]]
    merged: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)

    @classmethod
    def start(cls, state: State) -> _Trace:
        return cls(dict(state), {key: key for key in state}, dict.fromkeys(state, ()))

    def take(self, step: Step, target: Target) -> _Trace:
        before = {id(tensor): key for key, tensor in self.state.items()}
        after = step(self.state, target)
        origin, steps = {}, {}
        for key, tensor in after.items():
            old = before.pop(id(tensor), None)
            origin[key] = self.origin[old] if old else self.origin.get(key, "")
            steps[key] = self.steps[old] if old else (*self.steps.get(key, ()), step.name)
        gone = {self.origin[key] or key for key in before.values() if key not in after}
        ledger = "dropped" if isinstance(step, Drop) else "merged"
        why = step.why if isinstance(step, Drop) else step.name
        return replace(self, state=after, origin=origin, steps=steps,
                       **{ledger: getattr(self, ledger) | dict.fromkeys(sorted(gone), why)})


def transfer_weights(model: nn.Module, state: State, steps: Sequence[Step] = (), *, source: str = "weights",
                     initialised: Sequence[str] = (), dropped: Sequence[str] = ()) -> TransferReport:
    """Adapt ``state`` by ``steps`` and load it into ``model`` in place; nothing is loaded unless all of it fits.

    Args:
        model: the network; ``model.grid`` gives its patches along (X, Y, Z), if it has any.
        state: the source's tensors by its own key names.
        steps: the chain of adaptation, in order.
        source: what the receipt calls the source.
        initialised: patterns of the network's keys that may keep their fresh values.
        dropped: patterns of keys, named as after ``steps``, that may be left behind.

    Raises:
        HeadstartError: a key on either side is unaccounted for, a shape does not fit, or a value is not finite.
    """
    target = Target.of(model)
    trace = _Trace.start(state)
    for step in steps:
        trace = trace.take(step, target)
    trace = trace.take(Drop(tuple(dropped), "declared"), target)
    fresh = _account(trace.state, target, (*initialised, COUNTERS), source)
    _load(model, trace.state)
    return _report(source, trace, fresh, target)


def _account(state: State, target: Target, initialised: Sequence[str], source: str) -> tuple[str, ...]:
    """The network's keys that stay fresh; raises unless everything else fits."""
    fresh = [key for key in target.shapes if key not in state]
    missing = [key for key in fresh if not _declared(key, initialised) and 0 not in target.shapes[key]]
    unknown = [key for key in state if key not in target.shapes]
    if missing or unknown:
        raise HeadstartError(_mismatch(missing, unknown, source), fix="Choose the backbone that these weights are for, "
                             "or declare the keys as dropped or initialised in the recipe.")
    wrong = [f"{key} {tuple(tensor.shape)} for {target.shapes[key]}" for key, tensor in state.items()
             if tuple(tensor.shape) != target.shapes[key]]
    if wrong:
        raise HeadstartError(f"{source}: {len(wrong)} shapes do not fit: {_listed(wrong)}",
                             fix="Choose the backbone that these weights are for.")
    broken = [key for key, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise HeadstartError(f"{source}: {len(broken)} tensors hold values that are not finite: {_listed(broken)}",
                             fix="The file is damaged; fetch it again.")
    return tuple(key for key in fresh if 0 not in target.shapes[key])


def _declared(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _mismatch(missing: list[str], unknown: list[str], source: str) -> str:
    lines = [f"{source}: the weights do not explain the network"]
    if missing:
        lines.append(f"{len(missing)} keys of the network have no weights: {_listed(missing, unknown)}")
    if unknown:
        lines.append(f"{len(unknown)} keys of the weights have no place: {_listed(unknown, missing)}")
    return "; ".join(lines)


def _listed(keys: Sequence[str], others: Sequence[str] = (), limit: int = 6) -> str:
    """The first few keys, each with the nearest name on the other side."""
    def near(key: str) -> str:
        found = difflib.get_close_matches(key, others, n=1, cutoff=0.6)
        return f"{key} (near {found[0]})" if found else key

    more = f", and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(near(key) for key in keys[:limit]) + more


@torch.no_grad()
def _load(model: nn.Module, state: State) -> None:
    own: dict[str, Tensor] = model.state_dict(keep_vars=True)
    for key, tensor in state.items():
        own[key].copy_(tensor)


def _report(source: str, trace: _Trace, fresh: tuple[str, ...], target: Target) -> TransferReport:
    numbers = {key: torch.Size(shape).numel() for key, shape in target.shapes.items()}
    return TransferReport(
        source=source,
        copied={key: trace.origin[key] for key in trace.state if not trace.steps[key]},
        adapted={key: trace.steps[key] for key in trace.state if trace.steps[key]},
        merged=trace.merged, initialised=fresh, dropped=trace.dropped,
        parameters=(sum(numbers[key] for key in trace.state), sum(numbers.values())),
    )
