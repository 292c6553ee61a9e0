import math

import pytest

from sightline.metrics.translation import bleu, bleu_by_length, bleu_signature

pytest.importorskip("sacrebleu")


def test_by_hand() -> None:
    # words 4 of 5, pairs 3 of 4, triples 2 of 3, fours 1 of 2 right; lengths equal
    score = bleu(["a b c d x"], ["a b c d e"])
    assert score == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4))
    short = bleu(["a b c d"], ["a b c d e"])
    assert short == pytest.approx(100 * math.exp(1 - 5 / 4))
    assert bleu(["A dog runs here."], ["A dog runs here."]) == pytest.approx(100)


def test_case_and_cut() -> None:
    assert bleu(["a dog runs here ."], ["A dog runs here."]) < 100
    assert bleu(["a dog runs here ."], ["A dog runs here."], lowercase=True) == pytest.approx(100)
    assert bleu(["a dog runs here ."], ["a dog runs here."], tokenize="none") < 100
    assert bleu_signature().startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert "case:lc" in bleu_signature(lowercase=True)


def test_equal_to_sacrebleu_itself() -> None:
    import sacrebleu

    said = ["The dog runs fast.", "Two men, one hat!", "A child plays in the snow with a red ball."]
    right = ["The dog is running fast.", "Two men and one hat!", "A child is playing in the snow with a ball."]
    assert bleu(said, right) == pytest.approx(sacrebleu.corpus_bleu(said, [right]).score)


def test_by_length() -> None:
    right = ["a b c d e"] * 3 + ["a b c d e f g h i j k l"] * 2
    said = ["a b c d e"] * 3 + ["a b c d e f g h x y z w"] * 2
    short, long = bleu_by_length(said, right, edges=(5, 10, 20))
    assert (short.low, short.high, short.sentences, short.bleu) == (5, 5, 3, pytest.approx(100))
    assert (long.low, long.high, long.sentences) == (11, 20, 2)
    assert long.bleu == pytest.approx(bleu(said[3:], right[3:]))
    over = bleu_by_length(said, right, [50] * 5, edges=(10, 20))
    assert [(one.low, one.high, one.sentences) for one in over] == [(21, None, 5)]
    assert str(short) == "5-5 words: 100.0 (3 sentences)"
    assert str(over[0]).startswith("21+ words: ")


def test_what_does_not_fit_is_said() -> None:
    for told, call in {
        "2 translations and 1 references": lambda: bleu(["a", "b"], ["a"]),
        "0 translations": lambda: bleu([], []),
        "given one string": lambda: bleu("a", ["a"]),
        "tokenize must be one of": lambda: bleu(["a"], ["a"], tokenize="words"),
        "edges must rise": lambda: bleu_by_length(["a"], ["a"], edges=(10, 10)),
        "2 lengths for 1 translations": lambda: bleu_by_length(["a"], ["a"], [1, 2]),
    }.items():
        with pytest.raises(ValueError, match=told):
            call()
