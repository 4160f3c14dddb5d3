"""Fields and sampling against the plain way to compute them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from headstart.brains.volumes import volume_spec
from headstart.simulation.base import rng_for
from headstart.simulation.fields import CHUNK, kept_voxels, kept_world, sample, sample_sum, smooth_field, smooth_volume
from headstart.simulation.morph import PUSH_LEVELS_MM, Response
from headstart.simulation.scanner import _blurred

SPEC = volume_spec("4mm")
COARSE = volume_spec("2mm")


@pytest.fixture
def bank() -> torch.Tensor:
    return torch.rand(int(np.prod(COARSE.shape)), 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def points() -> torch.Tensor:
    """More than are read at once, some of them off the grid."""
    noise = torch.randn(3, len(kept_voxels(SPEC)), generator=torch.Generator().manual_seed(1))
    return kept_world(SPEC) + 8 * noise


def test_sampling_is_trilinear(bank: torch.Tensor, points: torch.Tensor) -> None:
    got = sample(bank, COARSE, points, 2)
    voxels = (points.numpy() - COARSE.affine[:3, 3:]) / COARSE.spacing_mm
    for channel in (0, 1):
        volume = bank[:, channel].reshape(COARSE.shape).numpy()
        wanted = ndimage.map_coordinates(volume, voxels, order=1, mode="nearest")
        np.testing.assert_allclose(got[channel], wanted, atol=2e-3)  # the last voxel is entered by 0.001 only
    assert points.shape[1] > CHUNK


def test_sums_are_those_of_the_samples(bank: torch.Tensor, points: torch.Tensor) -> None:
    np.testing.assert_allclose(sample_sum(bank, COARSE, points), sample(bank, COARSE, points, 8).sum(1), rtol=1e-5)


def test_bands_of_a_field_add_up() -> None:
    both = smooth_volume(rng_for(0, 0, "a"), SPEC, ((40.0, 2.0), (15.0, 0.5)), 3)
    rng = rng_for(0, 0, "a")
    single = smooth_volume(rng, SPEC, ((40.0, 2.0),), 3) + smooth_volume(rng, SPEC, ((15.0, 0.5),), 3)
    torch.testing.assert_close(both, single, atol=1e-5, rtol=0)


def test_fields_have_the_spread_that_is_asked_for() -> None:
    rng = rng_for(0, 0, "b")
    spread = [smooth_field(rng, SPEC, ((16.0, 1.5),)).square().mean().sqrt().item() for _ in range(8)]
    assert np.mean(spread) == pytest.approx(1.5, rel=0.05)


def test_blur_is_gaussian_along_each_axis() -> None:
    image = torch.rand(20, 24, 18, generator=torch.Generator().manual_seed(2))
    wanted = ndimage.gaussian_filter(image.numpy(), (0.5, 0.8, 1.1), mode="nearest", truncate=2.5)
    np.testing.assert_allclose(_blurred(image, [0.5, 0.8, 1.1]), wanted, atol=5e-3)  # kernels are cut a voxel apart


def test_pushes_reach_volumes_that_squeeze_each_other() -> None:
    own = np.array([-0.6, -0.3, 0.0, 0.25, 0.5, 0.7])
    log_change = np.stack([np.stack([own, -0.1 * own]), np.stack([-0.2 * own, 0.5 * own])])
    response = Response(np.array([10.0, 5.0]), log_change)
    wanted = np.array([12.0, 5.3])
    amounts = response.amounts(wanted)
    got = [sum(np.interp(amounts[j], PUSH_LEVELS_MM, log_change[i, j]) for j in range(2)) for i in range(2)]
    np.testing.assert_allclose(np.exp(got) * response.rest_ml, wanted, rtol=1e-3)
