import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.data.vocabulary import Vocabulary, caption_tokens, plain_text, sentence_tokens


def test_words_of_a_caption() -> None:
    assert caption_tokens("A man's T-shirt isn't red, 2,000 dogs.") == [
        *("a", "man", "'s", "t-shirt", "is", "n't", "red", "2,000", "dogs")
    ]
    assert caption_tokens("  ... !? ") == []
    assert caption_tokens("It’s snow_white") == ["it", "'s", "snow", "white"]


def test_pieces_of_a_sentence_and_back() -> None:
    text = "A man's T-shirt (size 3.5) isn't red, is it?"
    tokens = sentence_tokens(text, lower=False)
    assert tokens == ["A", "man's", "T-shirt", "(", "size", "3.5", ")", "isn't", "red", ",", "is", "it", "?"]
    assert plain_text(tokens) == text
    assert sentence_tokens("Über Straße!") == ["über", "straße", "!"]
    assert plain_text(["a", "man", "'s", "dog", "is", "n't", "here", "."]) == "a man's dog isn't here."


@given(st.lists(st.text(st.characters(categories=["L", "N", "P", "Z"]), max_size=12), max_size=8))
@settings(deadline=None)
def test_no_letter_of_a_sentence_is_lost(pieces: list[str]) -> None:
    text = " ".join(pieces)
    kept = "".join(sentence_tokens(text, lower=False))
    assert [c for c in text if c.isalnum()] == [c for c in kept if c.isalnum()]


def test_numbers_by_frequency_then_alphabet() -> None:
    words = Vocabulary.build([["b", "a", "c"], ["b", "a"], ["d"]])
    assert words.words == ("<pad>", "<start>", "<end>", "<unk>", "a", "b", "c", "d")
    assert (words.pad, words.start, words.end, words.unknown) == (0, 1, 2, 3)
    assert Vocabulary.build([["b", "a", "c"], ["b", "a"]], minimum=2).words[4:] == ("a", "b")
    assert len(Vocabulary.build([["b", "a", "c"], ["b"]], size=5)) == 5
    assert words.encode(["a", "zebra", "d"]) == [4, 3, 7]
    assert "a" in words
    assert "zebra" not in words


def test_decoding_stops_at_the_end() -> None:
    words = Vocabulary(["a", "dog"])
    assert words.decode([1, 4, 5, 0, 3, 2, 5]) == ["a", "dog", "<unk>"]
    assert words.decode(torch.tensor([1, 5, 2])) == ["dog"]
    with pytest.raises(ValueError, match="6 is no word of a vocabulary of 6"):
        words.decode([6])
    with pytest.raises(ValueError, match="-1 is no word"):
        words.decode([-1])


@given(st.lists(st.lists(st.text(min_size=1, max_size=5), max_size=6), min_size=1, max_size=6))
@settings(deadline=None)
def test_what_is_known_comes_back(lists: list[list[str]]) -> None:
    lists = [[w for w in words if w not in ("<pad>", "<start>", "<end>", "<unk>")] for words in lists]
    if not any(lists):
        return
    vocabulary = Vocabulary.build(lists)
    for words in lists:
        assert vocabulary.decode(vocabulary.encode(words)) == words


def test_saved_and_loaded(tmp_path: Path) -> None:
    words = Vocabulary(["naïve", "dog", '"'])
    words.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == words
    for text in ("{", "[]", '{"words": 3}', '{"words": [3]}', '{"other": []}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.json: not a vocabulary"):
            Vocabulary.load(tmp_path / "bad.json")
    (tmp_path / "twice.json").write_text(json.dumps({"words": ["a", "a"]}))
    with pytest.raises(ValueError, match="given more than once: a"):
        Vocabulary.load(tmp_path / "twice.json")
    with pytest.raises(ValueError, match=r"none\.json: no such file"):
        Vocabulary.load(tmp_path / "none.json")


def test_what_makes_no_vocabulary_is_said() -> None:
    with pytest.raises(ValueError, match="no word occurs 3 times"):
        Vocabulary.build([["a"], ["a"]], minimum=3)
    with pytest.raises(ValueError, match="size above 4"):
        Vocabulary.build([["a"]], size=4)
    with pytest.raises(ValueError, match="<end>"):
        Vocabulary(["<end>"])


def test_flickr8k_has_its_usual_vocabulary(shared: Path) -> None:
    from sightline.data.captions import open_captions

    train = open_captions(f"flickr8k:{shared / 'data' / 'flickr8k'}", "train")
    words = Vocabulary.build((caption_tokens(c) for some in train.captions for c in some), minimum=5)
    assert words.words[4:8] == ("a", "in", "the", "on")
    assert 2400 < len(words) < 2700
