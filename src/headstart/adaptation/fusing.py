"""Exact algebra: several tensors of the source are one tensor here, and the function is the same."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

import torch
from torch import Tensor

from headstart.adaptation.steps import State, Step, Target, fetch


@dataclass(frozen=True)
class FuseQkv(Step):
    """Stack separate query, key and value layers into one; a bias that the source does not have is zero there.

    Args:
        query: name below a block, e.g. ``attn.q``.
        key: likewise.
        value: likewise.
        fused: the name of the stack.
    """

    query: str = "attn.q"
    key: str = "attn.k"
    value: str = "attn.v"
    fused: str = "attn.qkv"
    exact: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "fuse q, k, v"

    def __call__(self, state: State, target: Target) -> State:
        parts = (self.query, self.key, self.value)
        rest = {key: tensor for key, tensor in state.items() if not any(f".{part}." in key for part in parts)}
        marker = f".{self.query}.weight"
        for block in (key.removesuffix(marker) for key in state if key.endswith(marker)):
            rest |= self._fuse(state, block, parts)
        return rest

    def _fuse(self, state: State, block: str, parts: tuple[str, ...]) -> State:
        weights = [fetch(state, f"{block}.{part}.weight", self) for part in parts]
        biases = [state.get(f"{block}.{part}.bias", torch.zeros(len(weight), dtype=weight.dtype))
                  for part, weight in zip(parts, weights, strict=True)]
        return {f"{block}.{self.fused}.weight": torch.cat(weights), f"{block}.{self.fused}.bias": torch.cat(biases)}


@dataclass(frozen=True)
class JoinQvBias(Step):
    """Query and value biases beside a fused weight become its bias; the key's is zero (BEiT, VideoMAE).

    Args:
        query: name of the bias below a block.
        value: likewise.
        fused: the layer they belong to.
    """

    query: str = "attn.q_bias"
    value: str = "attn.v_bias"
    fused: str = "attn.qkv"
    exact: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "join q and v biases"

    def __call__(self, state: State, target: Target) -> State:
        joined = dict(state)
        for key in [key for key in state if key.endswith(f".{self.query}")]:
            block = key.removesuffix(self.query)
            query, value = joined.pop(key), fetch(joined, block + self.value, self)
            del joined[block + self.value]
            joined[f"{block}{self.fused}.bias"] = torch.cat([query, torch.zeros_like(query), value])
        return joined


@dataclass(frozen=True)
class ZeroBias(Step):
    """Write out biases that the network has and the source leaves away: zeros compute the same.

    Args:
        layers: pattern of the layers meant, e.g. ``*.attn.qkv``.
    """

    layers: str
    exact: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "zero bias"

    def __call__(self, state: State, target: Target) -> State:
        layers = [key.removesuffix(".weight") for key in state if key.endswith(".weight")]
        return state | {f"{layer}.bias": torch.zeros(target.shapes[f"{layer}.bias"]) for layer in layers
                        if fnmatchcase(layer, self.layers) and f"{layer}.bias" in target.shapes.keys() - state.keys()}


@dataclass(frozen=True)
class FoldLayerScale(Step):
    """Multiply LayerScale (arXiv 2103.17239) into the layer before it.

    Args:
        pairs: (name of the scale, layer it follows), both below a block.
    """

    pairs: tuple[tuple[str, str], ...] = (("ls1.gamma", "attn.proj"), ("ls2.gamma", "mlp.fc2"))
    exact: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "fold LayerScale"

    def __call__(self, state: State, target: Target) -> State:
        folded = dict(state)
        for scale, layer in self.pairs:
            for key in [key for key in state if re.search(rf"\.{re.escape(scale)}$", key)]:
                self._fold(folded, folded.pop(key), key.removesuffix(scale) + layer)
        return folded

    def _fold(self, state: State, gamma: Tensor, layer: str) -> None:
        weight, bias = (fetch(state, f"{layer}.{part}", self) for part in ("weight", "bias"))
        state[f"{layer}.weight"], state[f"{layer}.bias"] = gamma[:, None] * weight, gamma * bias


@dataclass(frozen=True)
class JoinPrefixTokens(Step):
    """Class and register tokens (arXiv 2309.16588) become one stack of tokens before the patches, without positions.

    Args:
        tokens: their keys in order; the first names the stack.
        positions: (1, patches, width) positions of the patches alone; zeros are put before them. None: there are none.
    """

    tokens: tuple[str, ...] = ("cls_token", "reg_token")
    positions: str | None = "pos_embed"
    exact: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "join class and register tokens"

    def __call__(self, state: State, target: Target) -> State:
        stack = torch.cat([fetch(state, key, self) for key in self.tokens], dim=1)  # (1, P, width)
        rest = {key: tensor for key, tensor in state.items() if key not in self.tokens}
        if self.positions is None:
            return {**rest, self.tokens[0]: stack}
        positions = fetch(state, self.positions, self)
        return {**rest, self.tokens[0]: stack, self.positions: torch.cat([torch.zeros_like(stack), positions], dim=1)}
