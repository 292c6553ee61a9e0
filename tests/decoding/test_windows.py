"""Sliding windows: logits averaged where windows overlap, chances averaged over scales and mirrored pictures."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.decoding.windows import bump, class_probabilities, enlarge_to, sliding_logits, starts


class Placed(nn.Module):
    """A model whose logits depend on all of its window, so that windows disagree where they overlap."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.filter = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.filter(images) + images.mean(dim=(1, 2, 3), keepdim=True) ** 2


def naive(
    model: nn.Module, images: Tensor, window: tuple[int, int], stride: tuple[int, int], smooth: bool = False
) -> Tensor:
    """Each pixel: the mean over all windows that hold it, one window after the other, perhaps by their bumps."""
    weight = torch.ones(window)
    for y in range(window[0] if smooth else 0):
        for x in range(window[1]):
            weight[y, x] = (
                math.sin(math.pi * (y + 0.5) / window[0]) ** 2 * math.sin(math.pi * (x + 0.5) / window[1]) ** 2
            )
    height, width = images.shape[2:]
    places = set()
    for y in range(0, height, stride[0]):
        for x in range(0, width, stride[1]):
            places.add((min(y, height - window[0]), min(x, width - window[1])))
    total, count = torch.zeros(len(images), 4, height, width), torch.zeros(height, width)
    for y, x in sorted(places):
        part = model(images[:, :, y : y + window[0], x : x + window[1]])
        total[:, :, y : y + window[0], x : x + window[1]] += weight * part
        count[y : y + window[0], x : x + window[1]] += weight
    return total / count


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 24), st.integers(1, 24), st.integers(1, 24), st.integers(1, 24), st.integers(1, 24),
    st.integers(1, 24), st.integers(1, 3), st.booleans(),
)  # fmt: skip
def test_logits_are_the_mean_over_the_windows(
    height: int, width: int, rows: int, columns: int, down: int, across: int, most: int, smooth: bool
) -> None:
    window = (min(height, rows), min(width, columns))
    stride = (min(window[0], down), min(window[1], across))
    model, images = Placed(), torch.randn(2, 3, height, width)
    with torch.no_grad():
        found = sliding_logits(model, images, window=window, stride=stride, most=most, smooth=smooth)
        torch.testing.assert_close(found, naive(model, images, window, stride, smooth), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("window", [(1, 1), (2, 7), (384, 512), (1024, 1024)])
def test_a_bump_is_positive_everywhere_and_highest_in_the_middle(window: tuple[int, int]) -> None:
    weight = bump(window)
    assert tuple(weight.shape) == window
    assert (weight > 0).all()
    assert (1 / weight).isfinite().all()
    assert weight.max() == weight[(window[0] - 1) // 2, (window[1] - 1) // 2]
    torch.testing.assert_close(weight, weight.flip(0, 1))
    half = [side // 2 for side in window]
    if window == (384, 512):
        together = sum(weight.roll((down, across), (0, 1)) for down in (0, half[0]) for across in (0, half[1]))
        torch.testing.assert_close(together, torch.ones(window))


@pytest.mark.parametrize("size", [(16, 24), (5, 24), (16, 3)])
def test_one_window_smooth_or_not_is_the_same_answer(size: tuple[int, int]) -> None:
    model, images = Placed(), torch.randn(2, 3, *size)
    how = {"window": size, "stride": (4, 2)}
    with torch.no_grad():
        plain, smooth = (class_probabilities(model, images, **how, smooth=smooth) for smooth in (False, True))
        assert torch.equal(plain, smooth)
        assert torch.equal(sliding_logits(model, images, **how, smooth=True), model(images))


def test_smooth_windows_leave_no_step_where_one_begins() -> None:
    def model(part: Tensor) -> Tensor:  # a window answers all over with what its first pixel is: no two agree
        return part[:, :1, :1, :1].expand(-1, 4, *part.shape[2:]).contiguous()

    images = torch.arange(48.0).view(1, 1, 48, 1).expand(1, 3, 48, 16)
    steps = [
        sliding_logits(model, images, window=(16, 16), stride=(8, 16), smooth=smooth).diff(dim=2).abs().max()
        for smooth in (False, True)
    ]
    assert steps[0] == 8  # one window ends where another begins, two further on
    assert steps[1] < 1.6


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_type_and_has_no_holes(kind: torch.dtype) -> None:
    def model(part: Tensor) -> Tensor:
        return torch.ones(len(part), 4, *part.shape[2:], dtype=kind)

    for smooth in (False, True):
        found = sliding_logits(model, torch.rand(1, 3, 700, 600), window=(512, 512), stride=(256, 256), smooth=smooth)
        assert found.dtype == kind
        assert (found == 1).all()


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_windows_reach_every_pixel_and_stay_inside(side: int, window: int, stride: int) -> None:
    if window > side:
        with pytest.raises(ValueError, match=f"windows of {window} pixels every {stride} do not fit a side of {side}"):
            starts(side, window, stride)
        return
    places = starts(side, window, stride)
    assert places == sorted(set(places))
    assert places[0] == 0
    assert places[-1] == side - window
    if stride <= window:
        assert {pixel for place in places for pixel in range(place, place + window)} == set(range(side))


def test_scales_and_mirrored_pictures_average_chances_not_logits() -> None:
    model, images = Placed(), torch.randn(1, 3, 20, 28)
    window, stride = (16, 16), (8, 8)
    total = torch.zeros(1, 4, 20, 28)
    for scale in (1.0, 1.5):
        scaled = images
        if scale != 1:
            scaled = F.interpolate(images, size=(30, 42), mode="bilinear")
        for mirrored in (False, True):
            view = scaled.flip(3) if mirrored else scaled
            logits = naive(model, view, window, stride)
            logits = F.interpolate(logits.flip(3) if mirrored else logits, size=(20, 28), mode="bilinear")
            total += logits.softmax(dim=1)
    with torch.no_grad():
        found = class_probabilities(model, images, window=window, stride=stride, scales=(1.0, 1.5), mirrored=True)
    torch.testing.assert_close(found, total / 4, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1, 20, 28))


def test_mirroring_alone_makes_the_answer_mirror_with_the_picture() -> None:
    model, images = Placed(), torch.randn(1, 3, 16, 24)
    how = {"window": (16, 24), "stride": (16, 24), "mirrored": True}
    with torch.no_grad():
        torch.testing.assert_close(
            class_probabilities(model, images.flip(3), **how), class_probabilities(model, images, **how).flip(3)
        )


@pytest.mark.parametrize(("size", "wanted"), [((10, 40), (20, 80)), ((20, 10), (32, 16)), ((21, 30), (21, 30))])
def test_pictures_smaller_than_a_window_grow_and_keep_their_shape(
    size: tuple[int, int], wanted: tuple[int, int]
) -> None:
    found = enlarge_to(torch.rand(1, 3, *size), (20, 16))
    assert tuple(found.shape[2:]) == wanted


def test_the_answer_has_the_size_of_the_picture() -> None:
    model = Placed()
    for size in ((1, 1), (7, 50), (40, 3)):
        found = class_probabilities(model, torch.rand(2, 3, *size), window=(8, 8), stride=(4, 4), scales=(0.5, 1, 2))
        assert tuple(found.shape) == (2, 4, *size)


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -2.0)])
def test_scales_that_make_no_sense_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="scales must be positive, at least one"):
        class_probabilities(Placed(), torch.rand(1, 3, 8, 8), window=(8, 8), stride=(4, 4), scales=scales)
