import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sightline.data.judgements import open_crowd, open_expert
from sightline.metrics.captions import bleu_each, cider_d_each, rouge_l_each
from sightline.metrics.correlation import kendall

VALUES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=2, max_size=40)


def test_by_hand() -> None:
    # six pairs: four in order, one against, one tied in the ratings
    scores, ratings = [1, 2, 3, 4], [1, 3, 2, 3]
    assert kendall(scores, ratings) == pytest.approx((4 - 1) / np.sqrt(6 * 5))
    assert kendall(scores, ratings, variant="c") == pytest.approx(2 * 3 * 3 / (16 * 2))
    assert kendall([1, 2], [5, 4]) == -1


@given(VALUES)
@settings(deadline=None)
def test_equal_to_counting_every_pair(pairs: list[tuple[int, int]]) -> None:
    first, second = np.array(pairs).T
    assume(len(set(first)) > 1 and len(set(second)) > 1)
    n = len(first)
    signs = [(np.sign(first[j] - first[i]), np.sign(second[j] - second[i])) for i in range(n) for j in range(i)]
    difference = sum(a * b for a, b in signs)
    untied = [sum(pair[k] != 0 for pair in signs) for k in (0, 1)]
    assert kendall(first, second) == pytest.approx(difference / np.sqrt(untied[0] * untied[1]))
    fewer = min(len(set(first)), len(set(second)))
    assert kendall(first, second, variant="c") == pytest.approx(2 * fewer * difference / (n**2 * (fewer - 1)))


@given(VALUES)
@settings(deadline=None)
def test_equal_to_scipy(pairs: list[tuple[int, int]]) -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second = np.array(pairs).T
    assume(len(set(first)) > 1 and len(set(second)) > 1)
    for variant in ("b", "c"):
        assert kendall(first, second, variant=variant) == pytest.approx(
            stats.kendalltau(first, second, variant=variant).statistic
        )


def test_what_cannot_be_ranked_is_said() -> None:
    for told, first, second in (
        ("two rows of the same length", [1, 2], [1, 2, 3]),
        ("every pair is tied", [1, 1], [1, 2]),
        ("must be finite", [1, float("nan")], [1, 2]),
    ):
        with pytest.raises(ValueError, match=told):
            kendall(first, second)
    with pytest.raises(ValueError, match="given 'a'"):
        kendall([1, 2], [1, 2], variant="a")


def write(folder: Path) -> Path:
    captions = folder / "Flickr8k.token.txt"
    captions.write_text("".join(f"{p}.jpg#{k}\t{p} {k}\n" for p in "ab" for k in range(2)))
    (folder / "ExpertAnnotations.txt").write_text("a.jpg\tb.jpg#1\t1\t2\t1\na.jpg\ta.jpg#0\t4\t4\t4\n")
    (folder / "CrowdFlowerAnnotations.txt").write_text("a.jpg\tb.jpg#1\t0.5\t1\t1\na.jpg\ta.jpg#0\t1\t3\t0\n")
    return captions


def test_judgements_are_read_as_published(tmp_path: Path) -> None:
    captions = write(tmp_path)
    expert = open_expert(tmp_path, captions)
    assert (expert.captions, expert.ratings) == (["b 1"] * 3, [1, 2, 1])  # the photograph's own caption is left out
    assert expert.references == [["a 0", "a 1"]] * 3
    crowd = open_crowd(tmp_path, captions)
    assert (crowd.captions, crowd.ratings) == (["b 1", "a 0"], [0.5, 1])
    assert crowd.references == [["a 1"]] * 2  # taken out of the references of both entries


def test_what_is_wrong_in_judgements_is_named(tmp_path: Path) -> None:
    captions = write(tmp_path)
    with pytest.raises(ValueError, match=r"ExpertAnnotations\.txt: no such file"):
        open_expert(tmp_path / "gone", captions)
    file = tmp_path / "ExpertAnnotations.txt"
    for line in ("a.jpg\tb.jpg#1\t1\t2", "a.jpg\tb.jpg\t1\t2\t3", "a.jpg", "a.jpg\tb.jpg#1\t1\t2\tgood"):
        file.write_text(f"a.jpg\tb.jpg#1\t1\t2\t1\n{line}\n")
        with pytest.raises(ValueError, match=r"ExpertAnnotations\.txt: line 2 is not PHOTOGRAPH, NAME#K and 3 numbers"):
            open_expert(tmp_path, captions)
    file.write_text("a.jpg\tz.jpg#1\t1\t2\t1\n")
    with pytest.raises(ValueError, match=r"line 1 names a\.jpg and z\.jpg#1; the file of captions lacks"):
        open_expert(tmp_path, captions)


def test_published_correlation_with_experts(shared: Path) -> None:
    folder = shared / "data" / "metrics"
    told = json.loads((folder / "flickr8k_human" / "published.json").read_text())["Flickr8k-Expert"]["scores"]
    judged = open_expert(folder / "flickr8k_human", folder / "Flickr8k.token.full.txt")
    assert len(judged) == 16992
    # each caption was rated three times: score it once; idf over thrice the same references is the same
    once, three = slice(None, None, 3), lambda values: np.repeat(values, 3)
    pair = (judged.captions[once], judged.references[once])
    bleus = bleu_each(*pair)
    ours = {"BLEU-1": bleus[:, 0], "BLEU-4": bleus[:, 3], "ROUGE-L": rouge_l_each(*pair)}
    ours["CIDEr"] = cider_d_each(*pair)
    for metric, values in ours.items():
        assert round(100 * kendall(three(values), judged.ratings, variant="c"), 1) == told[metric], metric


@pytest.mark.slow
def test_published_correlation_with_the_crowd(shared: Path) -> None:
    folder = shared / "data" / "metrics"
    told = json.loads((folder / "flickr8k_human" / "published.json").read_text())["Flickr8k-CF"]["scores"]
    judged = open_crowd(folder / "flickr8k_human", folder / "Flickr8k.token.full.txt")
    assert len(judged) == 47830
    pair = (judged.captions, judged.references)
    bleus = bleu_each(*pair)
    ours = {"BLEU-1": bleus[:, 0], "BLEU-4": bleus[:, 3], "ROUGE-L": rouge_l_each(*pair), "CIDEr": cider_d_each(*pair)}
    for metric, values in ours.items():
        assert round(100 * kendall(values, judged.ratings), 1) == told[metric], metric
