"""The path of glimpses: windows where they lie, frames and pages that hold together, bad input named."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.lens.path import UNREAD, GlimpsePath, apart, draw_paths

PLACES = np.array([[-0.5, -0.5], [0.5, 0.25], [0.0, 0.9]])


def path_over(image: object = None, **more: object) -> GlimpsePath:
    if image is None:
        image = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)
    return GlimpsePath(image, PLACES, **({"patch": 4} | more))  # type: ignore[arg-type]


def test_seen_is_sharp_in_the_window_and_unread_outside() -> None:
    path = path_over()
    seen, image = np.asarray(path.seen(0)), np.asarray(path.image)
    left, top, right, bottom = path.boxes(0)[0]
    assert (left, top, right, bottom) == (5, 3, 9, 7)  # middle (7, 5) of 30 x 20, four pixels
    assert np.array_equal(seen[top:bottom, left:right], image[top:bottom, left:right])
    outside = np.ones(image.shape[:2], bool)
    outside[top:bottom, left:right] = False
    assert (seen[outside] == UNREAD).all()


def test_coarser_windows_are_averaged_around_the_fine_one() -> None:
    path = path_over(scales=2)
    seen, image = np.asarray(path.seen(1)).astype(float), np.asarray(path.image).astype(float)
    left, top, right, bottom = path.boxes(1)[1]
    assert (right - left, bottom - top) == (8, 8)
    block = seen[top : top + 2, left : left + 2, 0]
    assert np.ptp(block) == 0
    assert block[0, 0] == pytest.approx(image[top : top + 2, left : left + 2, 0].mean(), abs=0.51)
    fine = path.boxes(1)[0]
    assert np.array_equal(seen[fine[1] : fine[3], fine[0] : fine[2]], image[fine[1] : fine[3], fine[0] : fine[2]])


def test_windows_beyond_the_edge() -> None:
    path = GlimpsePath(np.full((10, 10), 200, np.uint8), [[1.0, 1.0], [-1.0, -1.0]], patch=6, scales=2)
    for number in range(2):
        assert path.seen(number).size == (10, 10)
    assert len(path.frames()) == 2


def test_a_tensor_a_picture_and_an_array_are_the_same_path() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    images = (pixels, Image.fromarray(pixels), torch.from_numpy(pixels).permute(2, 0, 1))
    drawn = [np.asarray(path_over(image).drawn()) for image in images]
    assert all(np.array_equal(drawn[0], other) for other in drawn[1:])
    assert torch.equal(torch.from_numpy(path_over(pixels).places), torch.from_numpy(PLACES).float())


def test_only_the_first_glimpses_are_drawn() -> None:
    path = path_over(np.zeros((20, 20), np.uint8))
    for upto in range(4):
        drawn = np.asarray(path.drawn(upto))
        assert [bool((drawn == path.colour(n)).all(axis=2).any()) for n in range(3)] == [n < upto for n in range(3)]


def test_numbers_of_glimpses_at_one_place_lie_side_by_side() -> None:
    middles = [(50.0, 50.0), (10.0, 90.0), (51.0, 50.0), (50.0, 50.5), (0.0, 99.0), (0.0, 99.0)]
    placed = apart(middles, 5.0, (100, 100))
    assert placed[:2] == middles[:2], "what hides nothing stays where it is"
    for number, (x, y) in enumerate(placed):
        assert 5 <= x <= 94
        assert 5 <= y <= 94
        assert placed[: number + 1] == apart(middles[: number + 1], 5.0, (100, 100)), "later ones move none"
        for other in placed[:number]:
            assert np.hypot(x - other[0], y - other[1]) >= 10
    crowded = apart([(2.0, 2.0)] * 9, 2.0, (4, 4))
    assert len(crowded) == 9, "without room they lie on each other"
    path = GlimpsePath(np.zeros((40, 40), np.uint8), np.zeros((2, 2)), patch=4)
    both = np.asarray(path.drawn())
    counts = [int((both == path.colour(number)).all(axis=2).sum()) for number in range(2)]
    assert min(counts) > 100, "the disc of the first is not covered by that of the second"


def test_animation_has_a_frame_a_glimpse_and_dwells_on_the_last(tmp_path: Path) -> None:
    path = path_over(thoughts=["3 (20%)", "3 (60%)", "8 (90%)"])
    with Image.open(path.save(tmp_path / "path.gif")) as animation:
        assert animation.n_frames == 3
        long = []
        for frame in range(3):
            animation.seek(frame)
            long.append(animation.info["duration"])
        assert long[2] > 2 * long[0]
        assert animation.info["loop"] == 0
    with pytest.raises(ValueError, match="without glimpses"):
        GlimpsePath(np.zeros((8, 8), np.uint8), np.zeros((0, 2)), patch=4).gif()


def test_page_is_self_contained_and_escaped(tmp_path: Path) -> None:
    page = path_over(thoughts=["<b>3</b>", "3", "8"]).page(title="1 < 2", caption="a & b")
    assert "<title>1 &lt; 2</title>" in page
    assert "a &amp; b" in page
    assert "<b>3" not in page
    assert "{{" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    frames = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(frames) == 3
    with Image.open(io.BytesIO(base64.b64decode(frames[0]))) as frame:
        assert frame.width > 700
    assert 'max="2"' in page


def test_picture_with_thoughts_and_a_sheet_of_paths(tmp_path: Path) -> None:
    path = path_over(thoughts=["a", "b", "c"])
    with Image.open(path.save(tmp_path / "path.png", title="what", caption="how")) as picture:
        assert picture.width >= 400
    sheet = draw_paths([path] * 7, [str(n) for n in range(7)], side=100, across=3)
    assert sheet.size == (3 * 110 - 10, 3 * 130)
    with pytest.raises(ValueError, match="a label for each"):
        draw_paths([path], [])


@pytest.mark.parametrize(
    ("places", "more", "message"),
    [
        (np.zeros((3, 3)), {}, r"shape \(3, 3\)"),
        (np.zeros(2), {}, r"shape \(2,\)"),
        (np.array([[0.0, np.nan]]), {}, "finite"),
        (PLACES, {"thoughts": ["one"]}, "1 thoughts were given for 3 glimpses"),
        (PLACES, {"patch": 0}, "patch=0"),
    ],
)
def test_bad_input_is_named(places: np.ndarray, more: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GlimpsePath(np.zeros((8, 8), np.uint8), places, **({"patch": 4} | more))  # type: ignore[arg-type]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.html, \.gif, \.png"):
        path_over().save(tmp_path / "path.mp4")
