"""Position formulas term by term, resize rules against independent references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sightline.blocks.positions import (
    RESIZE,
    GridPositions,
    LearnedPositions,
    resize_dino,
    resize_dinov2_registers,
    resize_jax,
    resize_timm,
    resize_transformers,
    sinusoidal_concatenated,
    sinusoidal_interleaved,
)


@given(st.integers(1, 20), st.integers(1, 17))
def test_interleaved_sinusoids_term_by_term(length: int, dim: int) -> None:
    table = sinusoidal_interleaved(length, dim)
    for p in (0, length // 2, length - 1):
        for column in range(dim):
            angle = p / 10000 ** (column // 2 * 2 / dim)
            wanted = math.cos(angle) if column % 2 else math.sin(angle)
            assert table[p, column].item() == pytest.approx(wanted, abs=1e-5)


@given(st.integers(1, 20), st.integers(2, 17))
def test_concatenated_sinusoids_term_by_term(length: int, dim: int) -> None:
    table = sinusoidal_concatenated(length, dim)
    waves = dim // 2
    for p in (0, length // 2, length - 1):
        for i in range(waves):
            angle = p / 10000 ** (i / max(waves - 1, 1))
            assert table[p, i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[p, waves + i].item() == pytest.approx(math.cos(angle), abs=1e-5)
        if dim % 2:
            assert table[p, -1] == 0


def test_bad_lengths_are_refused() -> None:
    for build in (sinusoidal_interleaved, sinusoidal_concatenated):
        with pytest.raises(ValueError, match="length"):
            build(0, 8)
    positions = LearnedPositions(length=3, dim=4)
    assert torch.equal(positions(torch.zeros(1, 2, 4))[0], positions.table[:2])
    with pytest.raises(ValueError, match="4 tokens, but only 3"):
        positions(torch.zeros(1, 4, 4))


def cubic(distance: float, a: float) -> float:
    """Keys' cubic convolution kernel."""
    x = abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def bicubic_matrix(old: int, new: int, scale: float) -> Tensor:
    """Weights (new, old) of a cubic resize (a = -0.75, edges repeated) whose samples lie `scale` apart."""
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        centre = (i + 0.5) * scale - 0.5
        for j in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[i, min(max(j, 0), old - 1)] += cubic(centre - j, -0.75)
    return matrix


def antialias_matrix(old: int, new: int) -> Tensor:
    """Weights of a cubic resize (a = -0.5) whose kernel widens where the grid shrinks."""
    scale, matrix = old / new, torch.zeros(new, old, dtype=torch.float64)
    widening = max(scale, 1.0)
    for i in range(new):
        centre = (i + 0.5) * scale
        for j in range(old):
            matrix[i, j] = cubic((j + 0.5 - centre) / widening, -0.5)
    return matrix / matrix.sum(dim=1, keepdim=True)


def separable(grid: Tensor, down: Tensor, across: Tensor) -> Tensor:
    return torch.einsum("rh,cw,hwd->rcd", down, across, grid.double()).float()


SIZES = st.tuples(st.integers(2, 9), st.integers(2, 9), st.integers(1, 12), st.integers(1, 12))


@settings(deadline=None, max_examples=30)
@given(SIZES)
def test_transformers_rule_is_plain_bicubic(sizes: tuple[int, int, int, int]) -> None:
    height, width, rows, columns = sizes
    grid = torch.randn(height, width, 3)
    down = bicubic_matrix(height, rows, height / rows)
    across = bicubic_matrix(width, columns, width / columns)
    expected = separable(grid, down, across)
    torch.testing.assert_close(resize_transformers(grid, rows, columns), expected, atol=2e-5, rtol=0)


@settings(deadline=None, max_examples=30)
@given(SIZES)
def test_dino_rule_samples_by_its_scale_factor(sizes: tuple[int, int, int, int]) -> None:
    height, width, rows, columns = sizes
    grid = torch.randn(height, width, 3)
    down = bicubic_matrix(height, rows, height / (rows + 0.1))
    across = bicubic_matrix(width, columns, width / (columns + 0.1))
    expected = separable(grid, down, across)
    torch.testing.assert_close(resize_dino(grid, rows, columns), expected, atol=5e-5, rtol=0)


@settings(deadline=None, max_examples=30)
@given(SIZES)
def test_timm_rule_is_antialiased_bicubic(sizes: tuple[int, int, int, int]) -> None:
    height, width, rows, columns = sizes
    grid = torch.randn(height, width, 3)
    expected = separable(grid, antialias_matrix(height, rows), antialias_matrix(width, columns))
    torch.testing.assert_close(resize_timm(grid, rows, columns), expected, atol=5e-5, rtol=0)
    assert torch.equal(resize_dinov2_registers(grid, rows, columns), resize_timm(grid, rows, columns))


@settings(deadline=None, max_examples=30)
@given(SIZES)
def test_jax_rule_is_scipys_zoom(sizes: tuple[int, int, int, int]) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    height, width, rows, columns = sizes
    grid = torch.rand(height, width, 3)  # of numbers above 2 the rounding of float32 alone reaches the bound
    expected = ndimage.zoom(grid.double().numpy(), (rows / height, columns / width, 1), order=1)
    assert expected.shape[:2] == (rows, columns)
    np.testing.assert_allclose(resize_jax(grid, rows, columns).numpy(), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("rule", list(RESIZE))
def test_half_precision_is_resized_in_float32(rule: str) -> None:
    grid = torch.randn(5, 4, 6).bfloat16()
    assert torch.equal(RESIZE[rule](grid, 7, 3), RESIZE[rule](grid.float(), 7, 3).bfloat16())


@pytest.mark.parametrize("rule", list(RESIZE))
def test_the_trained_size_gives_the_table_itself(rule: str) -> None:
    positions = GridPositions(image_size=(24, 40), patch=8, dim=6, prefix=2, rule=rule)
    assert positions.grid == (3, 5)
    assert positions(24, 40) is positions.table
    assert positions(47, 33).shape == (1, 2 + 5 * 4, 6)
    assert torch.equal(positions(47, 33)[:, :2], positions.table[:, :2])


def test_dino_resizes_a_grid_of_the_same_size_for_an_image_that_is_not_square() -> None:
    positions = GridPositions(image_size=(32, 32), patch=8, dim=6, rule="dino")
    assert positions(32, 32) is positions.table
    assert positions(33, 33) is positions.table
    assert (positions(32, 35) - positions.table).abs().max() > 1e-4


def test_unknown_rules_and_images_without_a_patch_are_refused() -> None:
    with pytest.raises(ValueError, match="given 'nearest'"):
        GridPositions(image_size=(8, 8), patch=4, dim=2, rule="nearest")
    with pytest.raises(ValueError, match="no patch of 16"):
        GridPositions(image_size=(32, 8), patch=16, dim=2)
