"""The same input gives the same features as the publisher's own package, before any approximating step.

Transformers are compared token by token on the source's own patches; convolutional networks by the 3D network itself
on volumes one slice deep, where centre inflation is exact through every stride and pooling; video networks directly.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from functools import partial
from math import prod

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.adaptation import GrayInput, Inflate, State, Step, Target, read_checkpoint, transfer_weights
from headstart.backbones import build_backbone
from headstart.backbones.resenc import ResidualEncoder
from headstart.backbones.rotary import Rotary
from headstart.backbones.swin import SwinUnetrEncoder
from headstart.backbones.vit import VisionTransformer
from headstart.brains.volumes import volume_spec
from headstart.upstreams import RECIPES, catalogue, find, locate
from headstart.upstreams.recipes import dinov2_3d, mae_st, monai_vit, videomae, videomae_original

SPEC = volume_spec("4mm")
WIDTH, DEPTH, HEADS = 48, 2, 3
PROVEN: set[str] = set()


def proves(*recipes: str) -> Callable:
    """Mark a test as the proof of recipes; the last test compares with the catalogue's claims."""
    PROVEN.update(recipes)
    return lambda test: test


@torch.no_grad()
def shaken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random values everywhere: no bias is zero, no scale is one, no running mean is forgotten."""
    torch.manual_seed(seed)
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn_like(value) * (0.1 * value.std() if value.ndim > 3 else 0.1)  # deep kernels stay tame
            value.copy_(torch.rand_like(value) + 0.5 if "running_var" in key else value + noise)
    return model.eval()


def close(found: Tensor, expected: Tensor) -> None:
    """Equal to 1e-4 of the features' own spread."""
    spread = expected.std()
    assert spread > 1e-4  # equal constants would prove nothing
    torch.testing.assert_close(found / spread, expected / spread, atol=1e-4, rtol=0)


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


def coloured(grey: Tensor, steps: tuple[Step, ...]) -> Tensor:
    """What the source would be given for a grey image: three channels, normalised by its statistics."""
    step = next(step for step in steps if isinstance(step, GrayInput))
    shape = (1, 3, *[1] * (grey.ndim - 2))
    mean, std = torch.tensor(step.mean).view(shape), torch.tensor(step.std).view(shape)
    return (grey.expand(-1, 3, *grey.shape[2:]) - mean) / std


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


def in_the_plane(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The same chain with grey input unnormalised and the kernels in the middle slice: exact up to the borders."""
    def plain(step: Step) -> Step:
        if isinstance(step, GrayInput):
            return dataclasses.replace(step, mean=(0.0,) * 3, std=(1.0,) * 3)
        return dataclasses.replace(step, method="centre") if isinstance(step, Inflate) else step

    return tuple(plain(step) for step in steps)


def one_slice(backbone: str, recipe: str, state: State, images: Tensor) -> Tensor:
    """Features of our 3D network on images (n, 1, H, W) as volumes one voxel deep."""
    net = build_backbone(backbone, SPEC).eval()
    transfer_weights(net, state, in_the_plane(RECIPES[recipe].steps))
    for pool in (layer for layer in net.modules() if isinstance(layer, nn.AvgPool3d)):
        pool.kernel_size = pool.stride = (1, 2, 2)  # one slice cannot be halved
    return net(images[:, :, None])


@proves("torchvision-resnet", "torchvision-densenet")
@pytest.mark.parametrize(("name", "backbone", "recipe"), [
    ("resnet18", "resnet18", "torchvision-resnet"), ("resnet50", "medicalnet-resnet50", "torchvision-resnet"),
    ("densenet121", "densenet121", "torchvision-densenet")])
@torch.no_grad()
def test_image_convnets_equal_torchvision(name: str, backbone: str, recipe: str) -> None:
    from torchvision import models

    model = shaken(getattr(models, name)())
    images, state = torch.rand(2, 1, 64, 64), dict(model.state_dict())
    model.fc = model.classifier = nn.Identity()
    close(one_slice(backbone, recipe, state, images), model(images.expand(-1, 3, -1, -1)))


@proves("timm-efficientnet-lite")
@torch.no_grad()
def test_efficientnet_equals_timm() -> None:
    import timm

    model, images = shaken(timm.create_model("tf_efficientnet_lite0")), torch.rand(2, 1, 64, 64)
    expected = model.forward_features(images.expand(-1, 3, -1, -1)).mean((2, 3))
    close(one_slice("efficientnet-lite0", "timm-efficientnet-lite", model.state_dict(), images), expected)


@proves("efficientnet-lite-pytorch")
@torch.no_grad()
def test_the_real_efficientnet_equals_its_publishers_package() -> None:
    import efficientnet_lite_pytorch as package

    upstream, images = find("imagenet-efficientnet-lite0"), torch.rand(2, 1, 64, 64)
    state = read_checkpoint(locate(upstream), sha256=upstream.source.sha256)
    model = package.EfficientNet.from_name("efficientnet-lite0").eval()
    model.load_state_dict(state)
    expected = model.extract_features(images.expand(-1, 3, -1, -1)).mean((2, 3))
    close(one_slice("efficientnet-lite0", upstream.recipe.name, state, images), expected)


@proves("torchvision-video")
@pytest.mark.parametrize(("name", "backbone"), [
    ("r3d_18", "r3d-18"), ("mc3_18", "mc3-18"), ("r2plus1d_18", "r2plus1d-18")])
@torch.no_grad()
def test_video_convnets_equal_torchvision(name: str, backbone: str) -> None:
    from torchvision.models import video

    model, net = shaken(getattr(video, name)()), build_backbone(backbone, SPEC).eval()
    transfer_weights(net, model.state_dict(), in_the_plane(RECIPES["torchvision-video"].steps))
    clips, model.fc = torch.rand(1, 1, 8, 32, 32), nn.Identity()
    close(net(clips), model(clips.expand(-1, 3, -1, -1, -1)))


@proves("medicalnet")
@pytest.mark.parametrize(("depth", "shortcut"), [(10, "B"), (18, "A"), (50, "B")])
@torch.no_grad()
def test_medicalnet_equals_monai(depth: int, shortcut: str) -> None:
    from monai.networks import nets

    model = shaken(getattr(nets, f"resnet{depth}")(
        spatial_dims=3, n_input_channels=1, feed_forward=False, shortcut_type=shortcut, bias_downsample=False,
        conv1_t_stride=2))
    net, volumes = build_backbone(f"medicalnet-resnet{depth}", SPEC).eval(), torch.rand(1, 1, 32, 40, 32)
    published = {f"module.{key}": value for key, value in model.state_dict().items()}
    transfer_weights(net, published | {"module.conv_seg.0.weight": torch.ones(1)}, RECIPES["medicalnet"].steps)
    close(net(volumes), model(volumes))


@proves("deepbet")
@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_the_real_deepbet_encoder_equals_its_own_program() -> None:
    path = locate(find("deepbet"))
    net = build_backbone("deepbet-encoder", SPEC).eval()
    report = transfer_weights(net, read_checkpoint(path), RECIPES["deepbet"].steps)
    assert not report.initialised
    program = torch.jit.load(str(path), map_location="cpu").eval()  # trusted here by its digest in the catalogue
    volumes, relu = torch.rand(1, 1, 64, 64, 64), getattr(program.conv, "2")
    x = program.init(relu, volumes)
    for stage in (program.down0, program.down1, program.down2, program.down3):
        x = stage(relu, x)
    close(net(volumes), x.mean((2, 3, 4)))


@proves("torchvision-video-swin")
@torch.no_grad()
def test_video_swin_equals_torchvision() -> None:
    from torchvision.models.video import swin3d_t

    model, net = shaken(swin3d_t()), build_backbone("swin3d-tiny", SPEC).eval()
    steps, clips = RECIPES["torchvision-video-swin"].steps, torch.rand(1, 1, 6, 40, 48)
    transfer_weights(net, model.state_dict(), steps)
    model.head = nn.Identity()
    close(net(clips), model(coloured(clips, steps)))


@proves("swin-unetr")
@pytest.mark.parametrize("published", ["Swin UNETR", "self-supervised"])
@torch.no_grad()
def test_swin_unetr_equals_monai(published: str) -> None:
    from monai.networks.nets import SwinUNETR

    model, net = shaken(SwinUNETR(in_channels=1, out_channels=2, feature_size=12)), SwinUnetrEncoder(12).eval()
    state, volumes = model.state_dict(), torch.rand(1, 1, 40, 48, 40)
    if published == "self-supervised":  # the names that SwinUNETR.load_from reads
        encoder = {key.removeprefix("swinViT."): value for key, value in state.items() if key.startswith("swinViT.")}
        state = {"module." + key.replace("mlp.linear", "mlp.fc"): value for key, value in encoder.items()}
    report = transfer_weights(net, state, RECIPES["swin-unetr"].steps)
    assert not report.initialised
    close(net(volumes), model.swinViT(volumes)[-1].mean((2, 3, 4)))


@proves("resenc")
@torch.no_grad()
def test_residual_encoders_equal_their_own_package() -> None:
    from dynamic_network_architectures.building_blocks import residual_encoders

    widths, blocks = (4, 8, 12, 12), (1, 3, 2, 1)
    model = shaken(residual_encoders.ResidualEncoder(
        1, len(widths), widths, nn.Conv3d, 3, [1, *[2] * (len(widths) - 1)], blocks, conv_bias=True,
        norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True}))
    published = {f"encoder.{key}": value for key, value in model.state_dict().items()}
    net, volumes = ResidualEncoder(widths, blocks).eval(), torch.rand(2, 1, 16, 24, 16)
    report = transfer_weights(net, published | {"decoder.seg.weight": torch.ones(1)}, RECIPES["resenc"].steps)
    assert not report.initialised
    close(net(volumes), model(volumes).mean((2, 3, 4)))


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


def test_every_claim_in_the_catalogue_is_proven_here() -> None:
    assert {recipe.name for recipe in RECIPES.values() if recipe.reference} == PROVEN
    used = {upstream.recipe.name for upstream in catalogue() if upstream.recipe and upstream.verified}
    assert used <= PROVEN
