"""Beam search: equal to enumerating everything, and, when narrow, to a plain search over one example."""

import pytest
import torch
from chains import END, START, Chain, brute_force, close, plain_beam
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sightline.decoding import beam_search, greedy

WORDS = {"start": START, "end": END}


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_is_brute_force(penalty: float, seed: int) -> None:
    chain = Chain(examples=3, vocabulary=4, seed=seed)
    found = beam_search(
        chain.step, chain.first(), beam=4**5, keep=6, max_length=5, length_penalty=penalty, blocked=[START], **WORDS
    )
    for example in range(3):
        truth = brute_force(chain, example, longest=5, penalty=penalty, blocked=(START,), keep=6)
        for place, (sequence, score) in enumerate(truth):
            length = int(found.lengths[example, place])
            assert tuple(found.tokens[example, place, :length].tolist()) == sequence
            assert (found.tokens[example, place, length:] == END).all()
            assert close(float(found.scores[example, place]), score)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    beam=st.integers(1, 6),
    vocabulary=st.integers(2, 7),
    longest=st.integers(1, 7),
    penalty=st.sampled_from([0.0, 0.6, 1.0, 1.5]),
)
def test_a_narrow_beam_is_the_plain_search(seed: int, beam: int, vocabulary: int, longest: int, penalty: float) -> None:
    chain = Chain(examples=4, vocabulary=vocabulary, seed=seed)
    found = beam_search(chain.step, chain.first(), beam=beam, max_length=longest, length_penalty=penalty, **WORDS)
    for example in range(4):
        sequence, score = plain_beam(chain, example, beam=beam, longest=longest, penalty=penalty)
        assert close(float(found.scores[example, 0]), score)
        assert tuple(found.tokens[example, 0, : int(found.lengths[example, 0])].tolist()) == sequence


@pytest.mark.parametrize("seed", range(10))
def test_a_beam_of_one_is_greedy(seed: int) -> None:
    chain = Chain(examples=6, vocabulary=5, seed=seed)
    one = beam_search(chain.step, chain.first(), beam=1, max_length=8, **WORDS)
    best = greedy(chain.step, chain.first(), max_length=8, **WORDS)
    assert one.lists() == best.lists()
    assert torch.allclose(one.scores[:, 0], best.scores, atol=1e-5)
    assert torch.equal(one.lengths[:, 0], best.lengths)


def test_examples_do_not_disturb_each_other() -> None:
    chain = Chain(examples=5, vocabulary=6, seed=3)
    together = beam_search(chain.step, chain.first(), beam=3, max_length=7, length_penalty=1.0, **WORDS).lists()
    for example in range(5):
        alone = {name: part[example : example + 1] for name, part in chain.first().items() if part is not None}
        single = beam_search(chain.step, alone, beam=3, max_length=7, length_penalty=1.0, **WORDS).lists()
        assert single[0] == together[example]


def test_hypotheses_of_an_example_lie_side_by_side() -> None:
    # so that a step may hold what does not change as (batch, ...) and view its tokens as (batch, -1)
    chain = Chain(examples=4, vocabulary=6, seed=1)
    shapes = []

    def step(tokens: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        assert (state["example"].view(4, -1) == torch.arange(4)[:, None]).all()
        shapes.append(len(tokens))
        return chain.step(tokens, state)

    beam_search(step, chain.first(), beam=3, max_length=6, **WORDS)
    assert shapes[0] == 4
    assert set(shapes[1:]) == {12}


def test_it_stops_as_soon_as_nothing_can_win() -> None:
    table = torch.tensor([[0.02, 0.96, 0.02]]).log()
    calls = []

    def step(tokens: Tensor, state: None) -> tuple[Tensor, None]:
        calls.append(1)
        return table.expand(len(tokens), -1), None

    found = beam_search(step, None, beam=2, max_length=40, batch=3, **WORDS)
    assert len(calls) == 1
    assert found.lists() == [[], [], []]


def test_longer_is_allowed_to_win_under_length_normalisation() -> None:
    # "end" has -1.05; "2, 2, end" has -1.86, three times -0.62
    first = torch.tensor([0.0, 0.35, 0.65]).log()
    second = torch.tensor([0.0, 0.4, 0.6]).log()

    def step(tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(state == 0, first, second), state + 1

    state = torch.zeros(1, 1)
    short = beam_search(step, state, beam=3, max_length=3, **WORDS).lists()
    long = beam_search(step, state, beam=3, max_length=3, length_penalty=1.0, **WORDS).lists()
    assert short == [[]]
    assert long == [[2, 2]]


def test_what_is_cut_stands_behind_what_ended_and_missing_ones_are_empty() -> None:
    log_probs = torch.tensor([0.0, 1e-4, 1 - 1e-4]).log()

    def step(tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return log_probs.expand(len(tokens), -1), state

    found = beam_search(step, torch.zeros(1, 1), beam=4, keep=4, max_length=2, **WORDS)
    assert found.lengths[0].tolist() == [1, 2, 2, 0]
    assert found.tokens[0].tolist() == [[1, 1], [2, 1], [2, 2], [1, 1]]
    assert found.scores[0, 3] == float("-inf")
    assert found.scores[0, 2] > found.scores[0, 0]  # likelier, yet cut


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"beam": 0}, "keep must lie in 1 .. beam"),
        ({"beam": 2, "keep": 3}, "keep must lie in 1 .. beam"),
        ({"max_length": 0}, "max_length must be 1 or more"),
        ({"blocked": [END]}, "no sequence could end"),
        ({"length_penalty": -1.0}, "length_penalty"),
    ],
)
def test_impossible_searches_are_refused(wrong: dict, told: str) -> None:
    chain = Chain(examples=2, vocabulary=4, seed=0)
    with pytest.raises(ValueError, match=told):
        beam_search(chain.step, chain.first(), **WORDS | wrong)
