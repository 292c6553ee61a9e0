"""Progressive sampling: bilinear by the definition, zero outside, gradients of the forward pass, weights reported."""

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

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


SIZES = st.tuples(st.integers(2, 9), st.integers(2, 9))


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(size=SIZES, seed=st.integers(0, 999))
def test_equals_the_published_mapping_to_the_edges_of_cells(size: tuple[int, int], seed: int) -> None:
    """The published sampler is grid_sample with -1 and 1 at the middles of the outer cells (facts, section 7)."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2, 3, *size, generator=generator)
    extent = torch.tensor(size, dtype=torch.float32)
    points = torch.rand(2, 7, 2, generator=generator) * (extent + 2) - 1.5
    places = (2 * points / (extent - 1) - 1).flip(2)
    read = F.grid_sample(features, places[:, None], mode="bilinear", padding_mode="zeros", align_corners=True)
    torch.testing.assert_close(sample(features, points), read[:, :, 0].mT, atol=1e-5, rtol=1e-4)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(size=SIZES, seed=st.integers(0, 999), shift=st.tuples(st.integers(-2, 2), st.integers(-2, 2)))
def test_moving_map_and_points_together_changes_nothing(
    size: tuple[int, int], seed: int, shift: tuple[int, int]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(1, 2, *size, generator=generator)
    points = torch.rand(1, 6, 2, generator=generator) * torch.tensor(size) - 0.5
    around = F.pad(features, (3, 3, 3, 3))  # outside counts as zero, so zeros around may be added
    moved = around.roll(shift, dims=(2, 3))
    torch.testing.assert_close(
        sample(moved, points + 3 + torch.tensor(shift)), sample(features, points), atol=1e-5, rtol=1e-4
    )


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(size=SIZES, side=st.sampled_from([-1.0, 1.0]), axis=st.integers(0, 1), past=st.floats(0, 1))
def test_a_point_that_leaves_reads_less_and_less_and_then_nothing(
    size: tuple[int, int], side: float, axis: int, past: float
) -> None:
    point = torch.zeros(1, 1, 2)
    point[..., axis] = -past if side < 0 else size[axis] - 1 + past
    point.requires_grad_()
    flat = torch.ones(1, 1, *size)
    read = sample(flat, point)
    assert read.item() == pytest.approx(1 - past, abs=1e-5)
    gone = point.detach().clone()
    gone[..., axis] += side * 1.001
    gone.requires_grad_()
    read = sample(flat, gone)
    (slope,) = torch.autograd.grad(read.sum(), gone)
    assert read.item() == 0
    assert not slope.any()  # nothing calls it back: the offsets' rate must keep points on the map


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(size=SIZES, seed=st.integers(0, 999))
def test_slope_is_that_of_the_plane_between_four_cells(size: tuple[int, int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(1, 1, *size, generator=generator)
    cell = [int(torch.randint(0, extent - 1, (), generator=generator)) for extent in size]
    part = torch.rand(2, generator=generator) * 0.96 + 0.02
    point = (torch.tensor(cell) + part)[None, None].requires_grad_()
    (slope,) = torch.autograd.grad(sample(features, point).sum(), point)
    square = features[0, 0, cell[0] : cell[0] + 2, cell[1] : cell[1] + 2]
    down = (square[1] - square[0]) @ torch.stack([1 - part[1], part[1]])
    across = (square[:, 1] - square[:, 0]) @ torch.stack([1 - part[0], part[0]])
    torch.testing.assert_close(slope[0, 0], torch.stack([down, across]), atol=1e-4, rtol=1e-3)


def test_pictures_of_a_batch_do_not_touch_each_other() -> None:
    features, points = torch.randn(3, 4, 6, 5), torch.rand(3, 7, 2) * 5
    apart = torch.cat([sample(features[number : number + 1], points[number : number + 1]) for number in range(3)])
    assert torch.equal(sample(features, points), apart)
