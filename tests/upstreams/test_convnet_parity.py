"""Convolutional networks, and 3D Swin, give the features of their publishers' packages.

Image networks are compared by the 3D network itself on volumes one slice deep, where centre inflation is exact through
every stride and pooling; video and medical networks directly.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from parity import SPEC, close, coloured, proves, shaken

from headstart.adaptation import GrayInput, Inflate, State, Step, read_checkpoint, transfer_weights
from headstart.backbones import build_backbone
from headstart.backbones.resenc import ResidualEncoder
from headstart.backbones.swin import SwinUnetrEncoder
from headstart.upstreams import RECIPES, find, locate
from headstart.upstreams.load import WRAPPED


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
    published |= {"module.conv_seg.0.weight": torch.ones(1)}
    transfer_weights(net, published, (WRAPPED, *RECIPES["medicalnet"].steps))
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
    report = transfer_weights(net, state, (WRAPPED, *RECIPES["swin-unetr"].steps))
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
