"""Patches are cut row by row and mapped linearly."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.blocks.patches import PatchEmbedding


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 4), st.integers(0, 4))
def test_equals_cutting_and_a_matrix(patch: int, rows: int, columns: int, down: int, right: int) -> None:
    torch.manual_seed(0)
    embedding = PatchEmbedding(patch=patch, dim=6)
    images = torch.randn(2, 3, rows * patch + down % patch, columns * patch + right % patch)
    matrix, bias = embedding.project.weight.flatten(1), embedding.project.bias
    expected = [
        images[:, :, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch].flatten(1) @ matrix.T + bias
        for r in range(rows)
        for c in range(columns)
    ]
    assert embedding.grid(images) == (rows, columns)
    torch.testing.assert_close(embedding(images), torch.stack(expected, dim=1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(1, 3, 7, 16), (1, 3, 16, 7), (1, 1, 16, 16), (1, 4, 16, 16)])
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="3 channels and sides of 8 pixels"):
        PatchEmbedding(patch=8, dim=4)(torch.zeros(shape))
