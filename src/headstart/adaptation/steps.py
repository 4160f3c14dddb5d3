"""A step of adaptation: a pure function from state dict to state dict that knows its name."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from headstart.errors import HeadstartError

State = dict[str, Tensor]
"""A state dict: tensors by name."""


@dataclass(frozen=True)
class Target:
    """What the weights must fit.

    Attributes:
        shapes: shape of every parameter and persistent buffer, by key.
        grid: patches along (X, Y, Z), for networks that cut volumes into patches.
    """

    shapes: Mapping[str, tuple[int, ...]]
    grid: tuple[int, ...] | None = None

    @classmethod
    def of(cls, model: nn.Module) -> Target:
        """Keys and shapes of ``model``, and its grid of patches where it has one."""
        grid = getattr(model, "grid", None)
        return cls({key: tuple(tensor.shape) for key, tensor in model.state_dict().items()},
                   None if grid is None else tuple(grid))

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of ``key``.

        Raises:
            HeadstartError: the network has no such key.
        """
        if key not in self.shapes:
            raise HeadstartError(f"the network has no '{key}'", fix="These weights belong to another architecture.")
        return self.shapes[key]


class Step(ABC):
    """One named, pure transformation; subclasses are frozen dataclasses, so a chain is a value.

    Attributes:
        exact: the network computes the same function after the step as before it.
    """

    exact: ClassVar[bool]

    @property
    @abstractmethod
    def name(self) -> str:
        """What a receipt calls this step."""

    @abstractmethod
    def __call__(self, state: State, target: Target) -> State:
        """A new state dict; the input is left alone. A tensor that is not changed is passed on as the same object."""


def fetch(state: State, key: str, step: Step) -> Tensor:
    """``state[key]``, or an error that says which step wanted it."""
    if key not in state:
        near = difflib.get_close_matches(key, state, n=3, cutoff=0.3) or sorted(state)[:3]
        raise HeadstartError(f"the weights have no '{key}', which the step '{step.name}' needs; nearest: "
                             f"{', '.join(near) or 'none'}", fix="Check that the file is the one this recipe is for.")
    return state[key]
