"""Positions on another grid."""

from __future__ import annotations

import pytest
import torch

from headstart.adaptation import AddSinusoidPositions, JoinSpaceTimePositions, ResizePositions, Target
from headstart.adaptation.positions import resize_positions
from headstart.errors import HeadstartError

WIDTH = 6


def target(grid: tuple[int, ...], prefix: int) -> Target:
    return Target({"pos_embed": (1, prefix + grid[0] * grid[1] * grid[2], WIDTH)}, grid)


def test_the_same_grid_passes_the_very_tensor_on() -> None:
    positions = torch.randn(1, 1 + 24, WIDTH)
    state = ResizePositions((2, 3, 4))({"pos_embed": positions}, target((2, 3, 4), 1))
    assert state["pos_embed"] is positions


def test_positions_of_time_and_plane_add_up() -> None:
    time, plane, first = torch.randn(1, 3, WIDTH), torch.randn(1, 4, WIDTH), torch.randn(1, 1, WIDTH)
    apart = {"pos_embed_temporal": time, "pos_embed_spatial": plane, "pos_embed_class": first}
    joined = JoinSpaceTimePositions()(apart, target((3, 2, 2), 1))
    expected = plane.repeat(1, 3, 1) + time.repeat_interleave(4, 1)  # as the authors have it
    assert torch.equal(joined["pos_embed"], torch.cat([first, expected], 1))
    assert set(joined) == {"pos_embed"}


def test_tokens_before_the_patches_keep_their_positions() -> None:
    positions = torch.randn(1, 5 + 9, WIDTH)
    out = ResizePositions(prefix=5)({"pos_embed": positions}, target((5, 6, 5), 5))["pos_embed"]
    assert out.shape == (1, 5 + 150, WIDTH)
    assert torch.equal(out[:, :5], positions[:, :5])


def test_a_class_token_that_the_source_lacks_stands_at_zero() -> None:
    step = ResizePositions((2, 2, 2), prefix=0)
    out = step({"pos_embed": torch.randn(1, 8, WIDTH)}, target((3, 3, 3), 1))["pos_embed"]
    assert not out[:, 0].any()
    assert out[:, 1:].any(-1).all()


def test_a_2d_table_is_kept_on_average_and_tells_depths_apart() -> None:
    table = torch.randn(5, 6, WIDTH)
    volume = resize_positions(table, (4, 5, 6))
    torch.testing.assert_close(volume.mean(0), table, atol=1e-6, rtol=1e-5)
    assert torch.pdist(volume.flatten(1)).min() > 0.1


def test_time_becomes_x() -> None:
    table = torch.arange(4.0)[:, None, None, None].expand(4, 3, 3, WIDTH)
    volume = resize_positions(table, (8, 3, 3))
    assert (volume.diff(dim=0) >= 0).all()
    assert not volume.diff(dim=1).any()


def test_the_fixed_sinusoids_are_those_of_transformers() -> None:
    from transformers.models.videomae import modeling_videomae as reference

    state = AddSinusoidPositions((2, 3, 4), like="w")({"w": torch.zeros(WIDTH, 1)}, Target({}))
    torch.testing.assert_close(state["pos_embed"], reference.get_sinusoid_encoding_table(24, WIDTH))


def test_a_wrong_number_of_positions_is_named() -> None:
    with pytest.raises(HeadstartError, match="10 positions, which is not 3×3"):
        ResizePositions(prefix=0)({"pos_embed": torch.randn(1, 10, WIDTH)}, target((2, 2, 2), 0))
