"""BatchNorm is re-estimated on brains, and nothing else changes."""

from __future__ import annotations

import torch
from torch import nn

from headstart.adaptation import reestimate_batchnorm


def test_statistics_become_those_of_the_batches() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Identity(), nn.BatchNorm3d(1), nn.Dropout(0.5)).eval()
    batches = [torch.randn(8, 1, 4, 4, 4) * 3 + 7 for _ in range(3)]
    before = {key: value.clone() for key, value in model.named_parameters()}
    assert reestimate_batchnorm(model, batches) == 1
    torch.testing.assert_close(model[1].running_mean, torch.stack([b.mean() for b in batches]).mean()[None])
    torch.testing.assert_close(model[1].running_var, torch.stack([b.var() for b in batches]).mean()[None])
    assert not model.training
    assert not model[1].training
    assert model[1].momentum == 0.1
    assert all(torch.equal(value, before[key]) for key, value in model.named_parameters())


def test_no_batches_leave_the_statistics_alone() -> None:
    model = nn.BatchNorm3d(2)
    model.running_mean.fill_(5)
    reestimate_batchnorm(model, [])
    assert model.running_mean.tolist() == [5, 5]
