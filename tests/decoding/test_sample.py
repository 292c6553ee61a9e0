"""Sampling: the right frequencies, the right cuts, scores that are the log-probability of what was drawn."""

import pytest
import torch
from chains import END, START, Chain
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sightline.decoding import greedy, sample
from sightline.decoding.sample import narrow

WORDS = {"start": START, "end": END}
CHANCES = torch.tensor([0.0, 0.05, 0.4, 0.3, 0.15, 0.1])


def step(tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return CHANCES.log().expand(len(tokens), -1), state


def drawn(**settings: float) -> Tensor:
    """Frequencies of the first token over many rows."""
    rows, generator = 40_000, torch.Generator().manual_seed(0)
    found = sample(step, torch.zeros(rows, 1), max_length=1, generator=generator, **WORDS, **settings)
    return found.tokens[:, 0].bincount(minlength=6) / rows


def test_tokens_come_with_their_probabilities() -> None:
    assert torch.allclose(drawn(), CHANCES, atol=0.01)


def test_temperature_sharpens() -> None:
    sharp = CHANCES**2 / (CHANCES**2).sum()
    assert torch.allclose(drawn(temperature=0.5), sharp, atol=0.01)


def test_top_k_and_top_p_cut_the_tail() -> None:
    assert torch.allclose(drawn(top_k=2), torch.tensor([0, 0, 0.4, 0.3, 0, 0]) / 0.7, atol=0.01)
    assert torch.allclose(drawn(top_p=0.75), torch.tensor([0, 0, 0.4, 0.3, 0.15, 0]) / 0.85, atol=0.01)
    assert torch.allclose(drawn(top_p=0.1), torch.tensor([0, 0, 1.0, 0, 0, 0]), atol=0.01)


def test_blocked_tokens_are_never_drawn() -> None:
    assert torch.allclose(drawn(blocked=[2]), torch.tensor([0, 0.05, 0, 0.3, 0.15, 0.1]) / 0.6, atol=0.01)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 1000), k=st.integers(0, 9), p=st.floats(0.05, 1.0), temperature=st.floats(0.2, 3.0))
def test_what_is_left_sums_to_one_and_is_no_more_than_needed(seed: int, k: int, p: float, temperature: float) -> None:
    log_probs = torch.randn(4, 7, generator=torch.Generator().manual_seed(seed)).log_softmax(dim=1)
    left = narrow(log_probs, temperature=temperature, top_k=k, top_p=p).exp()
    assert torch.allclose(left.sum(dim=1), torch.ones(4), atol=1e-5)
    for row, chances in zip(left.tolist(), log_probs.tolist(), strict=True):
        kept = [i for i, value in enumerate(row) if value > 0]
        assert 1 <= len(kept) <= (k or 7)
        assert min(chances[i] for i in kept) >= max([chances[i] for i in range(7) if i not in kept], default=-1e9)


def test_scores_are_the_log_probability_of_the_sequence() -> None:
    chain = Chain(examples=6, vocabulary=5, seed=2)
    found = sample(chain.step, chain.first(), max_length=8, generator=torch.Generator().manual_seed(1), **WORDS)
    for example in range(6):
        sequence = tuple(found.tokens[example, : int(found.lengths[example])].tolist())
        assert float(found.scores[example]) == pytest.approx(chain.score(example, sequence), abs=1e-4)
        assert END not in sequence[:-1]


def test_a_cold_or_narrow_sample_is_greedy_and_a_seed_repeats() -> None:
    chain = Chain(examples=6, vocabulary=5, seed=2)
    best = greedy(chain.step, chain.first(), max_length=8, **WORDS).lists()
    assert sample(chain.step, chain.first(), max_length=8, top_k=1, **WORDS).lists() == best
    assert sample(chain.step, chain.first(), max_length=8, temperature=1e-3, **WORDS).lists() == best
    twice = [
        sample(chain.step, chain.first(), generator=torch.Generator().manual_seed(5), **WORDS).lists() for _ in "ab"
    ]
    assert twice[0] == twice[1]


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}])
def test_impossible_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="sampling needs temperature"):
        sample(step, torch.zeros(2, 1), **WORDS, **wrong)
