"""The one mask convention: boolean, True = may attend."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sightline.attention import masks


@given(st.integers(1, 12), st.integers(0, 6))
def test_causal_lets_each_query_see_its_past(queries: int, start: int) -> None:
    mask = masks.causal(queries, start=start)
    assert mask.shape == (1, 1, queries, queries + start)
    for i in range(queries):
        for j in range(queries + start):
            assert mask[0, 0, i, j] == (j <= i + start)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 4))
def test_padding_hides_what_lies_beyond_a_length(lengths: list[int], more: int) -> None:
    mask = masks.padding(torch.tensor(lengths), max(lengths) + more)
    assert mask.shape == (len(lengths), 1, 1, max(lengths) + more)
    assert mask.sum(dim=-1).flatten().tolist() == lengths
    assert all(mask[b, 0, 0, :n].all() for b, n in enumerate(lengths))


@given(st.integers(1, 10), st.integers(0, 10))
def test_window_is_a_band(queries: int, radius: int) -> None:
    mask = masks.window(queries, radius)[0, 0]
    assert all(mask[i, j] == (abs(i - j) <= radius) for i in range(queries) for j in range(queries))


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_block_diagonal_keeps_blocks_apart(lengths: list[int]) -> None:
    mask = masks.block_diagonal(lengths)[0, 0]
    assert torch.equal(mask, torch.block_diag(*[torch.ones(n, n) for n in lengths]).bool())


def test_combine_is_and_and_none_is_everything() -> None:
    lengths = masks.padding(torch.tensor([2, 4]))
    both = masks.combine(masks.causal(4), None, lengths)
    assert both is not None
    assert torch.equal(both, masks.causal(4) & lengths)
    assert masks.combine() is None
    assert masks.combine(None, None) is None
    assert masks.combine(lengths) is lengths


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: masks.causal(0), "positive lengths"),
        (lambda: masks.causal(2, start=-1), "positive lengths"),
        (lambda: masks.padding(torch.tensor([0, 2])), "lengths must lie in 1"),
        (lambda: masks.padding(torch.tensor([3]), 2), r"1 \.\. 2, given 3"),
        (lambda: masks.padding(torch.zeros(0, dtype=torch.long)), "at least one length"),
        (lambda: masks.window(3, -1), "radius"),
        (lambda: masks.block_diagonal([]), "lengths of 1 or more"),
        (lambda: masks.block_diagonal([2, 0]), "lengths of 1 or more"),
        (lambda: masks.combine(torch.ones(2, 2).bool()), "must be boolean with axes"),
        (lambda: masks.combine(torch.ones(1, 1, 2, 2)), "must be boolean with axes"),
        (lambda: masks.combine(masks.causal(3), masks.causal(4)), "do not broadcast"),
        (lambda: masks.check(torch.ones(1, 1, 2, 2), 1, 1, 2, 2), "mask == 0"),
        (lambda: masks.check(torch.ones(2, 2).bool(), 1, 1, 2, 2), "must broadcast"),
        (lambda: masks.check(torch.ones(1, 1, 2, 3).bool(), 1, 1, 2, 2), "must broadcast"),
    ],
)
def test_bad_masks_are_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
