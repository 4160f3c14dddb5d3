"""Muon: momentum whose directions are all made equally long, for matrices; AdamW for everything else.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024, kellerjordan.github.io/posts/muon); the
length of an update is AdamW's, after Liu et al., "Muon is Scalable for LLM Training" (arXiv 2502.16982), so that rates
carry over from AdamW. Weights of one shape are updated together, which torch's own Muon does not do, and which counts
where a network is as small as ours. Kernels are matrices of output channels by all the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor

from headstart.training.devices import bfloat16_is_fast

MOMENTUM, ADAM_BETAS, ADAM_EPSILON = 0.95, (0.9, 0.999), 1e-8
ITERATION, STEPS = (3.4445, -4.775, 2.0315), 5  # Jordan's quintic: singular values end between 0.7 and 1.2
LENGTH = 0.2  # root mean square of AdamW's updates


class Muon(torch.optim.Optimizer):
    """Groups with ``matrices`` true hold weights for Muon, the others are AdamW's.

    Args:
        groups: each with ``params``, ``weight_decay`` and ``matrices``.
        rate: of both.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], rate: float) -> None:
        super().__init__(groups, {"lr": rate, "weight_decay": 0.0, "matrices": False})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # nothing here asks for the loss again
        for group in self.param_groups:
            learning = [p for p in group["params"] if p.grad is not None]
            for parameter in learning:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            update = self._turn if group["matrices"] else self._adam
            update(learning, group["lr"])

    def _turn(self, parameters: list[Tensor], rate: float) -> None:
        alike: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for parameter in parameters:
            alike[(len(parameter), parameter[0].numel())].append(parameter)
        for shape, same in alike.items():
            ahead = torch.stack([self._ahead(p).reshape(shape) for p in same])
            for parameter, turned in zip(same, orthogonalised(ahead)):
                parameter.add_(turned.reshape(parameter.shape), alpha=-rate * LENGTH * max(shape) ** 0.5)

    def _ahead(self, parameter: Tensor) -> Tensor:
        """Nesterov's momentum."""
        gradient = cast(Tensor, parameter.grad)  # `step` leaves out those without
        momentum: Tensor = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        momentum.lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(momentum, MOMENTUM)

    def _adam(self, parameters: list[Tensor], rate: float) -> None:
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state.update(steps=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
            state["steps"] += 1
            first, second = ADAM_BETAS
            state["mean"].lerp_(parameter.grad, 1 - first)
            state["square"].mul_(second).addcmul_(parameter.grad, parameter.grad, value=1 - second)
            spread = (state["square"] / (1 - second ** state["steps"])).sqrt_().add_(ADAM_EPSILON)
            parameter.addcdiv_(state["mean"], spread, value=-rate / (1 - first ** state["steps"]))


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices (n, a, b) with the same singular vectors and singular values near 1, by a Newton-Schulz iteration."""
    x = matrices.bfloat16() if matrices.is_cuda or bfloat16_is_fast() else matrices.float()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = ITERATION
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
