"""Exact algebra stays exact."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from headstart.adaptation import Drop, FoldLayerScale, FuseQkv, JoinPrefixTokens, Rename, Target, ZeroBias
from headstart.errors import HeadstartError

NOTHING = Target({})


def test_fused_attention_input_equals_the_separate_ones() -> None:
    torch.manual_seed(0)
    state = {f"blocks.0.attn.{part}.weight": torch.randn(6, 6) for part in "qkv"}
    state |= {"blocks.0.attn.q.bias": torch.randn(6), "blocks.0.attn.v.bias": torch.randn(6), "other": torch.ones(1)}
    fused, x = FuseQkv()(state, NOTHING), torch.randn(3, 6)
    assert set(fused) == {"blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias", "other"}
    out = F.linear(x, fused["blocks.0.attn.qkv.weight"], fused["blocks.0.attn.qkv.bias"]).chunk(3, dim=1)
    for part, got in zip("qkv", out, strict=True):
        expected = F.linear(x, state[f"blocks.0.attn.{part}.weight"], state.get(f"blocks.0.attn.{part}.bias"))
        torch.testing.assert_close(got, expected)


def test_layer_scale_folds_into_the_layer_before_it() -> None:
    torch.manual_seed(0)
    gamma, weight, bias, x = torch.randn(4), torch.randn(4, 5), torch.randn(4), torch.randn(3, 5)
    step = FoldLayerScale((("ls1.gamma", "attn.proj"),))
    folded = step({"blocks.0.ls1.gamma": gamma, "blocks.0.attn.proj.weight": weight, "blocks.0.attn.proj.bias": bias},
                  NOTHING)
    assert set(folded) == {"blocks.0.attn.proj.weight", "blocks.0.attn.proj.bias"}
    got = F.linear(x, folded["blocks.0.attn.proj.weight"], folded["blocks.0.attn.proj.bias"])
    torch.testing.assert_close(got, gamma * F.linear(x, weight, bias))


def test_registers_stand_behind_the_class_token_without_positions() -> None:
    state = {"cls_token": torch.ones(1, 1, 3), "reg_token": 2 * torch.ones(1, 4, 3), "pos_embed": torch.randn(1, 9, 3)}
    joint = JoinPrefixTokens()(state, NOTHING)
    assert joint["cls_token"][0, :, 0].tolist() == [1, 2, 2, 2, 2]
    assert not joint["pos_embed"][:, :5].any()
    assert torch.equal(joint["pos_embed"][:, 5:], state["pos_embed"])


def test_a_missing_bias_is_written_out_as_zeros_and_an_existing_one_is_kept() -> None:
    state = {"0.qkv.weight": torch.ones(6, 2), "1.qkv.weight": torch.ones(6, 2), "1.qkv.bias": torch.ones(6),
             "0.fc.weight": torch.ones(3, 2)}
    out = ZeroBias("*.qkv")(state, Target({"0.qkv.bias": (6,), "1.qkv.bias": (6,), "0.fc.bias": (3,)}))
    assert not out["0.qkv.bias"].any()
    assert out["1.qkv.bias"] is state["1.qkv.bias"]
    assert "0.fc.bias" not in out  # nothing but what is declared


def test_renaming_reads_literal_tables() -> None:
    rename = Rename((("a.{i}.b.{rest}", "x.{i}.{rest}"), ("c.d", "e")))
    renamed = [rename.rename(key) for key in ("a.12.b.w.v", "a.n.b.w", "c.d", "cxd")]
    assert renamed == ["x.12.w.v", "a.n.b.w", "e", "cxd"]


def test_two_tensors_of_one_name_are_refused() -> None:
    with pytest.raises(HeadstartError, match="both be called 'w'"):
        Rename((("module.{rest}", "{rest}"),))({"module.w": torch.ones(1), "w": torch.ones(1)}, NOTHING)


def test_a_step_that_misses_its_key_gives_the_nearest_names() -> None:
    with pytest.raises(HeadstartError, match=r"no 'reg_token'.*register_tokens"):
        JoinPrefixTokens()({"cls_token": torch.ones(1, 1, 2), "register_tokens": torch.ones(1, 4, 2)}, NOTHING)


def test_dropping_takes_only_what_is_named() -> None:
    assert set(Drop(("head.*",))({"head.w": torch.ones(1), "header": torch.ones(1)}, NOTHING)) == {"header"}
