"""Every key is accounted for, on both sides, or nothing moves."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from headstart.adaptation import Drop, FuseQkv, Rename, transfer_weights
from headstart.errors import HeadstartError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.fresh = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)


def source() -> dict[str, torch.Tensor]:
    state = {f"encoder.{key}": torch.randn_like(value) if value.is_floating_point() else value.clone()
             for key, value in Net().state_dict().items() if not key.startswith("fresh")}
    return state | {"head.weight": torch.randn(5, 4)}


STEPS = (Rename((("encoder.{rest}", "{rest}"),)), Drop(("head.*",), "head"))


def test_the_receipt_accounts_for_every_key() -> None:
    state, net = source(), Net()
    report = transfer_weights(net, state, STEPS, source="test", initialised=("fresh.*",))
    assert report.copied["stem.weight"] == "encoder.stem.weight"
    assert set(report.initialised) == {"fresh.weight", "fresh.bias"}
    assert report.dropped == {"head.weight": "head"}
    assert {*report.copied, *report.adapted, *report.initialised} == set(net.state_dict())
    assert {*report.copied.values(), *report.dropped, *report.merged} == set(state)
    assert torch.equal(net.stem.weight, state["encoder.stem.weight"])
    assert report.parameters == (12 + 4 + 4 * 4 + 1, 12 + 4 + 4 * 4 + 1 + 10)


def test_the_receipt_is_plain_json_and_prints() -> None:
    report = transfer_weights(Net(), source(), STEPS, source="test", initialised=("fresh.*",))
    assert json.loads(json.dumps(report.to_json())) == report.to_json()
    assert report.summary().startswith("test: 7 keys copied, 0 adapted, 2 initialised, 1 dropped")
    assert len(report.rows()) == 10


def test_merged_keys_are_accounted_for() -> None:
    class Fused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([nn.ModuleDict({"attn": nn.ModuleDict({"qkv": nn.Linear(2, 6)})})])

    state = {f"blocks.0.attn.{part}.{kind}": torch.randn(2, 2) if kind == "weight" else torch.randn(2)
             for part in "qkv" for kind in ("weight", "bias")}
    report = transfer_weights(Fused(), state, [FuseQkv()])
    assert set(report.merged) == set(state)
    assert report.adapted["blocks.0.attn.qkv.weight"] == ("fuse q, k, v",)


def unchanged(net: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def refused(state: dict[str, torch.Tensor], match: str, **declared: tuple[str, ...]) -> None:
    net = Net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(HeadstartError, match=match):
        transfer_weights(net, state, STEPS, source="test", **declared)
    assert unchanged(net, before)  # all or nothing


def test_a_key_without_weights_is_named_with_the_nearest_name() -> None:
    state = source()
    state["encoder.steam.weight"] = state.pop("encoder.stem.weight")
    refused(state, r"no weights: stem.weight \(near steam.weight\).*no place: steam.weight \(near stem.weight\)",
            initialised=("fresh.*",))


def test_nothing_is_initialised_silently() -> None:
    refused(source(), "2 keys of the network have no weights: fresh.weight, fresh.bias")


def test_nothing_is_dropped_silently() -> None:
    refused(source() | {"extra": torch.ones(1)}, "1 keys of the weights have no place: extra", initialised=("fresh.*",))


def test_a_shape_that_does_not_fit_is_named() -> None:
    state = source()
    state["encoder.stem.bias"] = torch.ones(9)
    refused(state, r"stem.bias \(9,\) for \(4,\)", initialised=("fresh.*",))


def test_values_that_are_not_finite_are_refused() -> None:
    state = source()
    state["encoder.stem.bias"] = torch.tensor([1.0, float("nan"), 1.0, 1.0])
    refused(state, "not finite: stem.bias", initialised=("fresh.*",))


def test_half_precision_is_widened() -> None:
    state = {key: value.half() if value.is_floating_point() else value for key, value in source().items()}
    net = Net()
    transfer_weights(net, state, STEPS, initialised=("fresh.*",))
    assert net.stem.weight.dtype == torch.float32
    assert torch.equal(net.stem.weight, state["encoder.stem.weight"].float())


def test_old_files_without_batchnorm_counters_load() -> None:
    state = {key: value for key, value in source().items() if "num_batches" not in key}
    report = transfer_weights(Net(), state, STEPS, initialised=("fresh.*",))
    assert "norm.num_batches_tracked" in report.initialised
