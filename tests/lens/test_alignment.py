"""Alignments: words joined from pieces, pictures and pages of them, wrong shapes refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sightline.lens.alignment import Alignment, merged
from sightline.lens.paint import colour_table

COUNTS = st.lists(st.integers(1, 3), min_size=1, max_size=5)


def some() -> Alignment:
    weights = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    return Alignment(weights, ("a", "<b>"), ("ein", "</script>", "c"))


def test_pairs_name_the_word_that_was_looked_at_most() -> None:
    assert some().pairs() == [("a", "ein", 0.7), ("<b>", "c", 0.8)]


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 99),
    target=st.lists(st.integers(1, 3), min_size=1),
    source=st.lists(st.integers(1, 3), min_size=1),
)
def test_pieces_are_joined_to_words_and_rows_still_sum_to_one(seed: int, target: list[int], source: list[int]) -> None:
    weights = np.random.default_rng(seed).random((sum(target), sum(source)))
    weights /= weights.sum(axis=1, keepdims=True)
    rows, columns = ([(f"w{i}", n) for i, n in enumerate(side)] for side in (target, source))
    joined = merged(weights, rows, columns)
    assert joined.weights.shape == (len(target), len(source))
    np.testing.assert_allclose(joined.weights.sum(axis=1), 1)
    wanted = weights[: target[0], : source[0]].sum(axis=1).mean()
    np.testing.assert_allclose(joined.weights[0, 0], wanted)
    last = weights[-target[-1] :, -source[-1] :].sum(axis=1).mean()
    np.testing.assert_allclose(joined.weights[-1, -1], last)


def test_the_picture_is_brightest_where_the_weight_is_largest() -> None:
    weights = np.zeros((3, 4))
    weights[0, 1] = weights[1, 3] = weights[2, 0] = 1.0
    plain = Alignment(weights, ("x", "y", "z"), ("a", "b", "c", "d")).picture()
    other = Alignment(weights[:, ::-1].copy(), ("x", "y", "z"), ("a", "b", "c", "d")).picture()
    brightest = colour_table("viridis")[255]
    yellow = [np.argwhere((np.asarray(image)[..., :3] == brightest).all(axis=2)) for image in (plain, other)]
    assert len(yellow[0]) > 100
    top = yellow[0][yellow[0][:, 0] == yellow[0][:, 0].min()][:, 1].mean()
    mirrored = yellow[1][yellow[1][:, 0] == yellow[1][:, 0].min()][:, 1].mean()
    assert top < mirrored  # in the top row, column 1 of 4 lies left of column 2 of 4


def test_the_page_holds_the_numbers_and_nothing_from_outside(tmp_path: Path) -> None:
    page = some().save(tmp_path / "deep" / "a.html", title="<Title>").read_text(encoding="utf-8")
    assert "&lt;Title&gt;" in page
    assert "<Title>" not in page
    assert not re.search(r"(src|href)=|https?:", page)
    assert page.count("</script>") == 1, "words cannot end the script"
    data = json.loads(re.search(r"data=(\{.*\}),w=", page)[1])
    assert data["target"] == ["a", "<b>"]
    assert data["source"][1] == "</script>"
    assert data["weights"] == [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]


def test_pictures_are_written_and_other_endings_refused(tmp_path: Path) -> None:
    for name in ("a.png", "a.JPG", "a.webp"):
        assert Image.open(some().save(tmp_path / name)).width > 100
    with pytest.raises(ValueError, match=r"a\.pdf: expected a picture"):
        some().save(tmp_path / "a.pdf")


def test_what_is_no_alignment_is_refused() -> None:
    with pytest.raises(ValueError, match="one word a row and a column"):
        Alignment(np.ones((2, 2)) / 2, ("a",), ("b", "c"))
    with pytest.raises(ValueError, match="at least one each"):
        Alignment(np.ones((0, 2)), (), ("b", "c"))
    with pytest.raises(ValueError, match="before the softmax"):
        Alignment(np.array([[3.0, -2.0]]), ("a",), ("b", "c"))
    with pytest.raises(ValueError, match="do not fit"):
        merged(np.ones((2, 2)) / 2, [("a", 1)], [("b", 2)])
