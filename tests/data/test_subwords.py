"""Sub-words: sentences come back as they were written, unknown characters stay unknown, files are checked."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.data.subwords import Subwords

TEXT = [
    "Ein Mann spielt Gitarre.",
    "Eine Frau spielt eine Gitarre, während ein Mann singt.",
    "A man's t-shirt isn't red; it's (almost) blue!",
    "Zwei Männer spielen mit einem Hund am Fluss.",
] * 5
KNOWN = Subwords.build([*TEXT, "x-y ( Mann"], size=90)


@pytest.fixture(scope="module")
def pieces() -> Subwords:
    return Subwords.build(TEXT, size=120)


def test_special_pieces_come_first_and_size_is_kept(pieces: Subwords) -> None:
    assert pieces.pieces([0, 1, 2, 3]) == ["<pad>", "<start>", "<end>", "<unk>"]
    assert len(pieces) <= 120
    assert len(Subwords.build(TEXT, size=90)) == 90


@pytest.mark.parametrize("text", TEXT[:4])
def test_sentences_come_back_as_they_were_written(pieces: Subwords, text: str) -> None:
    numbers = pieces.encode(text)
    assert min(numbers) > 3
    assert pieces.decode(numbers) == text
    assert "".join(pieces.pieces(numbers)).replace("▁", " ").strip() == text


@settings(deadline=None, max_examples=25)
@given(
    words=st.lists(st.sampled_from(["Mann", "Hund", "spielt", "tMan", ".", ",", "(", "x-y"]), min_size=1, max_size=9)
)
def test_any_words_of_known_letters_come_back(words: list[str]) -> None:
    text = " ".join(words)
    assert KNOWN.decode(KNOWN.encode(text)) == text


def test_frequent_words_are_one_piece_and_marks_are_their_own(pieces: Subwords) -> None:
    named = pieces.pieces(pieces.encode("spielt, Mann."))
    assert "▁Mann" in named
    assert named[-1] == "."
    assert "," in named


def test_spaces_and_quotes_are_made_plain(pieces: Subwords) -> None:
    assert pieces.encode("  Ein \t Mann\n") == pieces.encode("Ein Mann")
    assert pieces.encode("man’s") == pieces.encode("man's")


def test_strange_characters_are_unknown_and_decoding_leaves_special_pieces_out(pieces: Subwords) -> None:
    numbers = pieces.encode("漢 Mann")
    assert pieces.unknown in numbers
    assert pieces.unknown_in("漢 Mann漢字, man’s  Hund") == ("漢", "字")
    assert pieces.unknown_in("Ein Mann") == ()
    assert pieces.unknown_in("Hu\u0308\u0327nd") in (("ü", "\u0327"), ("\u0327",), ("ü\u0327",))  # never "u" alone
    assert pieces.decode([1, *numbers, 2, *pieces.encode("Hund")]).strip() == "Mann"


def test_many_are_encoded_as_one_by_one_and_absurd_lengths_are_refused(pieces: Subwords) -> None:
    assert pieces.encode_all(TEXT[:4]) == [pieces.encode(text) for text in TEXT[:4]]
    with pytest.raises(ValueError, match="at most 20000"):
        pieces.encode("a" * 20_001)


def test_saved_and_loaded_they_are_the_same(pieces: Subwords, tmp_path: Path) -> None:
    pieces.save(tmp_path / "pieces.json")
    again = Subwords.load(tmp_path / "pieces.json")
    assert again == pieces
    assert again.encode(TEXT[1]) == pieces.encode(TEXT[1])
    assert Subwords.build(TEXT, size=120) == pieces
    assert Subwords.build(TEXT, size=100) != pieces


@pytest.mark.parametrize("content", ["", "{}", '{"words": ["a"]}', "\0"])
def test_files_that_are_none_are_refused_by_name(content: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        Subwords.load(tmp_path / "absent.json")
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(ValueError, match=r"bad\.json"):
        Subwords.load(tmp_path / "bad.json")


def test_too_small_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match="is too small for"):
        Subwords.build(TEXT, size=10)
    with pytest.raises(ValueError, match="at least one sentence"):
        Subwords.build([], size=100)
