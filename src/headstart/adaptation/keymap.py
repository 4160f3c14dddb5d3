"""Literal key tables: what the source calls a tensor, and what it is called here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import ClassVar

from headstart.adaptation.steps import State, Step, Target
from headstart.errors import HeadstartError


@dataclass(frozen=True)
class Rename(Step):
    """Rename keys by a table, in one pass; a key that no row matches keeps its name.

    Args:
        table: (theirs, ours) rows. ``{i}`` stands for a number and ``{rest}`` for any ending; the first row that
            matches a whole key wins.
    """

    table: tuple[tuple[str, str], ...]
    exact: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "rename"

    def __call__(self, state: State, target: Target) -> State:
        renamed: State = {}
        for key, tensor in state.items():
            new = self.rename(key)
            if new in renamed:
                raise HeadstartError(f"two tensors would both be called '{new}' (one is '{key}')",
                                     fix="The file holds more than one network, or is not the one this recipe is for.")
            renamed[new] = tensor
        return renamed

    def rename(self, key: str) -> str:
        """The new name of one key."""
        for theirs, ours in self.table:
            if match := _pattern(theirs).fullmatch(key):
                return ours.format(**match.groupdict())
        return key


@lru_cache(maxsize=1024)
def _pattern(row: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", row)
    text = "".join(re.escape(part) if index % 2 == 0 else f"(?P<{part}>{'.*' if part == 'rest' else '[0-9]+'})"
                   for index, part in enumerate(parts))
    return re.compile(text)


@dataclass(frozen=True)
class Drop(Step):
    """Leave tensors behind on purpose: heads, decoders, mask tokens.

    Args:
        patterns: shell patterns of keys.
        why: what a receipt says about them.
    """

    patterns: tuple[str, ...]
    why: str = "not part of the encoder"
    exact: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return f"drop ({self.why})"

    def __call__(self, state: State, target: Target) -> State:
        return {key: tensor for key, tensor in state.items() if not self.drops(key)}

    def drops(self, key: str) -> bool:
        """Whether ``key`` is left behind."""
        return any(fnmatchcase(key, pattern) for pattern in self.patterns)
