import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.metrics import java
from sightline.metrics.captions import (
    bleu,
    bleu_counts,
    bleu_each,
    cider,
    cider_d,
    cider_d_each,
    cider_plain,
    rouge_l,
    rouge_l_each,
    score_captions,
)
from sightline.metrics.ngrams import DocumentFrequency, common_length, ngrams

# -- by hand -----------------------------------------------------------------------------------------------------------


def test_bleu_by_hand() -> None:
    # "the" occurs twice in one reference at most: clipped to 2 of 7 (Papineni's own example)
    assert bleu(["the the the the the the the"], [["The cat is on the mat.", "There is a cat on the mat."]])[0] == (
        pytest.approx(2 / 7)
    )
    # 4 of 5 words, 2 of 4 pairs, 1 of 3 triples, no four; both lengths 5
    scores = bleu(["a dog runs on snow"], [["a dog runs in snow"]])
    assert scores[:3] == pytest.approx([0.8, math.sqrt(0.8 * 0.5), (0.8 * 0.5 / 3) ** (1 / 3)])
    assert 0 < scores[3] < 1e-3
    # short caption: 2 words against 4, exp(1 - 4/2)
    assert bleu(["a dog"], [["a dog runs there"]])[0] == pytest.approx(math.exp(-1))
    # of references with 3 and 5 words, both one away from 4, the shorter counts: no penalty
    assert bleu(["a b c d"], [["a b c d e", "a b c"]])[:4] == pytest.approx([1, 1, 1, 1])


def test_bleu_of_a_corpus_sums_counts_and_does_not_average() -> None:
    captions, references = ["a b", "c x y z"], [["a b"], ["c d e f"]]
    assert bleu_counts(captions, references) == {
        "testlen": 6, "reflen": 6, "guess": [6, 4, 2, 1], "correct": [3, 1, 0, 0],
    }  # fmt: skip
    assert bleu(captions, references)[0] == pytest.approx(3 / 6)
    assert bleu_each(captions, references)[:, 0] == pytest.approx([1, 1 / 4])


def test_rouge_by_hand() -> None:
    # the longest common subsequence of both pairs is 3: P = 3/4, R = 3/5
    precision, recall = 3 / 4, 3 / 5
    expected = (1 + 1.44) * precision * recall / (recall + 1.44 * precision)
    assert rouge_l(["a b c d"], [["a x b c y"]]) == pytest.approx(expected)
    # the best precision and the best recall may come from two references
    each = rouge_l_each(["a b c d", "q"], [["a b z z z z", "c"], ["z"]])
    assert each == pytest.approx([(1 + 1.44) * 0.5 * 1 / (1 + 1.44 * 0.5), 0])
    assert rouge_l([""], [["a"]]) == 0


def test_cider_by_hand() -> None:
    # two pictures, one word each in the captions: only 1-grams, idf = log 2 for every word
    captions, references = [["dog"], ["cat"]], [[["dog"]], [["hat"]]]
    assert cider_d_each(captions, references) == pytest.approx([10 / 4, 0])
    assert cider_plain(captions, references) == pytest.approx(10 / 8)
    # a word that every picture has weighs nothing
    assert cider_d([["a", "dog"], ["a", "cat"]], [[["a"]], [["a"]]]) == 0
    # said twice: clipped to the reference's weight in CIDEr-D, not in the plain one; length one pair of words too many
    doubled = cider_d_each([["dog", "dog"], ["cat"]], [[["dog"]], [["hat"]]])[0]
    assert doubled == pytest.approx(10 / 4 * math.exp(-1 / 72) * 1 / 2)
    assert cider_plain([["dog", "dog"], ["cat"]], [[["dog"]], [["hat"]]]) == pytest.approx(10 / 8)


def test_cider_with_a_frequency_that_is_given() -> None:
    references = [[["a", "dog", "runs"]], [["a", "cat", "sits"]], [["a", "cat", "runs"]]]
    frequency = DocumentFrequency.of(references)
    assert frequency.counts[("a",)] == 3
    assert frequency.counts[("cat",)] == 2
    assert frequency.rarity(("dog",)) == pytest.approx(math.log(3))
    captions = [["a", "dog"], ["a", "cat", "runs"], ["runs"]]
    whole = cider_d_each(captions, references)
    one_by_one = [cider_d(captions[i : i + 1], references[i : i + 1], frequency) for i in range(3)]
    assert one_by_one == pytest.approx(whole.tolist())
    assert whole[0] > 0
    assert cider_d(captions[:1], references[:1]) == 0  # one picture alone tells no frequencies
    assert cider(captions, references) == cider_d(captions, references)


def test_counting() -> None:
    assert ngrams(["a", "b", "a"], 2) == {("a",): 2, ("b",): 1, ("a", "b"): 1, ("b", "a"): 1}
    assert common_length(["a", "b", "c", "b", "d", "a", "b"], ["b", "d", "c", "a", "b", "a"]) == 4
    assert common_length([], ["a"]) == 0


# -- properties --------------------------------------------------------------------------------------------------------

WORDS = st.lists(st.sampled_from(["a", "dog", "cat", "runs", "on", "the"]), max_size=8)
PAIRS = st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=4)), min_size=1, max_size=6)


@given(PAIRS)
@settings(deadline=None)
def test_bounds_and_order(pairs: list[tuple[list[str], list[list[str]]]]) -> None:
    captions, references = [p[0] for p in pairs], [p[1] for p in pairs]
    scores = score_captions(captions, references)
    assert all(0 <= value <= 1 + 1e-9 for name, value in scores.items() if name != "CIDEr")
    assert 0 <= scores["CIDEr"] <= 10 + 1e-9
    # neither the order of the pictures nor that of the references matters
    turned = score_captions(captions[::-1], [one[::-1] for one in references[::-1]])
    assert turned == pytest.approx(scores)


@given(PAIRS)
@settings(deadline=None)
def test_equal_to_the_official_scorers(pairs: list[tuple[list[str], list[list[str]]]]) -> None:
    bleu_scorer = pytest.importorskip("pycocoevalcap.bleu.bleu")
    cider_scorer = pytest.importorskip("pycocoevalcap.cider.cider")
    rouge_scorer = pytest.importorskip("pycocoevalcap.rouge.rouge")
    captions, references = [p[0] for p in pairs], [p[1] for p in pairs]
    known = {i: [" ".join(words) for words in one] for i, one in enumerate(references)}
    said = {i: [" ".join(words)] for i, words in enumerate(captions)}
    total, each = bleu_scorer.Bleu(4).compute_score(known, said, verbose=0)
    assert bleu(captions, references) == pytest.approx(total, rel=1e-9, abs=1e-15)
    np.testing.assert_allclose(bleu_each(captions, references).T, each, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(rouge_l_each(captions, references), rouge_scorer.Rouge().compute_score(known, said)[1])
    if any(one for words in references for one in words):  # the official one cannot take references without a word
        np.testing.assert_allclose(
            cider_d_each(captions, references), cider_scorer.Cider().compute_score(known, said)[1], atol=1e-9
        )


def test_a_perfect_caption() -> None:
    captions = ["a dog runs on the snow", "two cats sit in a box", "a man rides a horse"]
    scores = score_captions(captions, [[one] for one in captions])
    assert [scores[f"BLEU-{n}"] for n in (1, 2, 3, 4)] == pytest.approx([1] * 4)
    assert scores["ROUGE-L"] == pytest.approx(1)
    assert scores["CIDEr"] == pytest.approx(10)


def test_strings_are_cut_and_lists_are_taken_as_they_are() -> None:
    assert bleu(["A Dog."], [["a dog"]])[0] == pytest.approx(1)
    assert bleu([["A", "Dog."]], [[["a", "dog"]]])[0] < 1e-6


def test_what_does_not_pair_is_said() -> None:
    cases = {
        "2 captions and references of 1 pictures": (["a", "b"], [["a"]]),
        "0 captions": ([], []),
        r"references\[1\] must be a list of one or more captions, given none": (["a", "b"], [["a"], []]),
        r"references\[0\] must be a list of one or more captions, given one string": (["a"], ["a"]),
        "given one string": ("a", [["a"]]),
    }
    for told, pair in cases.items():
        for metric in (bleu, rouge_l, cider_d, cider_plain, score_captions):
            with pytest.raises(ValueError, match=told):
                metric(*pair)


# -- Java --------------------------------------------------------------------------------------------------------------


def test_without_java_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java.shutil, "which", lambda name: None)
    for metric, name in ((java.meteor, "METEOR"), (java.spice, "SPICE")):
        with pytest.raises(ValueError, match=f"{name} needs Java, and there is no `java` on the path") as told:
            metric(["a dog"], [["a dog"]])
        assert "\n" not in str(told.value)
    monkeypatch.undo()
    monkeypatch.setattr(java.shutil, "which", lambda name: "java")
    monkeypatch.setattr(java.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="METEOR needs the package pycocoevalcap"):
        java.meteor(["a dog"], [["a dog"]])


@pytest.mark.slow  # the program reads its table of paraphrases at each start
def test_meteor_of_nlg_eval(shared: Path, needs_java: None) -> None:
    told = json.loads((shared / "data" / "metrics" / "nlg_eval" / "published.json").read_text())
    names = ("single_pair", "single_pair_non_ascii")
    captions = [told[name]["hyp"].split() for name in names]
    references = [[one.split() for one in told[name]["ref"]] for name in names]
    each = java.meteor_each(captions, references)
    assert each == pytest.approx([told[name]["scores"]["METEOR"] for name in names], abs=1e-7)


# -- published ---------------------------------------------------------------------------------------------------------

OURS = {f"Bleu_{n}": f"BLEU-{n}" for n in range(1, 5)} | {"ROUGE_L": "ROUGE-L", "CIDEr": "CIDEr"}


@pytest.mark.parametrize("name", ["ece285", "spot_the_diff_ddla"])
def test_published_figures_of_captioners(name: str, shared: Path) -> None:
    folder = shared / "data" / "metrics" / name
    told = json.loads((folder / "published.json").read_text())
    known: dict[str, list[str]] = {}
    for entry in json.loads((folder / "references.json").read_text())["annotations"]:
        known.setdefault(str(entry["image_id"]), []).append(entry["caption"])
    said = json.loads((folder / "hypotheses.json").read_text())
    captions, references = [one["caption"] for one in said], [known[str(one["image_id"])] for one in said]
    assert bleu_counts(captions, references) == told["bleu_details"]
    scores = score_captions(captions, references)
    for theirs, mine in OURS.items():
        assert round(scores[mine], told["printed_digits"]) == told["scores"][theirs], mine


def test_published_figures_of_nlg_eval(shared: Path) -> None:
    folder = shared / "data" / "metrics" / "nlg_eval"
    told = json.loads((folder / "published.json").read_text())
    whole = told["corpus_from_files"]
    known = [(folder / name).read_text().rstrip("\n").split("\n") for name in whole["references"]]
    captions = (folder / whole["hypothesis"]).read_text().rstrip("\n").split("\n")
    pairs = {"corpus_from_files": (captions, [list(one) for one in zip(*known, strict=True)])}
    for name in ("single_pair", "single_pair_non_ascii"):
        pairs[name] = ([told[name]["hyp"].split()], [[one.split() for one in told[name]["ref"]]])
    for name, pair in pairs.items():
        scores = score_captions(*pair)
        for theirs, mine in OURS.items():
            # asserted to five places where they come from
            assert scores[mine] == pytest.approx(told[name]["scores"][theirs], abs=5e-6), (name, mine)
