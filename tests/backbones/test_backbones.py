"""Every backbone: shapes, gradients, layer groups, determinism; the ViT against timm and against plain masking."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional as F

from headstart import names
from headstart.backbones import BACKBONES, build_backbone, build_model
from headstart.backbones.rotary import LAYOUTS, Rotary
from headstart.backbones.vit import VisionTransformer, brain_tokens, sincos_positions
from headstart.brains.volumes import VOLUMES
from headstart.errors import HeadstartError

SPEC = VOLUMES["4mm"]


def volumes(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 1, *SPEC.shape, generator=torch.Generator().manual_seed(seed))


def tiny_vit(pool: str = "avg", seed: int = 0) -> VisionTransformer:
    torch.manual_seed(seed)
    return VisionTransformer(SPEC, depth=2, width=48, heads=4, pool=pool).eval()


def test_the_command_line_offers_every_backbone() -> None:
    assert tuple(BACKBONES) == names.BACKBONES


@pytest.mark.parametrize("name", BACKBONES)
def test_shapes_gradients_and_layer_groups(name: str) -> None:
    model = build_model(name, SPEC, num_outputs=2)
    features = model.backbone(volumes(2))
    assert features.shape == (2, model.backbone.num_features)
    model.head(model.norm(features)).square().sum().backward()
    assert [key for key, p in model.named_parameters() if p.numel() and (p.grad is None or not p.grad.any())] == []
    grouped = [id(p) for group in model.layer_groups() for p in group]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert all(model.layer_groups())


@pytest.mark.parametrize("name", ["vit-mini", "cnn-small", "resnet18"])
def test_initial_weights_are_a_function_of_the_seed(name: str) -> None:
    torch.manual_seed(123)
    one, two, other = (build_model(name, SPEC, 1, seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_unknown_backbone_lists_the_known_ones() -> None:
    with pytest.raises(HeadstartError, match="vit-mini"):
        build_backbone("vit-huge", SPEC)


@pytest.mark.parametrize(("volume", "count"), [("4mm", 121), ("3mm", 242), ("2mm", 712), ("1mm", 726)])
def test_tokens_without_brain_are_dropped(volume: str, count: int) -> None:
    assert len(brain_tokens(VOLUMES[volume])) == count


def test_equals_timm_on_the_same_weights() -> None:
    ours = tiny_vit()
    theirs = timm.models.VisionTransformer(img_size=8, patch_size=8, embed_dim=48, depth=2, num_heads=4, num_classes=0)
    own_names = {key for key in ours.state_dict() if not key.startswith(("patch_embed", "pos_embed"))}
    weights = {key: value for key, value in ours.state_dict().items() if key in own_names}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    assert set(missing) == {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert not unexpected
    x = volumes(2)
    tokens = torch.cat([(ours.cls_token + ours.pos_embed[:, :1]).expand(2, -1, -1), ours.embed(x)], 1)
    expected = theirs.eval().norm(theirs.blocks(tokens))
    torch.testing.assert_close(ours.forward_tokens(x), expected, atol=1e-5, rtol=0)


def test_patch_embedding_is_the_convolution_it_stands_for() -> None:
    vit, x = tiny_vit(), volumes(2)
    everywhere = F.conv3d(x, vit.patch_embed.proj.weight, vit.patch_embed.proj.bias, stride=8).flatten(2).mT
    torch.testing.assert_close(vit.patch_embed(vit.patches(x)), everywhere[:, vit.tokens], atol=1e-5, rtol=1e-5)


def test_dropping_tokens_equals_masking_them() -> None:
    vit, x = tiny_vit(), volumes(2)
    full = F.conv3d(x, vit.patch_embed.proj.weight, vit.patch_embed.proj.bias, stride=8).flatten(2).mT
    full = torch.cat([vit.cls_token.expand(2, -1, -1), full], 1) + vit.pos_embed
    kept = torch.zeros(full.shape[1], dtype=torch.bool)
    kept[0] = kept[vit.tokens + 1] = True
    for block in vit.blocks:
        full = masked_block(block, full, kept)
    torch.testing.assert_close(vit.forward_tokens(x), vit.norm(full)[:, kept], atol=1e-5, rtol=1e-5)


def masked_block(block: torch.nn.Module, x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    n, length, width = x.shape
    q, k, v = block.attn.qkv(block.norm1(x)).view(n, length, 3, 4, width // 4).permute(2, 0, 3, 1, 4)
    scores = (q @ k.mT / (width // 4) ** 0.5).masked_fill(~kept, -torch.inf)
    x = x + block.attn.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, length, width))
    return x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))


def test_what_lies_outside_the_brain_tokens_does_not_matter() -> None:
    vit, x = tiny_vit(), volumes(1)
    changed = x.clone()
    changed[..., :8, :8, :8] += 100  # a corner: the air
    assert torch.equal(vit(x), vit(changed))


@pytest.mark.parametrize("kind", LAYOUTS)
def test_rotary_positions_travel_with_their_tokens(kind: str) -> None:
    torch.manual_seed(0)
    vit, x = VisionTransformer(SPEC, depth=2, width=48, heads=2, prefix=2, rotary=kind).eval(), volumes(2)
    order = torch.stack([torch.randperm(121), torch.arange(121)])
    found, expected = vit.forward_tokens(x, order), vit.forward_tokens(x)
    torch.testing.assert_close(found[0, 2:], expected[0, 2:][order[0]], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=0)
    vit.rotary.sine.zero_()
    vit.rotary.cosine.fill_(1)
    assert (vit.forward_tokens(x) - expected).abs().max() > 1e-4  # and they matter


@pytest.mark.parametrize(("kind", "axes"), [("dinov3", "yz"), ("vjepa2", "xyz")])
def test_rotation_depends_on_the_axes_it_says_and_leaves_lengths(kind: str, axes: str) -> None:
    rotary = Rotary(kind, (3, 4, 5), 24, prefix=1)
    table = rotary.cosine[1:].reshape(3, 4, 5, 24)
    for axis, name in enumerate("xyz"):
        assert bool(table.diff(dim=axis).any()) == (name in axes)
    turned = rotary(torch.arange(60))(torch.ones(1, 2, 61, 24))
    assert torch.equal(turned[:, :, 0], torch.ones(1, 2, 24))
    if kind == "dinov3":  # a true rotation; V-JEPA 2 gives the two components of a pair unlike angles
        torch.testing.assert_close(turned.norm(dim=-1), torch.full((1, 2, 61), 24**0.5))


def test_keep_selects_tokens_of_each_sample() -> None:
    vit, x = tiny_vit(), volumes(2)
    everything = torch.arange(vit.num_tokens).expand(2, -1)
    torch.testing.assert_close(vit.forward_tokens(x, everything), vit.forward_tokens(x))
    keep = torch.stack([torch.arange(10), torch.arange(20, 30)])
    both = vit.forward_tokens(x, keep)
    assert both.shape == (2, 11, 48)
    torch.testing.assert_close(both[1:], vit.forward_tokens(x[1:], keep[1:]), atol=1e-5, rtol=1e-5)


def test_pooling_reads_the_class_token_or_the_mean() -> None:
    x = volumes(2)
    cls, avg = tiny_vit("cls"), tiny_vit("avg")
    torch.testing.assert_close(cls(x), cls.forward_tokens(x)[:, 0])
    torch.testing.assert_close(avg(x), avg.forward_tokens(x)[:, 1:].mean(1))
    with pytest.raises(ValueError, match="pool"):
        tiny_vit("max")


def test_positions_tell_every_patch_apart_and_axes_alike() -> None:
    table = sincos_positions((5, 6, 5), 192)[0]
    assert not table[0].any()
    distances = torch.cdist(table[1:], table[1:]) + 10 * torch.eye(150)
    assert distances.min() > 0.5
    grid = table[1:].view(5, 6, 5, 192)
    steps = [(grid[1, 0, 0] - grid[0, 0, 0]).norm(), (grid[0, 1, 0] - grid[0, 0, 0]).norm(),
             (grid[0, 0, 1] - grid[0, 0, 0]).norm()]
    np.testing.assert_allclose(steps, steps[0].item(), rtol=1e-5)


def test_small_cnn_is_small_and_does_not_depend_on_the_batch() -> None:
    net = build_backbone("cnn-small", SPEC)
    assert sum(p.numel() for p in net.parameters()) < 1.1e6
    x = volumes(3)
    torch.testing.assert_close(net(x)[1:2], net(x[1:2]), atol=1e-5, rtol=1e-4)


def test_predictions_leave_in_the_units_of_the_target() -> None:
    model = build_model("cnn-small", SPEC, 1).eval()
    standardised = model(volumes(2))
    model.set_target_scale(torch.tensor([60.0]), torch.tensor([10.0]))
    torch.testing.assert_close(model(volumes(2)), standardised * 10 + 60)
    assert {"target_mean", "target_scale"} <= set(model.state_dict())
