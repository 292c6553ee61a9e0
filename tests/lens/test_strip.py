"""Words over a photograph: the picture, and the page that works without a network or a script."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.lens.strip import WordStrip

WORDS = ("a", "dog", "<b>")


def strip(**more: object) -> WordStrip:
    random = np.random.default_rng(0)
    photograph = Image.fromarray(random.integers(0, 255, (60, 90, 3), dtype=np.uint8))
    maps = np.zeros((3, 2, 3))
    maps[0, 0, 0] = maps[1, 1, 2] = maps[2, 0, 1] = 1
    return WordStrip(**{"image": photograph, "words": WORDS, "maps": maps, **more})


def test_the_picture_has_a_map_for_each_word() -> None:
    plain, other = strip().picture(), strip(maps=np.full((3, 2, 3), 1 / 6)).picture()
    assert plain.size == other.size
    assert plain.tobytes() != other.tobytes()
    assert strip(scores=[0.5, 0.25, 1.0]).picture().height > plain.height


def test_the_small_print_stands_once() -> None:
    # without a caption nothing stands above the maps but the title
    assert strip().picture().height < strip(caption="one line").picture().height


class Parts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_loads_nothing_and_escapes_words() -> None:
    page = strip(scores=[0.5, 0.25, 1.0], caption="<i>by hand</i>").page()
    parts = Parts()
    parts.feed(page)
    images = [given["src"] for tag, given in parts.tags if tag == "img"]
    assert len(images) == 4  # the photograph and three maps
    assert len(set(images)) == 4
    assert all(source is not None and source.startswith("data:image/") for source in images)
    tags = [tag for tag, _ in parts.tags]
    assert not {"script", "b", "i", "link", "iframe"} & set(tags)
    assert tags.count("input") == tags.count("label") == 4  # the photograph, and each word
    assert "&lt;b&gt;" in page and "0.25" in page  # noqa: PT018
    assert not re.search(r"https?://", page)
    # every word has a rule that shows its map, which stands behind the photograph
    for number in (1, 2, 3):
        assert f"#c{number}:checked~.stage img:nth-child({number + 1})" in page
    assert "#c0:checked~.stage" not in page


def opened_on(page: str) -> str | None:
    parts = Parts()
    parts.feed(page)
    (checked,) = [given for tag, given in parts.tags if tag == "input" and "checked" in given]
    return checked["aria-label"]


def test_the_page_opens_on_a_map_and_leads_back_to_the_photograph() -> None:
    assert opened_on(strip().page()) == "a"
    assert opened_on(strip(opens=2).page()) == "<b>"
    assert ">photograph</label>" in strip().page()
    assert opened_on(strip(plain="box 90%").page()) == "box 90%"
    assert ">photograph</label>" not in strip(plain="box 90%").page()


def test_it_is_saved_by_the_ending(tmp_path: Path) -> None:
    assert strip().save(tmp_path / "a.html").read_text("utf-8").startswith("<!doctype html>")
    with Image.open(strip().save(tmp_path / "a.png")) as saved:
        assert saved.size == strip().picture().size
    with pytest.raises(ValueError, match=r"\.html"):
        strip().save(tmp_path / "a.txt")
    assert "data:image" in strip()._repr_html_()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"words": ("a",)}, "1 words, 3 maps"),
        ({"words": (), "maps": np.zeros((0, 2, 2))}, "at least one word"),
        ({"scores": [1.0]}, "1 scores"),
        ({"maps": np.full((3, 2, 2), np.nan)}, "NaN"),
        ({"maps": np.zeros((3, 4))}, "shape"),
        ({"opens": 3}, "3 words cannot open on word number 3"),
        ({"opens": -1}, "cannot open"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        strip(**given)


def test_the_photograph_itself_may_come_first() -> None:
    photo = Image.new("RGB", (300, 300), (250, 20, 20))
    maps = np.full((2, 3, 3), 1 / 9)
    drawn = [np.asarray(WordStrip(photo, ["a", "b"], maps, plain=plain).picture()) for plain in ("", "as it is")]
    assert not (drawn[0] == (250, 20, 20)).all(axis=2).any()
    assert (drawn[1] == (250, 20, 20)).all(axis=2).sum() == 220**2  # one panel, undimmed
    assert drawn[1].shape[1] > drawn[0].shape[1]
