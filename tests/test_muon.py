"""Muon: the same steps as torch's own, all matrices of a shape at once, and a run that can be taken up again."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from headstart.backbones import build_model
from headstart.brains.volumes import VOLUMES
from headstart.training import TrainingPlan
from headstart.training.muon import Muon, orthogonalised
from headstart.training.optimisation import build_optimizer

RATE, DECAY = 0.01, 0.1


def gradients(parameters: list[nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def stepped(optimizers: list[torch.optim.Optimizer], parameters: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        gradients(parameters, step)
        for optimizer in optimizers:
            optimizer.step()


def weights() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(9)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((6, 10), (10, 6), (6, 10), (5,))]


def groups(parameters: list[nn.Parameter]) -> list[dict]:
    return [{"params": parameters[:3], "weight_decay": DECAY, "matrices": True}, {"params": parameters[3:]}]


def test_steps_are_those_of_torch() -> None:
    ours, theirs = weights(), weights()
    reference = [torch.optim.Muon(theirs[:3], lr=RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
                 torch.optim.AdamW(theirs[3:], lr=RATE, weight_decay=0.0)]
    stepped([Muon(groups(ours), RATE)], ours, range(5))
    stepped(reference, theirs, range(5))
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(mine, other, atol=2e-3, rtol=0)  # the iteration is in bfloat16
    assert (ours[0] - weights()[0]).abs().max() > 0.02


def test_singular_values_become_one_and_vectors_stay() -> None:
    matrix = torch.randn(1, 8, 20, generator=torch.Generator().manual_seed(0))
    turned = orthogonalised(matrix)[0]
    assert ((torch.linalg.svdvals(turned) > 0.6) & (torch.linalg.svdvals(turned) < 1.3)).all()
    u, _, v = torch.linalg.svd(matrix[0], full_matrices=False)
    assert torch.diagonal(u.T @ turned @ v.T).min() > 0.6


def test_a_saved_state_goes_on_to_the_same_weights() -> None:
    whole, halves = weights(), weights()
    stepped([Muon(groups(whole), RATE)], whole, range(6))
    first = Muon(groups(halves), RATE)
    stepped([first], halves, range(3))
    second = Muon(groups(halves), RATE)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    stepped([second], halves, range(3, 6))
    for one, other in zip(whole, halves):
        assert torch.equal(one, other)


@pytest.mark.parametrize("backbone", ["vit-mini", "cnn-small"])
def test_matrices_are_muons_and_the_rest_is_adams(backbone: str) -> None:
    model = build_model(backbone, VOLUMES["4mm"], 2)
    optimizer = build_optimizer(model, TrainingPlan(optimizer="muon"))
    of = {id(p): group["matrices"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        whole = parameter.ndim < 2 or "head" in name or "embed" in name.split(".")[-1] or "token" in name
        assert of[id(parameter)] != whole, name
