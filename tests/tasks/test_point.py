"""`point`: the box is the one that scores best, windows cover the picture, refusals."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from sightline.data.vocabulary import Vocabulary
from sightline.systems.visual7w import Visual7W, Visual7WPointing
from sightline.tasks.answerer import Answerer
from sightline.tasks.point import (
    _closeness,
    _sameness,
    apart,
    as_question,
    label_places,
    overlap,
    point,
    share_of,
    windows,
    with_boxes,
    with_scores,
)
from sightline.tasks.questions import QuestionError

WORDS = ("which", "object", "is", "the", "cube", "red", "left", "of", "these", "objects")
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
SIZES = {"vocab": 4 + len(WORDS), "image_size": 32, "width": 8, "embedding": 8, "hidden": 12, "attention": 4}


def toy(kind: str = "attention") -> Answerer:
    torch.manual_seed(1)
    model = Visual7WPointing(**SIZES, region=6, kind=kind).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return Answerer(model, Vocabulary(WORDS), "toy", "toy scenes")


def test_the_best_of_given_boxes_is_pointed_at() -> None:
    opened = toy()
    boxes = [(0.0, 0.0, 15.0, 20.0), (30.0, 10.0, 60.0, 40.0), (20.0, 0.0, 40.0, 15.0)]
    meant = point(PICTURE, "which object is red?", boxes=boxes, system=opened)
    asked = torch.tensor([[opened.vocabulary.encode(["which", "object", "is", "red"])]])
    shares = torch.tensor(boxes) / torch.tensor([60.0, 40.0, 60.0, 40.0])
    with torch.no_grad():
        scores = opened.model(opened.see(PICTURE), asked, shares[None, None])[0][0, 0].softmax(dim=0)
    assert meant.box == boxes[int(scores.argmax())]
    assert meant.given
    np.testing.assert_allclose([share for _, share in meant.boxes], sorted(scores.tolist(), reverse=True), atol=1e-5)


def test_windows_are_tried_where_no_boxes_are_given(tmp_path: Path) -> None:
    meant = point(PICTURE, "the red cube", system=toy())
    assert meant.asked == "which object is the red cube"
    assert not meant.given
    assert 1 <= len(meant.boxes) <= 4
    shares = [share for _, share in meant.boxes]
    assert shares == sorted(shares, reverse=True)
    for left, top, right, bottom in (box for box, _ in meant.boxes):
        assert 0 <= left < right <= 60
        assert 0 <= top < bottom <= 40
        assert (right - left) / 60 == pytest.approx((bottom - top) / 40, abs=0.01)  # a square of the squashed picture
    assert meant.attention is not None
    assert list(meant.attention.words) == meant.asked.split()
    for name in ("a.png", "a.html"):
        assert meant.save(tmp_path / name).stat().st_size > 500


def test_words_that_were_never_read_have_a_star() -> None:
    meant = point(PICTURE, "the shiny red cube", system=toy())
    assert meant.unknown == ("shiny",)
    assert meant.attention is not None
    assert list(meant.attention.words) == ["which", "object", "is", "the", "shiny*", "red", "cube"]
    assert meant.attention.caption.startswith(
        'read as "which object is the shiny red cube"; * never read by toy: shiny; toy scenes'
    )


def test_the_box_is_drawn_where_it_is() -> None:
    plain = Image.new("RGB", (300, 200), (90, 90, 90))
    drawn = np.asarray(with_boxes(plain, [(50.0, 40.0, 120.0, 160.0)]), np.float64)
    scale = drawn.shape[1] / 300
    rows, columns = np.nonzero(np.abs(drawn - 90).sum(axis=2))
    found = np.array([columns.min(), rows.min(), columns.max(), rows.max()]) / scale
    np.testing.assert_allclose(found, [50, 40, 120, 160], atol=14)
    top, bottom, left, right = (round(value * scale) for value in (40, 160, 50, 120))
    assert (drawn[top:bottom, left:right] == 90).all(), "the line lies around what is meant, not on it"


def test_a_line_at_the_edge_is_moved_in() -> None:
    plain = Image.new("RGB", (400, 400), (90, 90, 90))
    drawn = np.asarray(with_boxes(plain, [(0.0, 100.0, 400.0, 400.0)]))
    yellow = (drawn == (255, 236, 64)).all(axis=2)
    rows, columns = np.nonzero(yellow)
    assert rows.max() > 390
    assert columns.min() < 10
    assert columns.max() > 390
    assert 85 < rows.min() < 100


def test_the_box_is_seen_at_the_size_of_a_thumbnail() -> None:
    for height in (120, 300, 1200):
        plain = Image.new("RGB", (height * 3 // 2, height), (90, 90, 90))
        box = (0.3 * plain.width, 0.3 * height, 0.5 * plain.width, 0.6 * height)
        thumbnail = np.asarray(with_boxes(plain, [box]).resize((180, 120), Image.Resampling.LANCZOS)).astype(int)
        row = thumbnail[54, 40:72]  # over the left line
        assert ((row[:, 0] > 220) & (row[:, 1] > 200) & (row[:, 2] < 110)).sum() >= 3  # light
        assert (row.sum(axis=1) < 3 * 60).sum() >= 1  # within dark edges
    meant = point(PICTURE, "the red cube", system=toy())
    assert meant.attention is not None
    assert meant.attention.plain == f"box {share_of(meant.probability)}"


@pytest.fixture
def drawn_words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All texts that were written into pictures, in order."""
    drawn: list[str] = []
    original = ImageDraw.ImageDraw.text

    def text(self: ImageDraw.ImageDraw, place: tuple[float, float], words: str, **rest: Any) -> None:
        drawn.append(words)
        original(self, place, words, **rest)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", text)
    return drawn


def test_the_best_box_stands_out_and_all_shares_are_written(drawn_words: list[str]) -> None:
    plain = Image.new("RGB", (400, 300), (90, 90, 90))
    best, second = (50.0, 80.0, 120.0, 200.0), (200.0, 80.0, 280.0, 200.0)
    others = [((300.0, 5.0, 390.0, 60.0), 0.05), ((0.0, 220.0, 40.0, 290.0), 0.04), (second, 0.01)]
    drawn = np.asarray(with_scores(plain, [(best, 0.31), (second, 0.3), *others]))
    assert drawn_words == ["4.0%", "5.0%", "30%", "31%"]  # the fifth has no chance; the best is on top
    assert drawn.shape == (300, 400, 3)
    assert drawn[140, 50 - 6].tolist() == [255, 236, 64]
    assert drawn[140, 200 - 3].tolist() == [255, 255, 255]
    yellow = (drawn == (255, 236, 64)).all(axis=2)
    assert not yellow[:, 180:].any()


def test_labels_of_boxes_that_overlap_stand_apart_beside_their_boxes() -> None:
    crowd = [(60.0, 60.0, 150.0, 150.0), (70.0, 80.0, 140.0, 170.0), (80.0, 40.0, 160.0, 140.0)]
    corner = [(0.0, 0.0, 90.0, 90.0), (20.0, 5.0, 110.0, 90.0), (0.0, 200.0, 90.0, 319.0), (9.0, 220.0, 99.0, 319.0)]
    for boxes in (crowd, corner):
        places = label_places(boxes, [(60.0, 25.0)] * len(boxes), (320, 320), 9.0)
        for k, (x, y) in enumerate(places):
            assert 0 <= x <= 320 - 60
            assert 0 <= y <= 320 - 25
            assert all(abs(x - left) >= 60 or abs(y - top) >= 25 for left, top in places[:k]), "on another label"
            left, top, right, bottom = boxes[k]
            assert left - 70 <= x <= right + 10
            assert top - 35 <= y <= bottom + 10
    assert label_places(crowd[:1], [(60.0, 25.0)], (320, 320), 9.0) == [(60.0, 26.0)], "alone, above its box"
    without_room = label_places(corner, [(60.0, 25.0)] * 4, (30, 20), 3.0)
    assert without_room == [(0.0, 0.0)] * 4


def test_panels_that_would_be_alike_are_one(drawn_words: list[str], tmp_path: Path) -> None:
    meant = point(PICTURE, "the red cube", system=toy())
    strip = meant.attention
    assert strip is not None
    apart_maps = np.eye(16).reshape(16, 4, 4)[: len(strip.words)]
    replace(meant, attention=replace(strip, maps=apart_maps)).picture()
    assert set(strip.words) <= set(drawn_words)
    drawn_words.clear()
    alike = replace(meant, attention=replace(strip, maps=np.full(apart_maps.shape, 1 / 16)))
    alike.save(tmp_path / "alike.png")
    assert "every word" in drawn_words
    assert not set(strip.words) & set(drawn_words)
    assert strip.plain in drawn_words  # the box and its share are still there
    assert alike.save(tmp_path / "alike.html").read_text("utf-8").count("<label") == 1 + len(strip.words)


def test_the_title_is_the_users_own_and_the_caption_what_was_read_and_what_is_left() -> None:
    meant = point(PICTURE, " The Red  cube", system=toy())
    assert meant.attention is not None
    assert meant.attention.title == "The Red cube"
    assert 'read as "which object is the red cube"' in meant.attention.caption
    drawn = [share for _, share in meant.boxes if share >= 0.1 * meant.probability]
    assert f"all other boxes together: {share_of(1 - sum(drawn))}" in meant.attention.caption
    asked = point(PICTURE, "Which object is Red?", system=toy()).attention
    assert asked is not None
    assert asked.title == "Which object is Red?"
    assert "read as" not in asked.caption


def test_a_choice_that_was_close_is_told() -> None:
    box = (0.0, 0.0, 1.0, 1.0)
    assert _closeness([(box, 0.3), (box, 0.29)]).startswith("the next best box scores nearly alike, 29%")
    assert _closeness([(box, 0.3), (box, 0.1)]) == _closeness([(box, 1.0)]) == ""


def test_the_caption_tells_where_words_look_at_the_same() -> None:
    maps = np.full((3, 2, 2), 0.25)
    assert "nearly the same" in _sameness(maps)
    maps[1] = [[0.4, 0.1], [0.25, 0.25]]
    assert _sameness(maps) == ""


def test_without_attention_the_box_is_all_that_is_drawn(tmp_path: Path) -> None:
    meant = point(PICTURE, "the red cube", system=toy("even"))
    assert meant.attention is None
    meant.save(tmp_path / "a.png")
    with pytest.raises(QuestionError, match="no page"):
        meant.save(tmp_path / "a.html")
    assert meant._repr_html_().startswith("<p>box ")


def test_names_become_questions() -> None:
    for said, asked in (
        ("red cube", "which object is the red cube"),
        ("the red cube", "which object is the red cube"),
        ("left of the red cube", "which of these objects is left of the red cube"),
        ("which object is red", "which object is red"),
    ):
        assert as_question(said.split()) == asked.split()


def test_windows_lie_within_and_leave_no_place_out() -> None:
    found = windows()
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1 + 1e-6
    for x, y in ((0.02, 0.02), (0.97, 0.5), (0.5, 0.97), (0.98, 0.98)):
        inside = (found[:, 0] <= x) & (found[:, 2] >= x) & (found[:, 1] <= y) & (found[:, 3] >= y)
        assert inside.any(), (x, y)


corners = st.lists(st.floats(0, 1), min_size=4, max_size=4)


@given(corners, corners)
def test_overlap_is_that_of_the_pixels(one: list[float], other: list[float]) -> None:
    boxes = [torch.tensor([min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]), max(c[1], c[3])]) for c in (one, other)]
    shared = float(overlap(*boxes))
    assert 0 <= shared <= 1 + 1e-5
    assert shared == pytest.approx(float(overlap(boxes[1], boxes[0])), abs=1e-6)
    fine = (torch.arange(400) + 0.5) / 400
    inside = [((fine > box[0]) & (fine < box[2]))[:, None] & ((fine > box[1]) & (fine < box[3]))[None] for box in boxes]
    union = (inside[0] | inside[1]).sum()
    if float(union) > 400**2 * 0.02:
        assert shared == pytest.approx(float((inside[0] & inside[1]).sum() / union), abs=0.12)


def test_kept_boxes_are_apart() -> None:
    boxes = torch.tensor([[0.0, 0, 0.5, 0.5], [0.05, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0.0, 0.6, 0.3, 1]])
    assert apart(boxes, [1, 0, 2, 3], most=4) == [1, 2, 3]
    assert apart(boxes, [0, 1, 2, 3], most=2) == [0, 2]


def test_refusals_say_what_to_do() -> None:
    opened = toy()
    sizes = {name: size for name, size in SIZES.items() if name != "vocab"}
    asks = Answerer(Visual7W(vocab=SIZES["vocab"], **sizes), opened.vocabulary, "asking")
    for question, more, told in (
        ("", {}, "the question is empty"),
        ("wer ist das", {}, "no word of"),
        ("the cube", {"boxes": []}, "two or more"),
        ("the cube", {"boxes": [(1.0, 1.0, 5.0, 5.0), (1.0, 1.0, 5.0)]}, "expected left, top, right, bottom"),
        ("the cube", {"boxes": [(1.0, 1.0, 5.0, 5.0), (5.0, 1.0, 1.0, 5.0)]}, "left < right"),
        ("the cube", {"boxes": [(1.0, 1.0, 5.0, 5.0), (-1.0, 1.0, 5.0, 5.0)]}, "within the picture of 60 x 40"),
        ("the cube", {"boxes": [(1.0, 1.0, 5.0, 5.0), (float("nan"), 1.0, 5.0, 5.0)]}, "left, top, right, bottom"),
        ("the cube", {"system": asks}, "is for the verb ask"),
    ):
        with pytest.raises(QuestionError, match=told):
            point(PICTURE, question, **({"system": opened} | more))
