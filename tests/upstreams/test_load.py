"""Names, folders and files go into backbones, with a receipt or an error that helps."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from rich.console import Console
from safetensors.torch import load_file, save_file

from headstart.backbones import BACKBONES, Backbone, build_backbone, build_model
from headstart.brains.contract import Contract
from headstart.brains.volumes import volume_spec
from headstart.errors import HeadstartError
from headstart.files import write_json
from headstart.upstreams import (
    RECIPES,
    catalogue,
    domain_of,
    domain_of_recipe,
    find,
    identity,
    load_into,
    overlaps,
    seen_by,
)
from headstart.upstreams.base import DOMAINS, Shipped
from headstart.upstreams.show import catalogue_table, markdown_table, receipt_table, record_table, write_receipt

SPEC, LARGER = volume_spec("4mm"), volume_spec("3mm")


def values(net: Backbone) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in net.state_dict().items()}


@pytest.mark.parametrize(("name", "backbone"), [
    ("imagenet-efficientnet-lite0", "efficientnet-lite0"), ("deepbet", "deepbet-encoder")])
@torch.no_grad()
def test_the_two_real_checkpoints_load_and_tell_brains_apart(name: str, backbone: str) -> None:
    net = build_backbone(backbone, SPEC).eval()
    report = load_into(name, net, backbone, SPEC)
    assert report.parameters[0] == report.parameters[1]
    assert {*report.copied, *report.adapted, *report.initialised} == set(net.state_dict())
    features = net(torch.rand(2, 1, *SPEC.shape))
    assert features.isfinite().all()
    assert (features[0] - features[1]).abs().max() > 1e-4


def test_a_full_dinov3_fits_with_its_rotary_positions(tmp_path: Path) -> None:
    model = timm.create_model("vit_small_patch16_dinov3")
    save_file(model.state_dict(), tmp_path / "dino.safetensors")
    net = build_backbone("vit-small-dinov3", SPEC)
    report = load_into(tmp_path / "dino.safetensors", net, "vit-small-dinov3", SPEC, recipe="dinov3-small")
    assert report.initialised == ("pos_embed",)
    assert not net.pos_embed.any()  # nothing but the rotation tells Y and Z apart, as in the source
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(find("dinov3-small").parameters, rel=2e-2)


def test_scratch_leaves_the_backbone_as_it_is_and_says_so() -> None:
    net = build_backbone("cnn-small", SPEC)
    before = values(net)
    report = load_into("scratch", net, "cnn-small", SPEC)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert set(report.initialised) == set(before)
    assert report.parameters[0] == 0


def own_folder(folder: Path, backbone: str, volume: str) -> dict[str, torch.Tensor]:
    contract = Contract(volume=volume)
    model = build_model(backbone, contract.spec, 1, seed=7)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    write_json(folder / "config.json", {"backbone": backbone, "contract": contract.model_dump(), "seen": ["ds000011"]})
    return values(model.backbone)


@pytest.mark.parametrize("backbone", ["vit-mini", "vit-small-registers", "vit-small-patches", "cnn-small"])
def test_an_own_model_comes_back_without_its_head(tmp_path: Path, backbone: str) -> None:
    trained, net = own_folder(tmp_path, backbone, "4mm"), build_backbone(backbone, SPEC, seed=1)
    report = load_into(tmp_path, net, backbone, SPEC)
    assert all(torch.equal(value, trained[key]) for key, value in net.state_dict().items())
    assert not report.adapted
    assert {"head.weight", "head.bias", "norm.weight", "target_mean"} <= set(report.dropped)


def test_the_folder_of_a_run_stands_for_its_model_and_what_has_none_is_refused(tmp_path: Path) -> None:
    """What finetune wrote holds its model in ``model``; what pretrain has not ended holds none yet."""
    (tmp_path / "run" / "model").mkdir(parents=True)
    own_folder(tmp_path / "run" / "model", "cnn-small", "4mm")
    assert identity(tmp_path / "run", "cnn-small", SPEC) == identity(tmp_path / "run" / "model", "cnn-small", SPEC)
    assert load_into(tmp_path / "run", build_backbone("cnn-small", SPEC), "cnn-small", SPEC).copied
    assert domain_of(tmp_path / "run", "cnn-small", SPEC) == domain_of(tmp_path / "run" / "model", "cnn-small", SPEC)
    for name, files, message in (("empty", [], r"is not a headstart model"), ("begun", ["request.json"], r"not ended"),
                                 ("torn", ["config.json"], r"lacks its weights")):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("{}")
        for ask in (identity, domain_of):
            with pytest.raises(HeadstartError, match=message):
                ask(tmp_path / name, "cnn-small", SPEC)
        with pytest.raises(HeadstartError, match=message):
            load_into(tmp_path / name, build_backbone("cnn-small", SPEC), "cnn-small", SPEC)


def test_an_own_vit_moves_to_another_volume(tmp_path: Path) -> None:
    trained, net = own_folder(tmp_path, "vit-mini", "4mm"), build_backbone("vit-mini", LARGER, seed=1)
    report = load_into(tmp_path, net, "vit-mini", LARGER)
    assert report.adapted == {"pos_embed": ("positions from a 5×6×5 grid",)}
    assert torch.equal(net.pos_embed[:, :1], trained["pos_embed"][:, :1])
    assert report.parameters[0] == report.parameters[1]


def test_an_own_model_of_another_backbone_is_refused(tmp_path: Path) -> None:
    own_folder(tmp_path, "cnn-small", "4mm")
    with pytest.raises(HeadstartError, match="holds a 'cnn-small', not a 'vit-mini'"):
        load_into(tmp_path, build_backbone("vit-mini", SPEC), "vit-mini", SPEC)


def test_a_shipped_start_is_found_by_backbone_and_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_STARTS", str(tmp_path))
    with pytest.raises(HeadstartError, match="There are: none"):
        load_into("synthetic-mri", build_backbone("cnn-small", SPEC), "cnn-small", SPEC)
    folder = tmp_path / "synthetic-mri" / "cnn-small-4mm"
    folder.mkdir(parents=True)
    trained, net = own_folder(folder, "cnn-small", "4mm"), build_backbone("cnn-small", SPEC, seed=1)
    load_into("synthetic-mri", net, "cnn-small", SPEC)
    assert all(torch.equal(value, trained[key]) for key, value in net.state_dict().items())


def test_an_own_model_is_identified_by_its_content(tmp_path: Path) -> None:
    own_folder(tmp_path, "cnn-small", "4mm")
    before = identity(tmp_path, "cnn-small", SPEC)
    assert identity(tmp_path / "model.safetensors", "cnn-small", SPEC) == before
    state = load_file(tmp_path / "model.safetensors")
    save_file({key: value + 1 for key, value in state.items()}, tmp_path / "model.safetensors")
    assert identity(tmp_path, "cnn-small", SPEC) != before
    assert identity("deepbet", "deepbet-encoder", SPEC) == "deepbet"


def user_file(path: Path) -> Path:
    save_file(torch.nn.Linear(3, 4).state_dict(), path)
    return path


def test_a_users_file_needs_a_recipe_that_fits(tmp_path: Path) -> None:
    path, net = user_file(tmp_path / "mine.safetensors"), build_backbone("sfcn", SPEC)
    before = values(net)
    with pytest.raises(HeadstartError, match=r"needs a recipe.*timm-vit"):
        load_into(path, net, "sfcn", SPEC)
    with pytest.raises(HeadstartError, match=r"no weights: feature_extractor.*no place: .*weight"):
        load_into(path, net, "sfcn", SPEC, recipe="sfcn")
    with pytest.raises(HeadstartError, match=r"does not fit the backbone 'sfcn'. Use --backbone resnet18"):
        load_into(path, net, "sfcn", SPEC, recipe="imagenet-resnet18")
    with pytest.raises(HeadstartError, match=r"no upstream is called 'sfnc'.*Did you mean"):
        load_into(path, net, "sfcn", SPEC, recipe="sfnc")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_the_authors_key_names_of_sfcn_load(tmp_path: Path) -> None:
    trained, net = build_backbone("sfcn", SPEC, seed=3), build_backbone("sfcn", SPEC)
    published = {f"module.{key}": value for key, value in trained.state_dict().items()}
    torch.save(published | {"module.classifier.conv_6.weight": torch.ones(40, 64, 1, 1, 1)}, tmp_path / "sfcn.p")
    report = load_into(tmp_path / "sfcn.p", net, "sfcn", SPEC, recipe="sfcn")
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in net.state_dict().items())
    assert list(report.dropped) == ["module.classifier.conv_6.weight"]


def test_what_was_trained_on_several_devices_loads_alike(tmp_path: Path) -> None:
    """torch.nn.DataParallel writes ``module.`` before every key."""
    state = {f"module.{key}": value for key, value in torchvision.models.resnet18().state_dict().items()}
    torch.save(state, tmp_path / "parallel.pth")
    torch.save({key.removeprefix("module."): value for key, value in state.items()}, tmp_path / "plain.pth")
    nets = [build_backbone("resnet18", SPEC) for _ in range(2)]
    for net, name in zip(nets, ("parallel.pth", "plain.pth")):
        load_into(tmp_path / name, net, "resnet18", SPEC, recipe="torchvision-resnet")
    first, second = map(values, nets)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_misspelt_name_gives_the_nearest() -> None:
    with pytest.raises(HeadstartError, match="Did you mean imagenet-vit-tiny"):
        load_into("imagenet-vit-tinny", build_backbone("sfcn", SPEC), "sfcn", SPEC)


def test_every_record_is_complete() -> None:
    names = [upstream.name for upstream in catalogue()]
    assert len(set(names)) == len(names)
    for upstream in catalogue():
        assert set(upstream.backbones) <= set(BACKBONES), upstream.name
        assert upstream.licence
        assert upstream.preprocessing
        assert upstream.recipe is not None or upstream.source is None or isinstance(upstream.source, Shipped)
        assert json.loads(json.dumps(upstream.to_json())) == upstream.to_json()


def test_the_catalogue_is_filtered_by_domain_and_backbone() -> None:
    assert {upstream.domain for upstream in catalogue("video")} == {"video"}
    fits = [upstream.name for upstream in catalogue(backbone="r3d-18")]
    assert "kinetics-r3d18" in fits
    assert "scratch" in fits
    assert "kinetics-mc3-18" not in fits
    with pytest.raises(HeadstartError, match=", ".join(DOMAINS)):
        catalogue("films")


def test_unverified_records_say_so() -> None:
    assert not find("ukb-sfcn").verified
    assert not find("brainiac-vit-base").verified
    assert find("imagenet-efficientnet-lite0").verified


def test_tables_show_every_record_and_every_key() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(catalogue_table(catalogue()))
    console.print(record_table(find("deepbet")))
    net = build_backbone("deepbet-encoder", SPEC)
    report = load_into("deepbet", net, "deepbet-encoder", SPEC)
    console.print(receipt_table(report))
    text = console.export_text()
    assert all(upstream.name in text for upstream in catalogue())
    assert all(key in text for key in (*report.copied, *report.dropped, "OpenNeuro", "unverified"))


def test_the_starts_inside_the_package_stand_first_with_what_they_fit() -> None:
    table = catalogue_table(catalogue())
    names = list(table.columns[0].cells)
    backbones = dict(zip(names, table.columns[1].cells, strict=False))  # a heading fills the first column alone
    shipped = {"synthetic-mri", "procedural-images", "procedural-video", "control"}
    assert set(names[1 : 1 + len(shipped)]) == shipped
    assert {"cnn-small-4mm", "vit-mini-4mm"} <= set(backbones["synthetic-mri"].split())
    assert backbones["real-mri"] == "any"  # none is shipped, and it may be one's own


def test_the_catalogue_can_be_read_at_80_columns() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(catalogue_table(catalogue()))
    text = console.export_text()
    assert "…" not in text
    assert all(f"\n{domain} " in text for domain in ("inside the package", "natural-images", "video", "real-mri"))
    assert re.search(r"^ukb-sfcn .*MIT\? ", text, re.MULTILINE)  # unverified, and any use
    assert re.search(r"^videomae-base .*CC BY-NC 4.0\* ", text, re.MULTILINE)  # verified, not any use


def test_the_receipt_is_one_page_with_every_key(tmp_path: Path) -> None:
    net = build_backbone("deepbet-encoder", SPEC)
    report = replace(load_into("deepbet", net, "deepbet-encoder", SPEC), source="<script>alert(1)</script>")
    write_receipt(tmp_path / "receipt.html", report)
    page = (tmp_path / "receipt.html").read_text()
    assert all(f"<td>{key}</td>" in page for key in (*report.copied, *report.dropped))
    assert "<script" not in page


def test_the_documentation_lists_the_catalogue_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")
    for domain in (*DOMAINS, None):
        assert markdown_table(u for u in catalogue() if u.domain == domain) in page


def test_the_ledger_finds_cohorts_under_their_many_names(tmp_path: Path) -> None:
    openneuro = overlaps(seen_by("deepbet", "cnn-small", SPEC), ["ds002748", "ixi10"])
    assert [(o.dataset, o.certainty) for o in openneuro] == [("ds002748", "possible")]
    biobank = overlaps(seen_by("ukb-sfcn", "cnn-small", SPEC), ["UKB_T1", "ukbiobank-2", "adni"])
    assert [o.dataset for o in biobank] == ["UKB_T1", "ukbiobank-2"]
    assert overlaps(seen_by("imagenet-vit-tiny", "cnn-small", SPEC), ["ds002748", "ADNI"]) == []
    assert overlaps(seen_by("brainiac-vit-base", "cnn-small", SPEC), ["ADNI"])[0].cohort is None
    own_folder(tmp_path, "cnn-small", "4mm")
    found = overlaps(seen_by(tmp_path, "cnn-small", SPEC), ["ds000011", "ds000012"])
    assert [(o.dataset, o.certainty) for o in found] == [("ds000011", "certain")]


def test_an_unknown_ledger_stays_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "real-mri" / "cnn-small-4mm"
    folder.mkdir(parents=True)
    own_folder(folder, "cnn-small", "4mm")
    monkeypatch.setenv("HEADSTART_STARTS", str(tmp_path))
    assert seen_by("real-mri", "cnn-small", SPEC) == ("ds000011",)  # the start itself says more than the record
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"seen": None})
    assert seen_by(folder, "cnn-small", SPEC) is None
    assert seen_by(folder / "model.safetensors", "cnn-small", SPEC) is None
    found = overlaps(None, ["b", "a"])
    assert [(o.dataset, o.cohort) for o in found] == [("a, b", None)]
    assert "not known" in str(found[0])


def test_the_domain_of_weights_is_known_by_name_by_folder_and_by_recipe(tmp_path: Path) -> None:
    assert domain_of("kinetics-r3d18", "r3d-18", SPEC) == "video"
    own_folder(tmp_path, "cnn-small", "4mm")
    assert domain_of(tmp_path, "cnn-small", SPEC) is None
    write_json(tmp_path / "config.json", json.loads((tmp_path / "config.json").read_text()) | {"domain": "real-mri"})
    assert domain_of(tmp_path, "cnn-small", SPEC) == "real-mri"
    assert domain_of_recipe("timm-vit") == "natural-images"
    assert domain_of_recipe("monai-vit-96") is None  # a recipe of no record may have been trained on anything


def test_recipes_are_named_by_their_own_key() -> None:
    assert all(name == recipe.name for name, recipe in RECIPES.items())
