"""The learned generator at a tiny size: trained, killed and resumed, drawn from, and the published bundle's layout."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.brains.bids import read_bids
from headstart.brains.store import Store
from headstart.errors import HeadstartError
from headstart.simulation import diffusion
from headstart.simulation.base import draw_subject
from headstart.simulation.cohort import write_cohort, write_store
from headstart.simulation.diffusion import CONDITIONS, DiffusionGenerator, Recipe, predicted, read_fitted
from headstart.simulation.diffusion_fit import CHECKPOINT, _describe, _Training, fit, measured_conditions

ROOT = Path(__file__).resolve().parents[2]
TINY = Recipe(channels=(2, 4), latent_channels=3, unet_channels=(4, 4), unet_attention=(False, True), head_channels=4,
              groups=2, autoencoder_steps=3, autoencoder_batch=1, diffusion_steps=4, diffusion_batch=1,
              sampling_steps=2, checkpoint_every=2)
QUICK = {"progress": False, "generator": "diffusion", "volume": "4mm"}


@pytest.fixture(scope="module")
def model(toy_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(toy_store, tmp_path_factory.mktemp("model"), TINY, progress=False)


def test_conditions_are_true_of_the_images(toy_store: Path):
    indices, conditions = measured_conditions(Store.open(toy_store))
    assert len(indices) == 32, "the scan without an age is left out"
    assert conditions.shape == (32, len(CONDITIONS))
    assert np.corrcoef(conditions[:, 1], conditions[:, 3])[0, 1] < -0.5, "grey matter darkens with age in this store"


def test_a_killed_training_ends_in_the_same_weights(model: Path, toy_store: Path, tmp_path: Path):
    def die(at: str, step: int):
        def on_step(phase: str, done: int) -> None:
            if (phase, done) == (at, step):
                raise KeyboardInterrupt
        return on_step

    for at, step in (("autoencoder", 3), ("diffusion", 3)):
        with pytest.raises(KeyboardInterrupt):
            fit(toy_store, tmp_path, TINY, progress=False, on_step=die(at, step))
    assert (tmp_path / CHECKPOINT).exists()
    fit(toy_store, tmp_path, TINY, progress=False)
    for name in ("diffusion.safetensors", "diffusion.json"):
        assert (tmp_path / name).read_bytes() == (model / name).read_bytes()
    assert not (tmp_path / CHECKPOINT).exists()


def test_another_training_is_not_gone_on_with(toy_store: Path, tmp_path: Path):
    def die(phase: str, done: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(toy_store, tmp_path, TINY, progress=False, on_step=die)
    with pytest.raises(HeadstartError, match="another training"):
        fit(toy_store, tmp_path, TINY, seed=1, progress=False)


def test_people_are_drawn_the_same_in_any_store(model: Path, tmp_path: Path):
    few = Store.open(write_store(tmp_path / "few", n=2, seed=5, model=model, **QUICK))
    more = Store.open(write_store(tmp_path / "more", n=3, seed=5, model=model, **QUICK))
    assert np.array_equal(few.rows([0, 1]), more.rows([0, 1]))
    assert not np.array_equal(more.rows([0]), more.rows([2]))
    low, high = read_fitted(model).low, read_fitted(model).high
    for stored in more.scans:
        scan = stored.scan
        assert scan.simulated
        assert low[1] - 0.1 <= scan.age_years <= high[1] + 0.1
        assert low[3] <= float(scan.columns["brain_volume"]) <= high[3] + 1e-3


def test_it_writes_bids_as_well(model: Path, tmp_path: Path):
    cohort = read_bids([write_cohort(tmp_path / "bids", n=2, seed=5, model=model, **QUICK)])
    assert [set(scan.columns) for scan in cohort] == [{"ventricular_volume", "brain_volume"}] * 2
    assert all(scan.simulated and scan.sex and scan.age_years for scan in cohort)


def test_what_conditions_say_of_a_latent_is_taken_out_and_put_back(toy_store: Path):
    store = Store.open(toy_store)
    indices, conditions = measured_conditions(store)
    training = _Training(store, indices, _describe(store, indices, conditions, TINY), conditions, 0)
    training._encode()
    told = training.fitted.scaled(conditions)
    torch.testing.assert_close(told.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    whole = (training.latents * training.latent_sd + training.latent_mean
             + torch.tensordot(told, training.latent_slope, 1))
    with torch.no_grad():
        expected = training.networks["autoencoder"].encode(training._patches(np.arange(len(indices))))[0]
    torch.testing.assert_close(whole, expected, atol=1e-4, rtol=1e-3)
    left = (told.T @ training.latents.flatten(1)) / len(told)
    before = (told.T @ ((expected - training.latent_mean) / training.latent_sd).flatten(1)) / len(told)
    assert left.abs().mean() < 0.2 * before.abs().mean()


def test_people_have_volumes_that_go_together_as_in_the_training_set(model: Path):
    """Where ventricles are large, brains are small: a pair that never occurs cannot be drawn well."""
    fitted = read_fitted(model).model_copy(update={"residual_r": -0.8, "low": (0.0, 18.0, -1e9, -1e9),
                                                   "high": (1.0, 90.0, 1e9, 1e9)})
    people = [draw_subject(3, index) for index in range(400)]
    asked = np.array([list(fitted.conditions(person).values())[2:] for person in people])
    design = np.array([[1, person.age, person.sex == "M"] for person in people], float)
    residuals = asked - design @ np.asarray(fitted.expected).T
    assert np.corrcoef(residuals.T)[0, 1] == pytest.approx(-0.8, abs=0.06)
    np.testing.assert_allclose(residuals.std(0), fitted.residual_sd, rtol=0.12)


def test_the_fit_knows_how_volumes_go_together(toy_store: Path):
    store = Store.open(toy_store)
    indices, conditions = measured_conditions(store)
    conditions[:, 3] = 1300 - 2 * conditions[:, 2] + conditions[:, 1]
    conditions[:, 2] += np.random.default_rng(0).standard_normal(len(conditions)) * 1e-3
    assert _describe(store, indices, conditions, TINY).residual_r < -0.9


class _Knowing(torch.nn.Module):
    """Answers with the true v of a latent that is the ventricular condition everywhere."""

    def forward(self, given: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        from monai.networks.schedulers import DDPMScheduler

        kept = DDPMScheduler(**TINY.schedule()).alphas_cumprod[timesteps].reshape(-1, 1, 1, 1, 1)
        clean = context[:, 0, 2].reshape(-1, 1, 1, 1, 1)
        latent = given[:, :-len(CONDITIONS)]
        return (kept.sqrt() * latent - clean) / (1 - kept).sqrt()


def test_drawing_inverts_what_training_does(model: Path):
    """From any noise, a network that knows v leads to the latent that its condition names: no sign, order or step
    is turned round."""
    whole, noise = diffusion._model(model), torch.Generator().manual_seed(1)
    for asked in (-0.7, 0.2, 1.5):
        drawn = replace(whole, unet=_Knowing()).draw(torch.randn(whole.latent_shape, generator=noise),
                                                     torch.tensor([9.0, -9.0, asked, 5.0]))
        torch.testing.assert_close(drawn, torch.full_like(drawn, asked), atol=0.02, rtol=0)


class _Ball(torch.nn.Module):
    """Decodes to a bright ball with a ventricle that is darker than the background's border."""

    def decode_stage_2_outputs(self, latent: torch.Tensor) -> torch.Tensor:
        from monai.networks.utils import pixelunshuffle

        far = torch.linspace(-1, 1, 40)[:, None, None]**2 + torch.linspace(-1, 1, 48)[None, :, None]**2 \
            + torch.linspace(-1, 1, 40)**2
        image = torch.where(far > 0.3, diffusion.OUTSIDE, torch.where(far < 0.02, -0.8, 0.7))
        return pixelunshuffle(image[None, None], 3, TINY.patch)


def test_a_dark_ventricle_is_no_hole(model: Path):
    whole = diffusion._model(model)
    image = replace(whole, autoencoder=_Ball()).decode(torch.zeros(whole.latent_shape)[None], torch.zeros(4))
    assert image[20, 24, 20] == -0.5
    assert image[0, 0, 0] == 0


def test_a_network_listens_to_its_conditions():
    """What is predicted depends on each condition, by both ways in."""
    torch.manual_seed(0)
    unet = TINY.networks()[1]
    for parameter in unet.parameters():  # MONAI starts its last layers at zero
        torch.nn.init.normal_(parameter, std=0.1)
    latent, step = torch.randn(1, 3, 4, 4, 4), torch.tensor([10])
    plain = predicted(unet, latent, step, torch.zeros(1, 4))
    assert all(not torch.allclose(plain, predicted(unet, latent, step, torch.eye(4)[i:i + 1])) for i in range(4))


def test_what_has_learnt_nothing_draws_latents_of_the_right_spread(model: Path):
    """MONAI's networks answer zero at first, and v is zero where nothing is known; noise is not."""
    whole = diffusion._model(model)
    recipe = TINY.model_copy(update={"sampling_steps": 20})
    for prediction, low, high in (("v_prediction", 0.85, 1.01), ("epsilon", 10, np.inf)):
        fitted = whole.fitted.model_copy(update={"recipe": recipe.model_copy(update={"prediction": prediction})})
        drawn = replace(whole, fitted=fitted, unet=TINY.networks()[1].eval()).draw(
            torch.randn(whole.latent_shape, generator=torch.Generator().manual_seed(0)), torch.zeros(4))
        assert low < float(drawn.std()) < high


@pytest.mark.parametrize(("wrong", "problem"), [
    ({"generator": "diffusion"}, "belong together"), ({"model": Path("nowhere"), "generator": "diffusion"}, "finished"),
    ({"model": Path("nowhere")}, "belong together")])
def test_bad_requests_are_refused(tmp_path: Path, wrong, problem):
    with pytest.raises(HeadstartError, match=problem):
        write_store(tmp_path / "out", n=2, volume="4mm", progress=False, **wrong)
    assert not (tmp_path / "out").exists()


def test_another_grid_and_a_disease_are_refused(model: Path, tmp_path: Path):
    with pytest.raises(HeadstartError, match="Give --volume 4mm"):
        write_store(tmp_path, n=2, progress=False, generator="diffusion", model=model, volume="2mm")
    with pytest.raises(HeadstartError, match="no diseases"):
        write_store(tmp_path, n=2, model=model, cohort="ad", **QUICK)


@pytest.mark.parametrize("name", ["diffusion-small.yaml", "diffusion-published.yaml"])
def test_recipes_are_read(name: str, tmp_path: Path):
    assert Recipe.read(ROOT / "configs" / name).channels
    assert Recipe.read(ROOT / "configs" / "diffusion-small.yaml") == Recipe()
    (tmp_path / "bad.yaml").write_text("chanels: [8]\n")
    with pytest.raises(HeadstartError, match="not a recipe"):
        Recipe.read(tmp_path / "bad.yaml")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The bundle's layout with networks that are small; expressions in its configuration must never run."""
    autoencoder, unet = TINY.model_copy(update={"upsampling": "whole", "patch": 1, "channels": (2, 4, 4)}).networks()
    config = {
        "imports": ["$import os"], "evil": "$open('ran', 'w')",
        "autoencoder_def": {"_target_": "monai.networks.nets.AutoencoderKL", "spatial_dims": 3, "in_channels": 1,
                            "out_channels": 1, "latent_channels": 3, "channels": [2, 4, 4], "num_res_blocks": 1,
                            "norm_num_groups": 2, "attention_levels": [False, False, False],
                            "with_encoder_nonlocal_attn": False, "with_decoder_nonlocal_attn": False},
        "diffusion_def": {"_target_": "monai.networks.nets.DiffusionModelUNet", "spatial_dims": 3, "in_channels": 7,
                          "out_channels": 3, "channels": [4, 4], "num_res_blocks": 1, "attention_levels": [False, True],
                          "norm_num_groups": 2, "resblock_updown": True, "num_head_channels": [0, 4],
                          "with_conditioning": True, "transformer_num_layers": 1, "cross_attention_dim": 4},
        "scheduler": {"_target_": "monai.networks.schedulers.DDIMScheduler", "_requires_": ["@load_diffusion"],
                      "beta_start": 0.0015, "beta_end": 0.0205, "num_train_timesteps": 1000,
                      "schedule": "scaled_linear_beta", "clip_sample": False}}
    folder = tmp_path / "bundle"
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    torch.save(autoencoder.state_dict(), folder / "models" / "autoencoder.pt")
    torch.save(unet.state_dict(), folder / "models" / "model.pt")
    return folder


def test_the_published_bundle_loads_by_its_own_configuration(bundle: Path, tmp_path: Path, monkeypatch):
    from headstart.simulation.base import draw_subject

    model = diffusion._model(bundle)
    monkeypatch.chdir(tmp_path)
    assert model.latent_shape == (3, 20, 28, 20)
    assert model.fitted.recipe.timesteps == 1000
    subject = draw_subject(0, 0, ages=diffusion.trained_ages(bundle))
    conditions = model.fitted.conditions(subject)
    assert 44 <= conditions["age"] <= 82
    told = model.fitted.scaled(np.array([conditions[name] for name in CONDITIONS]))
    assert bool(((told >= 0) & (told <= 1)).all())
    assert np.isfinite(model.decode(torch.randn(1, 3, 4, 4, 4), told).numpy()).all()
    assert DiffusionGenerator(bundle).affine()[0, 0] == -1
    assert not (tmp_path / "ran").exists()
    with pytest.raises(HeadstartError, match="headstart prepare"):
        write_store(tmp_path / "store", n=1, model=bundle, **QUICK)


def test_a_bundle_of_something_else_is_refused(bundle: Path):
    from headstart.simulation.diffusion_bundle import load_bundle

    (bundle / "models" / "model.pt").write_bytes(b"not weights")
    with pytest.raises(HeadstartError, match="does not fit"):
        load_bundle(bundle)
    (bundle / "configs" / "inference.json").write_text('{"autoencoder_def": {}}')
    with pytest.raises(HeadstartError, match="not the bundle's configuration"):
        load_bundle(bundle)


def test_a_finished_model_of_another_training_is_not_given_for_this_one(model: Path, toy_store: Path, tmp_path: Path):
    before = (model / "diffusion.safetensors").stat().st_mtime_ns
    assert fit(toy_store, model, TINY, progress=False) == model
    with pytest.raises(HeadstartError, match="another training, of another seed"):
        fit(toy_store, model, TINY, seed=1, progress=False)
    with pytest.raises(HeadstartError, match="another training, of another recipe"):
        fit(toy_store, model, TINY.model_copy(update={"blocks": 2}), progress=False)
    assert (model / "diffusion.safetensors").stat().st_mtime_ns == before
    older = shutil.copytree(model, tmp_path / "older")
    (older / "training.json").unlink()
    assert fit(toy_store, older, TINY, seed=1, progress=False) == older


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b""])
def test_weights_that_were_changed_are_refused_before_anything_is_written(model: Path, tmp_path: Path, damage):
    copy = shutil.copytree(model, tmp_path / "model")
    weights = copy / "diffusion.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(HeadstartError, match=r"diffusion\.safetensors: is not the file.*SHA-256"):
        write_store(tmp_path / "out", n=2, model=copy, **QUICK)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("text", "problem"), [
    (b"groups: 3", "multiples of groups, 3"), (b"checkpoint_every: 0", "checkpoint_every"),
    (b"autoencoder_steps: -1", "autoencoder_steps"), (b"head_channels: 24", "head_channels, 24"),
    (b"unet_attention: [true]", "unet_attention"), (b"blocks: \xff", "utf-8")])
def test_recipes_that_make_no_sense_are_refused(tmp_path: Path, text: bytes, problem: str):
    (tmp_path / "bad.yaml").write_bytes(text)
    with pytest.raises(HeadstartError, match=rf"bad\.yaml: is not a recipe \(.*{problem}"):
        Recipe.read(tmp_path / "bad.yaml")
