"""Augmentation: each sample depends on its seed alone, geometry is right on analytic volumes, air stays air."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from headstart.brains.augment import (
    CONTROLS,
    HIGHEST,
    LOWEST,
    Augmentation,
    Draw,
    _upsample,
    apply_draw,
    augment,
    blur,
    draw,
    kept_voxels,
    sample_seeds,
    warp,
)
from headstart.brains.volumes import VOLUMES, template
from headstart.errors import HeadstartError

SPEC = VOLUMES["4mm"]
STILL = Augmentation().scaled(0)


@pytest.fixture(scope="module")
def brains() -> torch.Tensor:
    """Six template-like brains, (6, 1, 40, 48, 40), scaled as a store is; left and right differ."""
    t = template("4mm")
    one = torch.from_numpy(np.where(t.brain, (t.t1 - 0.3) / 0.7, 0)).float().clamp(LOWEST, HIGHEST)
    one[25:30, 20:25, 18:22] += 0.3
    return torch.stack([one * (1 + 0.05 * i) for i in range(6)])[:, None]


def coordinates_mm() -> torch.Tensor:
    """(3, X, Y, Z) from the grid's centre."""
    axes = [SPEC.spacing_mm * (torch.arange(size) - (size - 1) / 2) for size in SPEC.shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def deformation_mm(drawn: Draw) -> torch.Tensor:
    """(n, 3, X, Y, Z) where each voxel looks, from the grid's centre."""
    half = torch.tensor([(size - 1) / 2 for size in SPEC.shape])[:, None, None, None]
    return (_upsample(drawn.control, SPEC, CONTROLS) - half) * SPEC.spacing_mm


def interior(spread: torch.Tensor, margin_mm: float = 30.0) -> torch.Tensor:
    half = torch.tensor([SPEC.spacing_mm * (size - 1) / 2 for size in SPEC.shape])
    return (spread.abs() < (half - margin_mm)[:, None, None, None]).all(0)


def test_depends_on_the_seed_and_not_on_the_batch(brains: torch.Tensor) -> None:
    seeds = sample_seeds(1, 2, range(6))
    together = augment(brains, seeds, Augmentation(flip=True))
    alone = torch.cat([augment(brains[i : i + 1], seeds[i : i + 1], Augmentation(flip=True)) for i in range(6)])
    shuffled = augment(brains[[3, 1]], seeds[[3, 1]], Augmentation(flip=True))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(together[[3, 1]], shuffled, atol=1e-5, rtol=0)
    assert torch.equal(together, augment(brains, seeds, Augmentation(flip=True)))


def test_seeds_differ_between_samples_epochs_and_runs() -> None:
    seeds = np.concatenate([sample_seeds(s, e, range(1000)) for s in range(3) for e in range(3)])
    assert len(np.unique(seeds)) == 9000
    np.testing.assert_array_equal(sample_seeds(1, 2, [7, 3]), sample_seeds(1, 2, [3, 7])[::-1])


def test_input_is_left_alone_and_output_changes(brains: torch.Tensor) -> None:
    before = brains.clone()
    changed = augment(brains, sample_seeds(0, 0, range(6)), Augmentation())
    assert torch.equal(brains, before)
    assert ((changed - brains)[brains != 0].abs().mean()) > 0.02


def test_strength_zero_is_the_identity(brains: torch.Tensor) -> None:
    torch.testing.assert_close(augment(brains, range(6), STILL), brains, atol=2e-5, rtol=0)


def test_background_stays_zero_and_the_brain_keeps_its_size_and_range(brains: torch.Tensor) -> None:
    moved = augment(brains, sample_seeds(0, 0, range(6)), Augmentation(flip=True))
    assert not moved[:, 0, ~torch.from_numpy(template("4mm").kept)].any()
    assert (moved[:, :, :2, :2, :2] == 0).all()
    assert moved.min() >= LOWEST
    assert moved.max() <= HIGHEST
    sizes = (moved != 0).sum((1, 2, 3, 4)) / (brains != 0).sum((1, 2, 3, 4))
    assert ((sizes > 0.75) & (sizes < 1.3)).all()
    still = replace(STILL, blur_mm=2.0, noise=0.05, bias=0.4, gamma=0.3)
    in_place = augment(brains, range(6), still)
    assert ((in_place != 0) == (brains != 0)).float().mean() > 0.995


def test_flip_mirrors_left_and_right_exactly(brains: torch.Tensor) -> None:
    out = augment(brains.repeat(4, 1, 1, 1, 1), range(24), replace(STILL, flip=True))
    same = (out - brains.repeat(4, 1, 1, 1, 1)).abs().amax((1, 2, 3, 4)) < 1e-4
    mirrored = (out - brains.repeat(4, 1, 1, 1, 1).flip(2)).abs().amax((1, 2, 3, 4)) < 1e-4
    assert (same ^ mirrored).all()
    assert 3 < mirrored.sum() < 21
    assert not torch.equal(out, augment(brains.repeat(4, 1, 1, 1, 1), range(24), STILL))


def test_affine_part_moves_a_linear_image_exactly() -> None:
    limits = replace(STILL, rotation_degrees=10, translation_mm=6, stretch=0.1)
    drawn = draw([5], SPEC, limits)
    world = coordinates_mm()
    sampled = deformation_mm(drawn)[0]
    inside = interior(world)
    design = torch.cat([world[:, inside], torch.ones(1, int(inside.sum()))]).T.double()
    fitted = torch.linalg.lstsq(design, sampled[:, inside].T.double())
    residual = design @ fitted.solution - sampled[:, inside].T
    assert residual.abs().max() < 1e-3
    linear, shift = fitted.solution[:3].T, fitted.solution[3]
    assert (shift.abs() <= 6 + 1e-3).all()
    assert shift.abs().max() > 0.1
    assert 0.6 < torch.linalg.det(linear) < 1.5
    assert (linear - torch.eye(3)).abs().max() > 0.01


def test_rotation_alone_is_a_rotation() -> None:
    drawn = draw([3], SPEC, replace(STILL, rotation_degrees=15))
    world, inside = coordinates_mm(), interior(coordinates_mm())
    sampled = deformation_mm(drawn)[0][:, inside].T.double()
    linear = torch.linalg.lstsq(world[:, inside].T.double(), sampled).solution
    torch.testing.assert_close(linear @ linear.T, torch.eye(3, dtype=torch.float64), atol=1e-4, rtol=0)
    assert torch.linalg.det(linear) == pytest.approx(1, abs=1e-4)


def test_resampling_is_that_of_grid_sample(brains: torch.Tensor) -> None:
    drawn = draw(range(6), SPEC, replace(Augmentation(), translation_mm=30))  # far enough to look outside
    both = torch.cat([brains, 1 - brains], 1)
    got = warp(both, drawn.control, SPEC)
    half = torch.tensor([SPEC.spacing_mm * (size - 1) / 2 for size in SPEC.shape])
    grid = (deformation_mm(drawn).permute(0, 2, 3, 4, 1) / half).flip(-1)
    wanted = torch.nn.functional.grid_sample(both, grid, align_corners=True)  # zeros outside
    torch.testing.assert_close(got, wanted.flatten(2)[..., kept_voxels(SPEC, got.device)], atol=1e-4, rtol=0)
    assert (wanted[:, 1] == 0).any()


def test_elastic_part_never_folds() -> None:
    drawn = draw(range(4), SPEC, replace(STILL, elastic_mm=Augmentation().elastic_mm))
    sampled = deformation_mm(drawn)
    steps = torch.stack([sampled.diff(dim=axis)[:, :, 2:37, 2:45, 2:37] for axis in (2, 3, 4)], -1)
    jacobian = steps.permute(0, 2, 3, 4, 1, 5) / SPEC.spacing_mm
    determinant = torch.linalg.det(jacobian)[:, 4:-4, 4:-4, 4:-4]
    assert determinant.min() > 0.3
    assert determinant.std() > 0.01


def test_blur_has_the_variance_it_was_asked_for() -> None:
    point = torch.zeros(1, 1, *SPEC.shape)
    point[0, 0, 20, 24, 20] = 1
    spread = blur(point, torch.tensor([0.6]), passes=2)[0, 0]
    along = spread.sum((1, 2))
    place = torch.arange(len(along)) - 20.0
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    assert (along * place**2).sum() == pytest.approx(0.6, abs=1e-4)


def test_bias_field_is_smooth_and_gamma_fixes_white_matter(brains: torch.Tensor) -> None:
    flat = torch.where(brains[:1] != 0, 1.0, 0.0)
    torch.testing.assert_close(augment(flat, [0], replace(STILL, gamma=0.3)), flat, atol=1e-4, rtol=0)
    shaded = augment(flat, [0], replace(STILL, bias=0.4))[0, 0]
    inside = flat[0, 0] != 0
    assert shaded[inside].std() > 0.02
    both = inside[1:] & inside[:-1]
    assert (shaded.diff(dim=0)[both]).abs().max() < 0.1


def test_noise_has_its_strength_and_is_white(brains: torch.Tensor) -> None:
    flat = torch.where(brains != 0, 1.0, 0.0)
    drawn = draw(range(6), SPEC, replace(STILL, noise=0.1))
    drawn = replace(drawn, noise=torch.full((6,), 0.05 / (1 - LOWEST)))
    noise = (apply_draw(flat, drawn) - flat)[:, 0]
    inside = flat[:, 0] != 0
    assert noise[inside].std() == pytest.approx(0.05, rel=0.05)
    one, two = noise[0][inside[0]], noise[1][inside[0]]
    assert abs(torch.corrcoef(torch.stack([one, two]))[0, 1]) < 0.03


def test_unknown_grid_is_an_error_that_names_the_known() -> None:
    with pytest.raises(HeadstartError, match="40×48×40"):
        augment(torch.zeros(1, 1, 8, 8, 8), [0], Augmentation())


def test_control_points_stay_far_from_folding() -> None:
    for spec in VOLUMES.values():
        spacing_mm = min(spec.spacing_mm * (size - 1) / (CONTROLS - 3) for size in spec.shape)
        assert Augmentation().elastic_mm < 0.4 * spacing_mm
