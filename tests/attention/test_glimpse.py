"""Windows and retinas equal a plain reading pixel by pixel, wherever they lie."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sightline.attention import observe
from sightline.attention.glimpse import reading_shares, retina, window, window_box


def plain_window(image: Tensor, x: float, y: float, size: int) -> Tensor:
    """One window of one image (channels, height, width), pixel by pixel."""
    _, height, width = image.shape
    place = torch.tensor([x, y])
    left, top = (int(0.5 * ((place[k] + 1.0) * n)) - size // 2 for k, n in ((0, width), (1, height)))
    cut = torch.zeros(len(image), size, size)
    for row in range(size):
        for column in range(size):
            if 0 <= top + row < height and 0 <= left + column < width:
                cut[:, row, column] = image[:, top + row, left + column]
    return cut


places = st.floats(-1, 1, width=32)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 17),
    st.integers(1, 17),
    st.integers(1, 20),
    st.lists(places, min_size=4, max_size=4),
)
def test_a_window_is_what_a_plain_reading_gives(
    channels: int, height: int, width: int, size: int, at: list[float]
) -> None:
    images = torch.rand(2, channels, height, width)
    corners = torch.tensor([[at[0], at[1]], [at[2], at[3]]])
    wanted = torch.stack(
        [plain_window(image, *place, size) for image, place in zip(images, corners.tolist(), strict=True)]
    )
    assert torch.equal(window(images, corners, size), wanted)


@pytest.mark.parametrize("place", [(-1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (0.0, 0.0)])
def test_corners(place: tuple[float, float]) -> None:
    image = torch.rand(1, 1, 6, 9)
    assert torch.equal(window(image, torch.tensor([place]), 4)[0], plain_window(image[0], *place, 4))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), places, places)
def test_coarse_windows_are_means_of_fine_pixels(patch: int, scales: int, factor: int, x: float, y: float) -> None:
    images = torch.rand(1, 2, 13, 10)
    found = retina(images, torch.tensor([[x, y]]), patch=patch, scales=scales, factor=factor)
    assert found.shape == (1, 2 * scales, patch, patch)
    for scale in range(scales):
        wide = plain_window(images[0], x, y, patch * factor**scale)
        blocks = wide.unfold(1, factor**scale, factor**scale).unfold(2, factor**scale, factor**scale)
        torch.testing.assert_close(found[0, 2 * scale : 2 * scale + 2], blocks.mean(dim=(3, 4)))


def test_pixels_get_gradients_where_they_were_read() -> None:
    images = torch.rand(1, 1, 10, 10, requires_grad=True)
    retina(images, torch.zeros(1, 2), patch=2, scales=2).sum().backward()
    assert images.grad is not None
    read = images.grad[0, 0] > 0
    assert read[3:7, 3:7].all()
    assert read.sum() == 16


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), places, places)
def test_shares_are_a_map_of_what_was_read(patch: int, scales: int, x: float, y: float) -> None:
    place = torch.tensor([[x, y]])
    shares = reading_shares(place, (9, 12), patch=patch, scales=scales)
    assert shares.sum().item() == pytest.approx(1, abs=1e-5)
    images = torch.rand(1, 1, 9, 12, requires_grad=True)
    retina(images, place, patch=patch, scales=scales).sum().backward()
    assert images.grad is not None
    read = images.grad[0, 0] > 0
    if read.any():  # a single pixel beyond the edge reads nothing
        assert torch.equal(shares[0] > 0, read)


def test_reports_when_somebody_listens() -> None:
    images, place = torch.rand(2, 1, 8, 8), torch.zeros(2, 2)
    heard: list[Tensor] = []
    quiet = retina(images, place, patch=4)
    with observe.listen(lambda weights, kind, name: heard.append(weights)):
        assert torch.equal(retina(images, place, patch=4), quiet)
    retina(images, place, patch=4)
    (weights,) = heard
    assert weights.shape == (2, 1, 1, 64)
    assert not observe.listening()


def test_boxes_are_where_windows_are() -> None:
    image = torch.arange(80.0).view(1, 1, 8, 10)
    for x, y in ((-0.3, 0.6), (0.0, 0.0), (0.55, -0.2)):
        left, top, right, bottom = window_box(x, y, (8, 10), 3)
        assert torch.equal(window(image, torch.tensor([[x, y]]), 3)[0, 0], image[0, 0, top:bottom, left:right])


@pytest.mark.parametrize("sizes", [{"patch": 0}, {"patch": 4, "scales": 0}, {"patch": 4, "factor": 0}])
def test_sizes_that_make_no_retina_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="of 1 or more, given"):
        retina(torch.rand(1, 1, 8, 8), torch.zeros(1, 2), **sizes)
    with pytest.raises(ValueError, match="given size=0"):
        window(torch.rand(1, 1, 8, 8), torch.zeros(1, 2), 0)
