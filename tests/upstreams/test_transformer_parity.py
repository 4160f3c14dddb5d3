"""Transformers give the features of their publishers' packages, token by token on the source's own patches."""

from __future__ import annotations

import re
import sys
from functools import partial
from math import prod
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
from parity import SPEC, close, coloured, proves, shaken

from headstart.adaptation import GrayInput, State, Step, Target, transfer_weights
from headstart.backbones import build_backbone
from headstart.backbones.rotary import Rotary
from headstart.backbones.vit import VisionTransformer
from headstart.upstreams import RECIPES, find
from headstart.upstreams.recipes import dinov2_3d, mae_st, monai_vit, videomae, videomae_original

WIDTH, DEPTH, HEADS = 48, 2, 3


def exact_part(steps: tuple[Step, ...], state: State) -> State:
    target = Target.of(VisionTransformer(SPEC, DEPTH, WIDTH, HEADS))
    for step in steps:
        state = step(state, target) if step.exact else state
    return state


def encode(state: State, images: Tensor, prefix: int, *, norm: bool = True, epsilon: float = 1e-6) -> Tensor:
    """Our transformer's blocks on the source's own patches of grey ``images`` (n, 1, *size)."""
    vit = VisionTransformer(SPEC, DEPTH, WIDTH, HEADS, prefix=prefix).eval()
    for layer in (layer for layer in vit.modules() if isinstance(layer, nn.LayerNorm)):
        layer.eps = epsilon
    body = {key: value for key, value in state.items() if key.startswith(("blocks.", "norm."))}
    missing, unexpected = vit.load_state_dict(body, strict=False)
    assert not unexpected
    assert set(missing) <= {"cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias",
                            *(() if norm else ("norm.weight", "norm.bias"))}
    kernel = state["patch_embed.proj.weight"]
    conv = F.conv2d if kernel.ndim == 4 else F.conv3d
    patches = conv(images, kernel, state["patch_embed.proj.bias"], stride=tuple(kernel.shape[2:]))
    tokens = patches.flatten(2).transpose(1, 2) + state["pos_embed"][:, prefix:]
    if prefix:
        first = (state["cls_token"] + state["pos_embed"][:, :prefix]).expand(len(tokens), -1, -1)
        tokens = torch.cat([first, tokens], dim=1)
    return vit.norm(vit.blocks(tokens)) if norm else vit.blocks(tokens)


def tiny_vit(**options) -> nn.Module:
    import timm

    return shaken(timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=5, **options))


@proves("timm-vit", "timm-vit-imagenet", "timm-vit-registers")
@pytest.mark.parametrize(("recipe", "prefix", "options"), [
    ("timm-vit", 1, {}), ("timm-vit-imagenet", 1, {}), ("timm-vit-imagenet", 1, {"init_values": 0.5}),
    ("timm-vit-registers", 5, {"init_values": 0.5, "reg_tokens": 4, "no_embed_class": True})])
@torch.no_grad()
def test_image_transformers_equal_timm(recipe: str, prefix: int, options: dict) -> None:
    model, steps = tiny_vit(**options), RECIPES[recipe].steps
    images = torch.rand(2, 1, 32, 32)
    found = encode(exact_part(steps, model.state_dict()), images, prefix)
    close(found, model.forward_features(coloured(images, steps)))


def tokens_of(vit: VisionTransformer, state: State, images: Tensor, kind: str) -> Tensor:
    """What a rotary transformer makes of the source's own patches of grey ``images`` (n, 1, *size)."""
    vit.load_state_dict({key: value for key, value in state.items() if "patch_embed" not in key}, strict=False)
    kernel = state["patch_embed.proj.weight"]
    conv = F.conv2d if kernel.ndim == 4 else F.conv3d
    patches = conv(images, kernel, state["patch_embed.proj.bias"], stride=tuple(kernel.shape[2:]))
    grid = (1,) * (5 - patches.ndim) + tuple(patches.shape[2:])
    tokens = torch.cat([vit.cls_token.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
    rotation = Rotary(kind, grid, WIDTH // HEADS, vit.prefix)(torch.arange(prod(grid)))
    for block in vit.eval().blocks:
        tokens = block(tokens, rotation)
    return vit.norm(tokens)


@proves("timm-vit-dinov3")
@pytest.mark.parametrize("options", [{"qkv_bias": False}, {"qkv_bias": True, "qkv_fused": True}])
@torch.no_grad()
def test_rotary_image_transformers_equal_timm(options: dict) -> None:
    from timm.models.eva import Eva

    model = shaken(Eva(
        img_size=32, patch_size=8, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=5, init_values=0.5,
        rope_type="dinov3", rope_temperature=100, rope_rotate_half=True, use_rot_pos_emb=True, use_abs_pos_emb=False,
        num_reg_tokens=4, use_fc_norm=False, norm_layer=partial(nn.LayerNorm, eps=1e-5), **options))
    steps, images = RECIPES["timm-vit-dinov3"].steps, torch.rand(2, 1, 32, 48)  # the grid is not square
    model.set_input_size((32, 48))
    vit = VisionTransformer(SPEC, DEPTH, WIDTH, HEADS, prefix=5, rotary="dinov3", epsilon=1e-5)
    found = tokens_of(vit, rotary_part(steps, model.state_dict(), vit), images, "dinov3")
    close(found, model.forward_features(coloured(images, steps)))


@proves("vjepa2")
@torch.no_grad()
def test_rotary_video_transformers_equal_transformers() -> None:
    import transformers

    model = shaken(transformers.VJEPA2Model(transformers.VJEPA2Config(
        patch_size=8, crop_size=32, frames_per_clip=6, tubelet_size=2, hidden_size=WIDTH, num_attention_heads=HEADS,
        num_hidden_layers=DEPTH, mlp_ratio=4, pred_hidden_size=24, pred_num_attention_heads=2,
        pred_num_hidden_layers=1)))
    steps, clips = RECIPES["vjepa2"].steps, torch.rand(2, 1, 6, 32, 32)
    vit = VisionTransformer(SPEC, DEPTH, WIDTH, HEADS, prefix=0, rotary="vjepa2")
    state = rotary_part(steps, model.state_dict(), vit)
    expected = model(coloured(clips, steps).transpose(1, 2), skip_predictor=True).last_hidden_state
    close(tokens_of(vit, state, clips, "vjepa2"), expected)


def rotary_part(steps: tuple[Step, ...], state: State, vit: VisionTransformer) -> State:
    for step in steps:
        state = step(state, Target.of(vit)) if step.exact else state
    return state


@torch.no_grad()
def test_an_inflated_patch_of_a_depth_constant_brain_is_the_image_patch() -> None:
    model, vit, steps = tiny_vit(), VisionTransformer(SPEC, DEPTH, WIDTH, HEADS), RECIPES["timm-vit"].steps
    transfer_weights(vit, model.state_dict(), steps)
    images = torch.rand(2, 1, 8, 8)
    volumes = images[:, :, None].expand(-1, -1, 8, -1, -1)
    expected = model.patch_embed.proj(coloured(images, steps)).flatten(1)
    close(vit.patch_embed(volumes.reshape(2, 1, -1))[:, 0], expected)


def tiny_videomae(kind: str) -> nn.Module:
    import transformers

    config = transformers.VideoMAEConfig(
        image_size=32, num_frames=4, hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH, decoder_num_hidden_layers=1, decoder_hidden_size=24, decoder_num_attention_heads=2,
        decoder_intermediate_size=48)
    return shaken(getattr(transformers, kind)(config))


@proves("videomae")
@pytest.mark.parametrize("kind", ["VideoMAEForPreTraining", "VideoMAEForVideoClassification"])
@pytest.mark.parametrize("old_names", [False, True])
@torch.no_grad()
def test_video_transformers_equal_transformers(kind: str, old_names: bool) -> None:
    model, steps = tiny_videomae(kind), videomae("tiny", (2, 2, 2)).steps
    state = model.state_dict()
    if old_names:  # the published files were written by transformers 4
        old = {"query.bias": "q_bias", "value.bias": "v_bias"}
        state = {re.sub("query.bias|value.bias", lambda name: old[name[0]], key): value for key, value in state.items()}
    clips = torch.rand(2, 1, 4, 32, 32)
    expected = model.videomae(coloured(clips, steps).transpose(1, 2)).last_hidden_state
    close(encode(exact_part(steps, state), clips, prefix=0, norm=False), expected)


@torch.no_grad()
def test_the_authors_own_key_names_give_the_same_network() -> None:
    model, steps = tiny_videomae("VideoMAEForPreTraining"), videomae("tiny", (2, 2, 2)).steps
    state = exact_part(steps, model.state_dict())
    named = {f"model.{key}": value for key, value in state.items() if "qkv" not in key and key != "pos_embed"}
    for block in range(DEPTH):
        layer = f"model.blocks.{block}.attn"
        named[f"{layer}.qkv.weight"] = state[f"blocks.{block}.attn.qkv.weight"]
        query, _, value = state[f"blocks.{block}.attn.qkv.bias"].chunk(3)
        named |= {f"{layer}.q_bias": query, f"{layer}.v_bias": value}
    rest = tuple(step for step in videomae_original("tiny", (2, 2, 2)).steps if not isinstance(step, GrayInput))
    found = exact_part(rest, named)  # without the grey step: the first layer reads one channel already
    assert set(found) == set(state)
    for key, value in state.items():
        torch.testing.assert_close(found[key], value)


@proves("monai-vit-96")
@torch.no_grad()
def test_medical_transformers_equal_monai() -> None:
    from monai.networks.nets import ViT

    model = shaken(ViT(in_channels=1, img_size=(32,) * 3, patch_size=(16,) * 3, hidden_size=WIDTH, mlp_dim=4 * WIDTH,
                       num_layers=DEPTH, num_heads=HEADS))
    volumes = torch.rand(2, 1, 32, 32, 32)
    state = exact_part(monai_vit("tiny", (2, 2, 2), "monai").steps, model.state_dict())
    expected = model(volumes)[0]
    close(encode(state, volumes, prefix=0, epsilon=1e-5), expected)
    # MONAI's normalisation has a larger epsilon than ours: with ours the features differ by a little more.
    assert (encode(state, volumes, prefix=0) - expected).abs().max() < 1e-3 * expected.std()


def renamed(state: State, *rows: tuple[str, str]) -> State:
    for old, new in rows:
        state = {re.sub(old, new, key): value for key, value in state.items()}
    return state


@torch.no_grad()
def test_the_authors_key_names_of_mae_st_and_3dino_load_whole() -> None:
    """Neither has a package to compare outputs with: that their names are read is all that is shown."""
    vit = VisionTransformer(SPEC, DEPTH, WIDTH, HEADS)
    blocks = {key: value for key, value in vit.state_dict().items() if key.startswith(("blocks.", "norm."))}
    kernel, bias, token = torch.rand(WIDTH, 3, 2, 16, 16), torch.rand(WIDTH), torch.rand(1, 1, WIDTH)
    apart = {key.replace("qkv", name): piece for key, value in blocks.items() if ".qkv." in key
             for name, piece in zip("qkv", value.chunk(3), strict=True)}
    mae = {key: value for key, value in blocks.items() if ".qkv." not in key} | apart | {
        "cls_token": token, "pos_embed_class": token, "pos_embed_temporal": torch.rand(1, 2, WIDTH),
        "pos_embed_spatial": torch.rand(1, 9, WIDTH), "patch_embed.proj.weight": kernel,
        "patch_embed.proj.bias": bias, "mask_token": token, "decoder_pos_embed_class": token,
        "decoder_blocks.0.norm1.weight": bias}
    assert not transfer_weights(vit, mae, mae_st("mae-st", (2, 3, 3)).steps).initialised
    assert torch.equal(vit.blocks[1].attn.qkv.weight, blocks["blocks.1.attn.qkv.weight"])
    dino = renamed(blocks, (r"^blocks\.", "blocks.0.")) | {
        "cls_token": token, "pos_embed": torch.rand(1, 28, WIDTH), "mask_token": token[0],
        "patch_embed.proj.weight": kernel[:, :1], "patch_embed.proj.bias": bias, "blocks.0.1.ls1.gamma": bias,
        "blocks.0.1.ls2.gamma": bias}
    dino = {f"backbone.{key}": value for key, value in dino.items()} | {"dino_head.last.weight": bias}
    assert not transfer_weights(vit, dino, dinov2_3d("3dino", (3, 3, 3)).steps).initialised


FULL_SIZE = {
    "imagenet-vit-tiny": "vit_tiny_patch16_224", "imagenet-deit-small": "deit_small_patch16_224",
    "imagenet-mae-base": "vit_base_patch16_224.mae", "dinov2-small": "vit_small_patch14_dinov2",
    "dinov2-registers-small": "vit_small_patch14_reg4_dinov2",
}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_transformers_load_whole(name: str) -> None:
    import timm

    upstream = find(name)
    with torch.device("meta"):
        shapes = timm.create_model(FULL_SIZE[name]).state_dict()
    state = {key: torch.full(value.shape, 0.01) for key, value in shapes.items()}
    report = transfer_weights(build_backbone(upstream.backbones[0], SPEC), state, upstream.recipe.steps)
    assert not report.initialised
    assert report.parameters[0] == report.parameters[1]
    encoder = sum(value.numel() for key, value in shapes.items() if not key.startswith("head"))
    assert abs(encoder / upstream.parameters - 1) < 0.01  # the number in the catalogue
