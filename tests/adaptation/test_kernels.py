"""Kernel resizing: identity at the same size, and the pseudo-inverse is exact when enlarging."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.adaptation import ResizeKernel, Target
from headstart.adaptation.interpolation import resize, resize_matrix
from headstart.adaptation.kernels import resize_kernel

SIZES = st.integers(2, 9)


@given(old=SIZES, new=SIZES)
@settings(max_examples=40, deadline=None)
def test_resampling_keeps_constants_and_is_the_identity_at_the_same_size(old: int, new: int) -> None:
    torch.testing.assert_close(resize_matrix(old, new).sum(1), torch.ones(new, dtype=torch.float64))
    torch.testing.assert_close(resize_matrix(old, old), torch.eye(old, dtype=torch.float64), rtol=0, atol=0)


@given(old=st.tuples(SIZES, SIZES, SIZES), grow=st.tuples(*[st.integers(0, 4)] * 3), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_pseudo_inverse_is_exact_when_enlarging(old: tuple, grow: tuple, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    new = tuple(o + g for o, g in zip(old, grow, strict=True))
    kernel = torch.randn(3, 1, *old, generator=generator, dtype=torch.float64)
    patch = torch.randn(1, *old, generator=generator, dtype=torch.float64)
    larger = resize(patch, {1: new[0], 2: new[1], 3: new[2]})
    response = (resize_kernel(kernel, new, "pseudo-inverse") * larger).flatten(1).sum(1)
    torch.testing.assert_close(response, (kernel * patch).flatten(1).sum(1))


def test_pseudo_inverse_shrinks_better_than_plain_resampling() -> None:
    torch.manual_seed(0)
    kernel, patches = torch.randn(8, 1, 16, 16), torch.randn(200, 1, 16, 16)
    smooth = resize(resize(patches, {2: 8, 3: 8}), {2: 16, 3: 16})  # what a coarser scan still holds
    expected = torch.einsum("ochw,nchw->no", kernel, smooth)

    def error(method: str) -> float:
        small = resize_kernel(kernel, (8, 8), method)
        return float((torch.einsum("ochw,nchw->no", small, resize(smooth, {2: 8, 3: 8})) - expected).norm())

    assert error("pseudo-inverse") < 0.8 * error("linear")


@pytest.mark.parametrize("method", ["pseudo-inverse", "linear"])
def test_same_size_passes_the_very_tensor_on(method: str) -> None:
    state = {"w": torch.randn(4, 1, 2, 16, 16)}
    assert ResizeKernel("w", method)(state, Target({"w": (4, 1, 2, 16, 16)}))["w"] is state["w"]


def test_linear_resize_nearly_keeps_the_response_to_a_constant() -> None:
    kernel = torch.rand(4, 1, 2, 16, 16)
    small = resize_kernel(kernel, (8, 8, 8), "linear")
    torch.testing.assert_close(small.flatten(1).sum(1), kernel.flatten(1).sum(1), rtol=0.01, atol=0)


def test_tubelets_become_cubes() -> None:
    state = ResizeKernel("w")({"w": torch.randn(4, 1, 2, 16, 16)}, Target({"w": (4, 1, 8, 8, 8)}))
    assert state["w"].shape == (4, 1, 8, 8, 8)
