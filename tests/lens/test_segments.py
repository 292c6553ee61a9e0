"""Named pixels drawn: colours and legend as a picture, classes to choose as a page, shares of the area."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.lens.segments import Segments, listed, thickest

NAMES = ("sky", "road & kerb", "car", "tree")
PALETTE = np.array([[0, 0, 250], [200, 0, 0], [0, 200, 0], [90, 90, 0]], dtype=np.uint8)


def segments(**more: object) -> Segments:
    mask = np.zeros((300, 400), dtype=np.uint8)
    mask[100:] = 1
    mask[150:250, 100:250] = 2
    image = Image.fromarray(np.full((300, 400, 3), 100, dtype=np.uint8))
    given = {"maps": {"car": np.eye(4), "road & kerb": np.ones((3, 4))}, "title": "street.jpg", **more}
    return Segments(image, mask, NAMES, PALETTE, **given)  # type: ignore[arg-type]


def test_areas_are_shares_of_all_pixels_largest_first() -> None:
    areas = segments().areas
    assert list(areas) == ["road & kerb", "sky", "car"]  # no pixel is a tree
    assert list(areas.values()) == pytest.approx([(200 * 400 - 15000) / 120000, 1 / 3, 15000 / 120000])
    made = segments()
    made.mask[:50] = 255
    assert sum(made.areas.values()) == pytest.approx(1 - 50 / 300)


def test_colours_are_laid_on_the_photograph_with_a_line_between() -> None:
    painted = np.asarray(segments().painted(0.5))
    assert painted.shape[:2] == (300, 400)
    assert painted[50, 50].tolist() == [50, 50, 175]
    assert painted[200, 200].tolist() == [50, 150, 50]
    assert painted[100, 50].sum() < 0.5 * painted[110, 50].sum()  # the border
    made = segments()
    made.mask[:] = 255
    assert np.asarray(made.painted(1.0))[50, 50].tolist() == [128, 128, 128]


def test_the_picture_has_a_legend_with_the_colours_that_are_there() -> None:
    picture = segments().picture()
    below = np.asarray(picture)[320:].reshape(-1, 3).tolist()
    assert {tuple(colour) for colour in PALETTE[:3].tolist()} <= {tuple(pixel) for pixel in below}
    assert tuple(PALETTE[3].tolist()) not in {tuple(pixel) for pixel in below}


def test_the_legend_and_the_regions_carry_the_numbers_of_the_mask(drawn_words: list[str]) -> None:
    segments().picture()
    for number in ("0", "1", "2"):
        assert drawn_words.count(number) == 2  # on its region, in its row
    assert "3" not in drawn_words  # no pixel is a tree
    drawn_words.clear()
    made = segments()
    made.mask[:] = 1
    made.mask[0, 0] = 2  # in a region as small as this a number would hide what it names
    made.picture()
    assert [drawn_words.count(number) for number in ("1", "2")] == [2, 1]


def test_a_number_stands_where_its_region_is_thickest() -> None:
    region = np.zeros((20, 30), dtype=bool)
    region[2:4, :] = True
    region[10:17, 5:12] = True
    assert thickest(region) == (13, 8, 4)
    assert thickest(np.ones((5, 9), dtype=bool))[0] == 2
    assert thickest(np.zeros((4, 4), dtype=bool)) == (0, 0, 0)


def test_classes_without_a_map_are_told_with_the_reason(drawn_words: list[str]) -> None:
    segments().picture()
    assert "no pixel of tree, so no map" in " ".join(drawn_words)
    assert "no pixel of tree, so no map" in segments().page()
    drawn_words.clear()
    segments(maps={}).picture()
    assert "no map" not in " ".join(drawn_words) + segments(maps={}).page()
    drawn_words.clear()
    names = [f"kind_{number}" for number in range(14)]
    mask = np.arange(14, dtype=np.uint8).repeat(40)[None].repeat(300, axis=0)
    maps = {name: np.ones((2, 2)) for name in names}
    many = Segments(Image.new("RGB", (560, 300)), mask, names, np.zeros((14, 3), np.uint8), maps)
    many.picture()
    said = " ".join(drawn_words)
    assert "maps of the 12 largest classes, the page also has those of kind 12, kind 13" in said
    assert [drawn_words.count(name) for name in ("kind 11", "kind 12")] == [2, 1]  # its map and its row; its row alone
    assert listed(names[:12]) == ", ".join(f"kind {number}" for number in range(12))
    assert listed(names).endswith("kind 11 and 2 more")


def test_the_page_is_self_contained_and_each_class_is_a_choice() -> None:
    page = segments().page()
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count('type="radio"') == 2 + 3  # the photograph, all together, and each class that is there
    assert re.findall(r'aria-label="([^"]*)" checked', page) == ["all classes"]
    assert page.count("<img") == 1 + 1 + 3
    assert "road &amp; kerb" in page
    assert "road & kerb" not in page
    assert "33.3%" in page
    assert "where its class token looked" in page
    assert "token" not in segments(maps={}).page()


def test_names_are_drawn_with_spaces(drawn_words: list[str]) -> None:
    made = Segments(
        Image.new("RGB", (400, 300)), np.zeros((300, 400), np.uint8), ("traffic_light",), PALETTE[:1],
        {"traffic_light": np.ones((3, 4))},
    )  # fmt: skip
    made.picture()
    assert drawn_words.count("traffic light") == 2  # the map's and the legend's
    assert "traffic_light" not in made.page() + " ".join(drawn_words)
    assert list(made.areas) == ["traffic_light"]


def test_saved_by_its_ending(tmp_path: Path) -> None:
    made = segments()
    assert made.save(tmp_path / "a.html").read_text("utf-8").startswith("<!doctype html>")
    assert Image.open(made.save(tmp_path / "a.png")).width > 400
    with pytest.raises(ValueError, match=r"give a name that ends in \.html, \.png"):
        made.save(tmp_path / "a.txt")


def test_what_does_not_fit_is_refused() -> None:
    image = Image.new("RGB", (4, 3))
    with pytest.raises(ValueError, match="the mask has 3 x 4 pixels, the photograph 4 x 3"):
        Segments(image, np.zeros((4, 3), np.uint8), NAMES, PALETTE, {})
    with pytest.raises(ValueError, match="4 classes, but 3 colours"):
        Segments(image, np.zeros((3, 4), np.uint8), NAMES, PALETTE[:3], {})
    with pytest.raises(ValueError, match="the mask names class 4, there are 4"):
        Segments(image, np.full((3, 4), 4, np.uint8), NAMES, PALETTE, {})
    with pytest.raises(ValueError, match="a map of 'boat', which is none of the classes"):
        segments(maps={"boat": np.ones((2, 2))})
    with pytest.raises(ValueError, match="NaN"):
        segments(maps={"car": np.full((2, 2), np.nan)})
