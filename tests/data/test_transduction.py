"""Generated pairs: the rule holds, the alignment is true, everything follows from the seed."""

import pytest

from sightline.data.transduction import LETTERS, TASKS, Transduction, open_transduction


@pytest.mark.parametrize("task", TASKS)
def test_each_target_word_is_the_source_word_it_is_aligned_with(task: str) -> None:
    pairs = Transduction(task, 200, shortest=1, longest=9, seed=3)
    assert len(pairs) == 200
    assert {len(text.split()) for text in pairs.source} == set(range(1, 10))
    for number in range(200):
        source, target = (text.split() for text in pairs[number])
        assert [source[place] for place in pairs.alignment[number]] == target
        assert sorted(pairs.alignment[number]) == list(range(len(source)))
        assert set(source) <= set(LETTERS)


def test_the_rules() -> None:
    source, target = Transduction("reverse", 1, shortest=5, longest=5)[0]
    assert source.split()[::-1] == target.split()
    source, target = Transduction("copy", 1, shortest=5, longest=5)[0]
    assert source == target
    source, target = Transduction("swap", 1, shortest=5, longest=5)[0]
    a, b, c, d, e = source.split()
    assert target.split() == [b, a, d, c, e]


def test_everything_follows_from_the_seed() -> None:
    assert Transduction("copy", 50, seed=1).source == Transduction("copy", 50, seed=1).source
    assert Transduction("copy", 50, seed=1).source != Transduction("copy", 50, seed=2).source


def test_the_usual_splits_share_nothing_and_test_is_longer() -> None:
    splits = {name: open_transduction("reverse", name) for name in ("train", "val", "test")}
    assert max(len(text.split()) for text in splits["train"].source) == 20
    assert max(len(text.split()) for text in splits["test"].source) == 40
    assert not set(splits["train"].source) & set(splits["val"].source + splits["test"].source)


def test_unknown_tasks_splits_and_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="copy, reverse, swap"):
        Transduction("sort", 5)
    with pytest.raises(ValueError, match="1 <= shortest <= longest"):
        Transduction("copy", 5, shortest=6, longest=5)
    with pytest.raises(ValueError, match="train, val, test"):
        open_transduction("copy", "dev")
