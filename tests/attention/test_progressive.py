"""Progressive sampling: bilinear by the definition, zero outside, gradients of the forward pass, weights reported."""

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from sightline.attention import observe
from sightline.attention.progressive import grid_points, sample, sampling_weights


def by_definition(features: Tensor, points: Tensor) -> Tensor:
    """Sums over all cells, one point at a time."""
    batch, channels, height, width = features.shape
    read = torch.zeros(batch, points.shape[1], channels, dtype=features.dtype)
    for item in range(batch):
        for number, (y, x) in enumerate(points[item].tolist()):
            for row in range(height):
                for column in range(width):
                    weight = max(0.0, 1 - abs(y - row)) * max(0.0, 1 - abs(x - column))
                    read[item, number] += weight * features[item, :, row, column]
    return read


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(height=st.integers(1, 6), width=st.integers(1, 7), seed=st.integers(0, 99))
def test_reads_by_the_definition_inside_and_outside(height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 3, height, width, generator=generator)
    points = torch.rand(2, 5, 2, generator=generator) * torch.tensor([height + 3.0, width + 3.0]) - 2
    torch.testing.assert_close(sample(features, points), by_definition(features, points), atol=2e-5, rtol=0)


def test_cells_are_read_as_they_are() -> None:
    features = torch.randn(1, 4, 5, 3)
    points = torch.tensor([[[0.0, 0.0], [4.0, 2.0], [1.0, 2.0], [9.0, 0.0]]])
    read = sample(features, points)[0]
    for number, (row, column) in enumerate(((0, 0), (4, 2), (1, 2))):
        torch.testing.assert_close(read[number], features[0, :, row, column], atol=1e-5, rtol=0)
    assert read[3].abs().max() == 0


def test_gradients_reach_features_and_points_as_the_forward_pass_says() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 2, 5, 6, dtype=torch.float32, requires_grad=True)
    points = (torch.rand(1, 4, 2) * 3.6 + 0.2).requires_grad_()
    weight = torch.randn(1, 4, 2)
    found = torch.autograd.grad((sample(features, points) * weight).sum(), (features, points))
    by_cells = sampling_weights(points.detach(), (5, 6)).transpose(1, 2) @ weight  # (1, cells, channels)
    torch.testing.assert_close(found[0], by_cells.transpose(1, 2).reshape(1, 2, 5, 6), atol=1e-5, rtol=1e-5)
    step = 1e-2
    for number in range(4):
        for axis in range(2):
            moved = torch.zeros(1, 4, 2)
            moved[0, number, axis] = step
            with torch.no_grad():
                ahead, behind = sample(features, points + moved), sample(features, points - moved)
            slope = ((ahead - behind) * weight).sum() / (2 * step)
            if (points[0, number, axis] % 1 - 0.5).abs() < 0.48:  # across a cell's middle the slope jumps
                assert found[1][0, number, axis].item() == pytest.approx(slope.item(), abs=2e-2)


def test_grid_is_even_and_column_by_column() -> None:
    grid = grid_points((2, 3), (8, 12))
    assert grid.tolist() == [[2, 2], [6, 2], [2, 6], [6, 6], [2, 10], [6, 10]]
    published = grid_points((14, 14), (56, 56))
    assert published[:3].tolist() == [[2, 2], [6, 2], [10, 2]]
    with pytest.raises(ValueError, match="at least one point a side, given 0 x 3"):
        grid_points((0, 3), (8, 8))


def test_weights_are_told_only_to_who_listens() -> None:
    features, points = torch.randn(2, 3, 4, 5), torch.tensor([[[1.5, 2.25], [-7.0, 0.0]]]).expand(2, -1, -1)
    told: list[tuple[Tensor, str, str]] = []
    sample(features, points)
    with observe.listen(lambda *given: told.append(given)):
        read = sample(features, points)
    assert len(told) == 1
    weights, kind, name = told[0]
    assert (weights.shape, kind, name) == ((2, 1, 2, 20), "cross", "points")
    torch.testing.assert_close(weights.sum(dim=3), torch.ones(2, 1, 2))
    # inside, the weights are what was read with; outside, zeros were read and all cells count alike
    torch.testing.assert_close(weights[:, 0, :1] @ features.flatten(2).transpose(1, 2), read[:, :1])
    assert read[:, 1].abs().max() == 0
    assert (weights[:, 0, 1] == 1 / 20).all()


def test_half_precision_keeps_the_places() -> None:
    features, points = torch.randn(1, 3, 40, 40), torch.rand(1, 9, 2) * 39
    with torch.autocast("cpu", torch.bfloat16):
        read = sample(features.bfloat16(), points)
    torch.testing.assert_close(read.float(), sample(features.bfloat16().float(), points))
