"""Localisation measures on cases worked out by hand, and their properties."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sightline.lens.regions import highest
from sightline.metrics.localisation import (
    attention_box,
    attention_correctness,
    attention_jaccard,
    corloc,
    energy_pointing_game,
    largest_component,
    pointing_game,
)


def box(height: int, width: int, rows: slice, columns: slice) -> Tensor:
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[rows, columns] = True
    return mask


def point(height: int, width: int, y: int, x: int) -> Tensor:
    heat = torch.zeros(height, width)
    heat[y, x] = 1
    return heat


# ------------------------------------------------------------------------------------------------ pointing game


def test_pointing_with_and_without_tolerance() -> None:
    objects = box(40, 60, slice(10, 20), slice(30, 40))[None].expand(4, -1, -1).clone()
    heat = torch.stack([point(40, 60, 15, 35), point(40, 60, 15, 44), point(40, 60, 15, 45), point(40, 60, 0, 0)])
    assert pointing_game(heat, objects, tolerance=0).each.tolist() == [1, 0, 0, 0]
    assert pointing_game(heat, objects, tolerance=5).each.tolist() == [1, 1, 0, 0]
    assert pointing_game(heat, objects, tolerance=6).each.tolist() == [1, 1, 1, 0]
    diagonal = torch.stack([point(40, 60, 22, 43), point(40, 60, 23, 43)])  # 3, 4 away and 4, 4 away
    assert pointing_game(diagonal, objects[:2], tolerance=5).each.tolist() == [1, 0]
    result = pointing_game(heat, objects, tolerance=0)
    assert result.value == 0.25
    assert result.area == pytest.approx(100 / 2400)
    assert result.centre == 0.0
    assert pointing_game(heat, objects, tolerance=1).centre == 1.0  # (20, 30) is one row below


def test_area_baseline_counts_the_tolerance() -> None:
    objects = point(9, 9, 4, 4)[None].bool()
    assert pointing_game(objects.float(), objects, tolerance=1).area == pytest.approx(5 / 81)
    assert pointing_game(objects.float(), objects, tolerance=2).area == pytest.approx(13 / 81)


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    radius=st.sampled_from([0, 1, 2.5, 15]),
    seed=st.integers(0, 50),
)
def test_flat_maps_score_the_area_in_every_game(height: int, width: int, radius: int | float, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    objects = torch.rand(2, height, width, generator=draw) < 0.4
    objects[:, 0, 0] = True
    flat = torch.ones(2, 3, 4)
    for result in (
        pointing_game(flat, objects, tolerance=radius),
        energy_pointing_game(flat, objects),
        attention_correctness(flat, objects),
    ):
        assert result.value == pytest.approx(result.area, abs=1e-5)
    y, x = (torch.arange(n).float() for n in (height, width))
    for one, near in zip(objects, _near(objects, y, x, radius), strict=True):
        assert pointing_game(flat[:1], one[None], tolerance=radius).area == pytest.approx(float(near.float().mean()))


def _near(objects: Tensor, y: Tensor, x: Tensor, radius: float) -> list[Tensor]:
    """Euclidean dilation by all distances."""
    result = []
    for one in objects:
        on = one.nonzero().float()
        away = ((y[:, None, None] - on[:, 0]) ** 2 + (x[None, :, None] - on[:, 1]) ** 2).amin(-1)
        result.append(away <= radius**2)
    return result


# ------------------------------------------------------------------------------------------ energy, correctness


def test_energy_by_hand() -> None:
    heat = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [0.0, 0.0]]])
    objects = torch.tensor([[[False, True], [False, True]], [[True, False], [False, False]]])
    result = energy_pointing_game(heat, objects)
    assert torch.allclose(result.each, torch.tensor([0.6, 1.0]))
    assert result.value == pytest.approx(0.8)
    assert result.area == pytest.approx(3 / 8)
    assert result.centre == pytest.approx(3 / 8)  # four equal quarters
    assert str(result) == "0.800 (area 0.375, centre 0.375; 2 images)"


def test_correctness_spreads_a_cell_over_its_pixels() -> None:
    attention = torch.tensor([[[0.75, 0.25]]])
    region = box(4, 8, slice(0, 4), slice(2, 6))[None]  # half of each cell
    assert attention_correctness(attention, region).value == pytest.approx(0.5)
    region = box(4, 8, slice(0, 2), slice(0, 4))[None]
    assert attention_correctness(attention, region).value == pytest.approx(0.375)
    assert attention_correctness(4 * attention, region).value == pytest.approx(0.375)


def test_centre_baseline_prefers_the_middle() -> None:
    middle = box(16, 24, slice(4, 12), slice(6, 18))[None]
    corner = box(16, 24, slice(0, 8), slice(0, 12))[None]
    flat = torch.ones(1, 4, 4)
    assert energy_pointing_game(flat, middle).centre > 2 * energy_pointing_game(flat, middle).area
    assert energy_pointing_game(flat, corner).centre == pytest.approx(0.25)


# ---------------------------------------------------------------------------------------------------- jaccard


def published_mask(attention: Tensor, keep: float) -> Tensor:
    """The published recipe: drop the lowest weights while their running sum stays within 1 - keep."""
    values, order = attention.flatten(1).double().sort()
    running = (values / values.sum(1, keepdim=True)).cumsum(1)
    return (running > 1 - keep).gather(1, order.argsort(1)).view_as(attention)


@settings(max_examples=30, deadline=None)
@given(heads=st.integers(1, 6), height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 99))
def test_top_mass_is_the_published_mask(heads: int, height: int, width: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    attention = torch.randn(heads, height * width, generator=draw).softmax(-1).view(heads, height, width)
    assert torch.equal(highest(attention, mass=0.6), published_mask(attention, 0.6))


def test_jaccard_takes_the_best_head_then_objects_then_images() -> None:
    left, right = box(4, 4, slice(0, 4), slice(0, 2)), box(4, 4, slice(0, 4), slice(2, 4))
    top = box(4, 4, slice(0, 1), slice(0, 4))
    heads = torch.stack([left[::2, ::2].float(), torch.tensor([[1.0, 1.0], [0.0, 0.0]])])  # 2 x 2 cells: left, upper
    result = attention_jaccard([heads, heads[1:]], [torch.stack([left, right]), top[None]], keep=0.9)
    # image 1: left = 1 by the first head, right = 4 of 12 by the second; image 2: 4 of 8 pixels
    assert torch.allclose(result.each, torch.tensor([(1 + 1 / 3) / 2, 0.5]))
    assert result.value == pytest.approx((2 / 3 + 0.5) / 2)
    assert result.mean_head == pytest.approx(((1 + 1 / 3 + 0 + 1 / 3) / 4 + 0.5) / 2)
    assert result.area == pytest.approx((0.5 + 0.25) / 2)
    assert result.centre == pytest.approx((0.5 + 0.25) / 2)  # four equal cells, all needed for 90 %
    assert "mean head" in str(result)


def test_jaccard_of_stacked_tensors_and_refusals() -> None:
    attention, objects = torch.rand(3, 2, 4, 6), torch.rand(3, 2, 16, 24) < 0.5
    result = attention_jaccard(attention, objects)
    assert 0 <= result.mean_head <= result.value <= 1
    with pytest.raises(ValueError, match="one for each"):
        attention_jaccard(attention[:2], objects)
    with pytest.raises(ValueError, match="hold no object"):
        attention_jaccard(attention, torch.zeros_like(objects))
    with pytest.raises(ValueError, match="heat >= 0"):
        attention_jaccard(-attention, objects)


# ----------------------------------------------------------------------------------------------------- corloc


def test_components_join_along_edges_only() -> None:
    mask = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 0]]).bool()
    expected = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 1, 1, 1], [0, 0, 1, 0, 1], [0, 0, 0, 0, 0]]).bool()
    assert torch.equal(largest_component(mask), expected)
    assert not largest_component(torch.zeros(3, 3, dtype=torch.bool)).any()
    ring = box(5, 5, slice(0, 5), slice(0, 5))
    ring[1:4, 1:4] = False
    assert torch.equal(largest_component(ring), ring)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 8), width=st.integers(1, 8), seed=st.integers(0, 99))
def test_a_component_is_closed_and_largest(height: int, width: int, seed: int) -> None:
    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < 0.5
    left, sizes = mask.clone(), []
    while left.any():
        part = largest_component(left)
        assert bool((part & ~left).sum() == 0)
        wide = torch.nn.functional.pad(part, (1, 1, 1, 1))
        beside = wide[:-2, 1:-1] | wide[2:, 1:-1] | wide[1:-1, :-2] | wide[1:-1, 2:]
        assert not bool((beside & mask & ~part).any())
        sizes.append(int(part.sum()))
        left &= ~part
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == int(mask.sum())


def test_boxes_are_in_pixels_on_non_square_images() -> None:
    heat = torch.zeros(2, 4, 6)
    heat[0, 1:3, 2:5] = 1
    heat[0, 0, 0] = 2  # higher, but smaller
    assert attention_box(heat, (64, 60)).tolist() == [[20, 16, 50, 48], [0, 0, 60, 64]]  # the flat one: all
    assert attention_box(heat[:1], (64, 60), keep=0.2).tolist() == [[0, 0, 10, 16]]


def test_corloc_by_hand() -> None:
    heat = torch.zeros(3, 4, 4)
    heat[:, 0:2, 0:2] = 1  # box 0, 0, 20, 20 of 40 x 40
    boxes = [
        torch.tensor([[0, 0, 20, 20], [30, 30, 40, 40]]),  # equal to one of two
        torch.tensor([[0, 0, 20, 40]]),  # exactly half: not more
        torch.tensor([[0.0, 0, 40, 39]]),
    ]
    result = corloc(heat, boxes, (40, 40))
    assert result.each.tolist() == [1, 0, 0]
    assert result.area == pytest.approx(1 / 3)  # the whole image finds the third; 0.5 of the second is not more
    assert result.centre == pytest.approx(1 / 3)  # 800 / 1560
    with pytest.raises(ValueError, match="one or more boxes"):
        corloc(heat, [*boxes[:2], torch.zeros(0, 4)], (40, 40))
    with pytest.raises(ValueError, match="3 maps for 2"):
        corloc(heat, boxes[:2], (40, 40))


# --------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("game", [pointing_game, energy_pointing_game, attention_correctness])
def test_refusals(game) -> None:
    objects = box(6, 6, slice(0, 2), slice(0, 2))[None]
    with pytest.raises(ValueError, match=r"Masks \[0\] hold no object"):
        game(torch.rand(1, 6, 6), torch.zeros_like(objects))
    with pytest.raises(ValueError, match="NaN"):
        game(torch.full((1, 6, 6), torch.nan), objects)
    with pytest.raises((ValueError, TypeError)):
        game(torch.rand(2, 6, 6), objects)
    if game is not pointing_game:
        with pytest.raises(ValueError, match="clamp"):
            game(-torch.rand(1, 6, 6), objects)
        with pytest.raises(ValueError, match="0 everywhere"):
            game(torch.zeros(1, 6, 6), objects)
