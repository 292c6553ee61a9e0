"""Points moving over an image: where they are drawn, on the way too; frames and pages that hold together."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.lens.points import BETWEEN, PointPath, draw_point_paths

PLACES = np.array([[[0.25, 0.25], [0.75, 0.75]], [[0.5, 0.25], [0.75, 0.5]], [[0.5, 0.75], [1.4, 0.5]]])


def ways(**more: object) -> PointPath:
    return PointPath(np.full((20, 40), 128, np.uint8), PLACES, **more)  # type: ignore[arg-type]


def near(picture: Image.Image, x: float, y: float) -> np.ndarray:
    """The colour at a place in 0..1 of a picture."""
    return np.asarray(picture)[round(y * (picture.height - 1)), round(x * (picture.width - 1))].astype(int)


def test_points_are_drawn_where_they_are_in_their_looks_colour() -> None:
    path = ways()
    for look in range(3):
        picture = path.drawn(look, side=400)
        assert picture.size == (400, 200)
        for x, y in PLACES[look]:
            if x <= 1:
                assert np.abs(near(picture, x, y) - path.colour(look)).max() < 12
    first, last = np.array(path.colour(0)), np.array(path.colour(2))
    assert np.abs(first - last).max() > 100
    # the way behind the point at the last look, and nothing where no point went
    assert np.abs(near(path.drawn(2, side=400), 0.5, 0.5) - 128).max() > 40
    assert (near(path.drawn(2, side=400), 0.1, 0.9) == 128).all()


def test_between_two_looks_points_are_on_the_straight_way() -> None:
    path = ways()
    np.testing.assert_allclose(path.at(0.5), (PLACES[0] + PLACES[1]) / 2)
    np.testing.assert_allclose(path.at(2), PLACES[2])
    x, y = path.at(0.5)[0]
    assert np.abs(near(path.drawn(0.5, side=400), x, y) - path.colour(0.5)).max() < 12


def test_areas_follow_the_weights_at_the_last_look_only() -> None:
    path = ways(weights=np.array([0.8, 0.2]))
    assert (path.radii(1) == ways().radii(1)).all()
    assert path.radii(2)[0] / path.radii(2)[1] == pytest.approx(2)
    assert np.abs(near(path.drawn(2, side=400), 0.5, 0.75) - path.colour(2)).max() < 12


def test_animation_and_page(tmp_path: Path) -> None:
    path = ways(thoughts=["the <grid>", "nearer", "there"])
    animation = Image.open(io.BytesIO(path.gif()))
    assert animation.n_frames == 2 * BETWEEN + 1
    saved = path.save(tmp_path / "ways.html", title="Where & how", caption="as told")
    page = saved.read_text("utf-8")
    assert page.count("<img ") == 3
    assert 'alt="look 1 of 3: the &lt;grid&gt;"' in page
    assert "<h1>Where &amp; how</h1>" in page
    assert 'max="2"' in page
    assert 'aria-label="look"' in page
    assert not re.search(r"https?://", page)
    for name in ("ways.png", "ways.gif", "ways.jpg"):
        with Image.open(path.save(tmp_path / name)) as picture:
            assert picture.width > 300
    with pytest.raises(ValueError, match=r"ends in \.html, \.gif, \.png"):
        path.save(tmp_path / "ways.pdf")


def test_a_sheet_of_several() -> None:
    sheet = draw_point_paths([ways()] * 3, ["one", "two", "three"], side=100, across=2)
    assert sheet.size == (2 * 110 - 10, 2 * 128)
    with pytest.raises(ValueError, match="a label for each: 1, 2"):
        draw_point_paths([ways()], ["one", "two"])


@pytest.mark.parametrize(
    ("places", "more", "told"),
    [
        (np.zeros((3, 2)), {}, "given shape"),
        (np.zeros((0, 4, 2)), {}, "given shape"),
        (np.full((1, 2, 2), np.nan), {}, "not finite"),
        (torch.zeros(2, 3, 2), {"weights": [0.5, 0.5]}, "weights are 3 numbers"),
        (torch.zeros(2, 2, 2), {"weights": [1.0, -0.5]}, "none negative"),
        (torch.zeros(2, 2, 2), {"weights": [0.0, 0.0]}, "not all zero"),
        (torch.zeros(2, 2, 2), {"thoughts": ["one"]}, "1 thoughts were given for 2 looks"),
    ],
)
def test_what_makes_no_ways_is_refused(places: object, more: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        PointPath(np.zeros((8, 8), np.uint8), places, **more)  # type: ignore[arg-type]
