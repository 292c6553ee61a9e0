"""Greedy decoding, and the state that all searches carry."""

from typing import NamedTuple

import pytest
import torch
from chains import END, START, Chain, close
from torch import Tensor

from sightline.decoding import greedy, take

WORDS = {"start": START, "end": END}


@pytest.mark.parametrize("blocked", [(), (0,), (0, 3)])
def test_it_takes_the_likeliest_token_at_each_step(blocked: tuple[int, ...]) -> None:
    chain = Chain(examples=8, vocabulary=6, seed=4)
    found = greedy(chain.step, chain.first(), max_length=7, blocked=blocked, **WORDS)
    for example, row in enumerate(found.tokens.tolist()):
        before, last, wanted = 0, START, []
        for time in range(7):
            chances = chain.table[example, time, before, last].tolist()
            token = max((t for t in range(6) if t not in blocked), key=lambda t: chances[t])
            wanted.append(token)
            before, last = last, token
            if token == END:
                break
        assert row[: len(wanted)] == wanted
        assert set(row[len(wanted) :]) <= {END}
        assert int(found.lengths[example]) == len(wanted)
        assert close(float(found.scores[example]), chain.score(example, tuple(wanted)))
        assert found.lists()[example] == [t for t in wanted if t != END]


def test_a_state_without_tensors_needs_the_number_of_rows() -> None:
    def step(tokens: Tensor, state: None) -> tuple[Tensor, None]:
        return torch.tensor([[0.1, 0.9]]).log().expand(len(tokens), -1), None

    assert greedy(step, None, batch=3, **WORDS).lists() == [[], [], []]
    with pytest.raises(ValueError, match="give the number of examples as batch"):
        greedy(step, None, **WORDS)


class Pair(NamedTuple):
    left: Tensor
    right: Tensor | None


def test_rows_are_taken_through_every_container() -> None:
    x, rows = torch.arange(6).view(3, 2), torch.tensor([2, 0])
    state = {"a": (x, [x, None]), "b": Pair(x, None)}
    taken = take(state, rows)
    assert torch.equal(taken["a"][0], x[[2, 0]])
    assert torch.equal(taken["a"][1][0], x[[2, 0]])
    assert taken["a"][1][1] is None
    assert isinstance(taken["b"], Pair)
    assert torch.equal(taken["b"].left, x[[2, 0]])
    with pytest.raises(ValueError, match="given str"):
        take({"a": "text"}, rows)
