"""Key tables and chains of adaptation, one recipe for each family of checkpoints."""

from __future__ import annotations

from headstart.adaptation import (
    AddSinusoidPositions,
    Drop,
    FoldLayerScale,
    FuseQkv,
    GrayInput,
    Inflate,
    JoinPrefixTokens,
    JoinQvBias,
    JoinSpaceTimePositions,
    Rename,
    ResizeKernel,
    ResizePositions,
    ZeroBias,
)
from headstart.upstreams.base import Recipe

Colour = tuple[float, float, float]
HALF: tuple[Colour, Colour] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IMAGENET: tuple[Colour, Colour] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
KINETICS: tuple[Colour, Colour] = ((0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989))  # torchvision's
# EfficientNet-Lite reads (x - 127) / 128 of bytes (tensorflow/tpu, efficientnet/lite).
LITE: tuple[Colour, Colour] = ((127 / 255,) * 3, (128 / 255,) * 3)
PATCH, PATCH_BIAS = "patch_embed.proj.weight", "patch_embed.proj.bias"
HEADS = Drop(("head.*", "head_dist.*", "fc_norm.*", "fc.*", "classifier.*"), "head")


def vit_images(name: str, colour: tuple[Colour, Colour]) -> Recipe:
    """timm's ViT with one class token: augreg, DeiT, MAE, DINOv2 without registers."""
    steps = (Drop(("mask_token",)), HEADS, FoldLayerScale(), GrayInput(PATCH, PATCH_BIAS, *colour),
             Inflate("average", PATCH), ResizeKernel(), ResizePositions())
    return Recipe(name, steps, reference="timm")


def vit_registers(name: str) -> Recipe:
    """timm's DINOv2 with a class token and four registers."""
    steps = (Drop(("mask_token",)), HEADS, FoldLayerScale(), JoinPrefixTokens(),
             GrayInput(PATCH, PATCH_BIAS, *IMAGENET), Inflate("average", PATCH), ResizeKernel(),
             ResizePositions(prefix=5))
    return Recipe(name, steps, reference="timm")


def vit_dinov3(name: str) -> Recipe:
    """timm's DINOv3: rotary positions, a class token and four registers, no biases of queries, keys and values."""
    steps = (HEADS, FoldLayerScale((("gamma_1", "attn.proj"), ("gamma_2", "mlp.fc2"))),
             JoinPrefixTokens(positions=None), JoinQvBias(), ZeroBias("*.attn.qkv"),
             GrayInput(PATCH, PATCH_BIAS, *IMAGENET), Inflate("average", PATCH), ResizeKernel())
    return Recipe(name, steps, initialised=("pos_embed",), reference="timm")


VJEPA2_KEYS = (
    *((f"encoder.layer.{{i}}.attention.{theirs}.{{rest}}", f"blocks.{{i}}.attn.{ours}.{{rest}}")
      for theirs, ours in (("query", "q"), ("key", "k"), ("value", "v"), ("proj", "proj"))),
    ("encoder.layer.{i}.{rest}", "blocks.{i}.{rest}"),
    ("encoder.embeddings.patch_embeddings.proj.{rest}", "patch_embed.proj.{rest}"),
    ("encoder.layernorm.{rest}", "norm.{rest}"),
)


def vjepa2(name: str) -> Recipe:
    """transformers' V-JEPA 2: rotary positions along time, height and width, no class token."""
    steps = (Rename((("vjepa2.{rest}", "{rest}"),)), Rename(VJEPA2_KEYS), Drop(("predictor.*",), "predictor"),
             Drop(("pooler.*",), "pooler"), HEADS, FuseQkv(), GrayInput(PATCH, PATCH_BIAS, *IMAGENET), ResizeKernel())
    return Recipe(name, steps, initialised=("pos_embed",), reference="transformers")


VIDEOMAE_BLOCK = (
    ("attention.attention.query.{rest}", "attn.q.{rest}"),
    ("attention.attention.key.{rest}", "attn.k.{rest}"),
    ("attention.attention.value.{rest}", "attn.v.{rest}"),
    ("attention.attention.q_bias", "attn.q.bias"),  # as transformers 4 wrote them, and the published files have them
    ("attention.attention.v_bias", "attn.v.bias"),
    ("attention.output.dense.{rest}", "attn.proj.{rest}"),
    ("intermediate.dense.{rest}", "mlp.fc1.{rest}"),
    ("output.dense.{rest}", "mlp.fc2.{rest}"),
    ("layernorm_before.{rest}", "norm1.{rest}"),
    ("layernorm_after.{rest}", "norm2.{rest}"),
)
VIDEOMAE_KEYS = tuple(row for prefix in ("videomae.", "") for row in (
    *((f"{prefix}encoder.layer.{{i}}.{theirs}", f"blocks.{{i}}.{ours}") for theirs, ours in VIDEOMAE_BLOCK),
    (f"{prefix}embeddings.patch_embeddings.projection.{{rest}}", "patch_embed.proj.{rest}"),
))


def videomae(name: str, grid: tuple[int, int, int] = (8, 14, 14)) -> Recipe:
    """transformers' VideoMAE: no class token, fixed sinusoids, no normalisation after the last block."""
    steps = (Rename(VIDEOMAE_KEYS), Drop(("decoder.*", "encoder_to_decoder.*", "mask_token"), "decoder"), HEADS,
             FuseQkv(), AddSinusoidPositions(grid), GrayInput(PATCH, PATCH_BIAS, *IMAGENET), ResizeKernel(),
             ResizePositions(grid, prefix=0))
    return Recipe(name, steps, initialised=("norm.*",), reference="transformers")


def videomae_original(name: str, grid: tuple[int, int, int] = (8, 14, 14)) -> Recipe:
    """The authors' own VideoMAE files and version 2 (arXiv 2303.16727): timm's names, q and v biases apart."""
    steps = (Rename((("model.{rest}", "{rest}"), ("encoder.{rest}", "{rest}"))),
             Drop(("decoder.*", "encoder_to_decoder.*", "mask_token"), "decoder"), HEADS, JoinQvBias(),
             AddSinusoidPositions(grid), GrayInput(PATCH, PATCH_BIAS, *IMAGENET), ResizeKernel(),
             ResizePositions(grid, prefix=0))
    return Recipe(name, steps, initialised=("norm.*",))


def mae_st(name: str, grid: tuple[int, int, int] = (8, 14, 14)) -> Recipe:
    """The authors' MAE-ST: a class token, positions of time and plane apart, pixels to mean 0.45, deviation 0.225."""
    steps = (Drop(("decoder*", "mask_token"), "decoder"), HEADS, FuseQkv(), JoinSpaceTimePositions(),
             GrayInput(PATCH, PATCH_BIAS, (0.45,) * 3, (0.225,) * 3), ResizeKernel(), ResizePositions(grid))
    return Recipe(name, steps)


def dinov2_3d(name: str, grid: tuple[int, int, int] = (7, 7, 7)) -> Recipe:
    """3DINO: DINOv2's own names, whose blocks may stand in chunks, on volumes of one channel."""
    rename = Rename((("backbone.{rest}", "{rest}"),)), Rename((("blocks.{chunk}.{i}.{rest}", "blocks.{i}.{rest}"),))
    steps = (*rename, Drop(("dino_head.*", "ibot_head.*", "mask_token"), "head"), FoldLayerScale(), ResizeKernel(),
             ResizePositions(grid))
    return Recipe(name, steps)


SWIN_KEYS = (  # Swin UNETR's own names, with or without the whole network around them, and those before MONAI's
    ("swinViT.{rest}", "swinViT.{rest}"),
    *((f"layers{{i}}.0.blocks.{{j}}.mlp.{theirs}.{{rest}}", f"swinViT.layers{{i}}.0.blocks.{{j}}.mlp.{ours}.{{rest}}")
      for theirs, ours in (("fc1", "linear1"), ("fc2", "linear2"))),
    ("patch_embed.{rest}", "swinViT.patch_embed.{rest}"),
    ("layers{i}.{rest}", "swinViT.layers{i}.{rest}"),
)


def swin_unetr(name: str) -> Recipe:
    """The encoder of Swin UNETR: alone, in the whole network, or under self-supervised heads."""
    around = ("encoder*", "decoder*", "out.*", "rotation_*", "contrastive_*", "conv.*")
    return Recipe(name, (Drop(around, "not the encoder"), Rename(SWIN_KEYS)), reference="monai")


def residual_encoder(name: str) -> Recipe:
    """nnU-Net's residual encoders as nnssl saves them: every layer stands there twice, once under ``all_modules``."""
    steps = (Drop(("*.all_modules.*",), "the same tensor under another name"), Drop(("decoder.*",), "decoder"),
             Rename((("encoder.{rest}", "{rest}"),)))
    return Recipe(name, steps, reference="dynamic-network-architectures")


def convnet(name: str, conv: str, norm: str, colour: tuple[Colour, Colour], *, reference: str,
            table: tuple[tuple[str, str], ...] = ()) -> Recipe:
    """A 2D convolutional network: one channel, then depth."""
    rename = (Rename(table),) if table else ()
    steps = (*rename, HEADS, GrayInput(f"{conv}.weight", f"{norm}.running_mean", *colour), Inflate("average"),
             ZeroBias("*.downsample.0"))
    return Recipe(name, steps, reference=reference)


def video_resnet(name: str) -> Recipe:
    """torchvision's video ResNets: 3D already."""
    return Recipe(name, (HEADS, GrayInput("stem.0.weight", "stem.1.running_mean", *KINETICS)), reference="torchvision")


DENSENET_KEYS = tuple(
    (f"features.denseblock{{i}}.denselayer{{j}}.{theirs}.{{rest}}",
     f"features.denseblock{{i}}.denselayer{{j}}.layers.{ours}.{{rest}}")
    for theirs, ours in (("norm1", "norm1"), ("conv1", "conv1"), ("norm2", "norm2"), ("conv2", "conv2"),
                         ("norm.1", "norm1"), ("conv.1", "conv1"), ("norm.2", "norm2"), ("conv.2", "conv2"))
)  # the dotted names are those of the published file, from before torchvision renamed its layers

LITE_KEYS = (  # efficientnet_lite_pytorch's flat list of blocks, by timm's stage and place
    ("_conv_stem.{rest}", "conv_stem.{rest}"),
    ("_bn0.{rest}", "bn1.{rest}"),
    ("_blocks.0._depthwise_conv.{rest}", "blocks.0.0.conv_dw.{rest}"),
    ("_blocks.0._bn1.{rest}", "blocks.0.0.bn1.{rest}"),
    ("_blocks.0._project_conv.{rest}", "blocks.0.0.conv_pw.{rest}"),
    ("_blocks.0._bn2.{rest}", "blocks.0.0.bn2.{rest}"),
    *((f"_blocks.{flat}.{theirs}.{{rest}}", f"blocks.{stage}.{place}.{ours}.{{rest}}")
      for flat, (stage, place) in enumerate([(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2), (4, 0), (4, 1),
                                             (4, 2), (5, 0), (5, 1), (5, 2), (5, 3), (6, 0)], start=1)
      for theirs, ours in (("_expand_conv", "conv_pw"), ("_bn0", "bn1"), ("_depthwise_conv", "conv_dw"),
                           ("_bn1", "bn2"), ("_project_conv", "conv_pwl"), ("_bn2", "bn3"))),
    ("_conv_head.{rest}", "conv_head.{rest}"),
    ("_bn1.{rest}", "bn2.{rest}"),
    ("_fc.{rest}", "classifier.{rest}"),
)

MONAI_VIT_KEYS = (
    ("backbone.{rest}", "{rest}"),
    ("patch_embedding.position_embeddings", "pos_embed"),
    ("patch_embedding.patch_embeddings.{rest}", "patch_embed.proj.{rest}"),
    ("blocks.{i}.mlp.linear1.{rest}", "blocks.{i}.mlp.fc1.{rest}"),
    ("blocks.{i}.mlp.linear2.{rest}", "blocks.{i}.mlp.fc2.{rest}"),
    ("blocks.{i}.attn.out_proj.{rest}", "blocks.{i}.attn.proj.{rest}"),
)


def monai_vit(name: str, grid: tuple[int, int, int], reference: str | None) -> Recipe:
    """MONAI's 3D ViT without a class token; its attention has no biases, its cross-attention is never used."""
    steps = (Rename((MONAI_VIT_KEYS[0],)), Rename(MONAI_VIT_KEYS[1:]),
             Drop(("*cross_attn*", "classification_head.*", "projection_head.*"), "not used by the encoder"),
             ZeroBias("*.attn.qkv"), ResizeKernel(), ResizePositions(grid, prefix=0))
    return Recipe(name, steps, reference=reference)


RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (
    vit_images("timm-vit", HALF),
    vit_images("timm-vit-imagenet", IMAGENET),
    vit_registers("timm-vit-registers"),
    vit_dinov3("timm-vit-dinov3"),
    videomae("videomae"),
    videomae_original("videomae-original"),
    vjepa2("vjepa2"),
    mae_st("mae-st"),
    Recipe("torchvision-video-swin", (HEADS, GrayInput(PATCH, PATCH_BIAS, *IMAGENET)), reference="torchvision"),
    monai_vit("monai-vit-96", (6, 6, 6), "monai"),
    convnet("torchvision-resnet", "conv1", "bn1", IMAGENET, reference="torchvision"),
    convnet("torchvision-densenet", "features.conv0", "features.norm0", IMAGENET, reference="torchvision",
            table=DENSENET_KEYS),
    convnet("efficientnet-lite-pytorch", "conv_stem", "bn1", LITE, reference="efficientnet-lite-pytorch",
            table=LITE_KEYS),
    convnet("timm-efficientnet-lite", "conv_stem", "bn1", HALF, reference="timm"),
    video_resnet("torchvision-video"),
    dinov2_3d("3dino"),
    swin_unetr("swin-unetr"),
    residual_encoder("resenc"),
    Recipe("medicalnet", (Drop(("conv_seg.*", "fc.*"), "head"),), reference="monai"),
    Recipe("sfcn", (Drop(("classifier.*",), "head"),)),
    Recipe("deepbet", (Drop(("up*", "tp_conv*", "conv.*"), "decoder"),), reference="deepbet"),
)}
"""How each family of checkpoints is read, by the name that ``weights import --recipe`` takes."""
