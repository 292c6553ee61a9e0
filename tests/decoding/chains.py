"""A toy language model whose next token depends on everything before it, and searches over it written out plainly."""

import itertools
import math

import torch
from torch import Tensor

START, END = 0, 1


class Chain:
    """log p(next | example, last two tokens, length): random tables, so that no two sequences tie."""

    def __init__(self, *, examples: int, vocabulary: int, seed: int, steps: int = 12) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.vocabulary = vocabulary
        sizes = (examples, steps, vocabulary, vocabulary, vocabulary)
        self.table = (1.5 * torch.randn(sizes, generator=generator, dtype=torch.float64)).log_softmax(dim=-1)
        self.table = self.table.float()

    def first(self) -> dict[str, Tensor | None]:
        count = len(self.table)
        return {"example": torch.arange(count), "place": torch.zeros(count, 2, dtype=torch.long), "nothing": None}

    def step(self, tokens: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor | None]]:
        time, before = state["place"].unbind(dim=1)
        log_probs = self.table[state["example"], time, before, tokens]
        place = torch.stack([time + 1, tokens], dim=1)
        return log_probs, {"example": state["example"], "place": place, "nothing": None}

    def score(self, example: int, sequence: tuple[int, ...]) -> float:
        total, before, last = 0.0, 0, START
        for time, token in enumerate(sequence):
            total += float(self.table[example, time, before, last, token])
            before, last = last, token
        return total


def ranked(total: float, length: int, penalty: float, ended: bool) -> tuple[bool, float]:
    return ended, total / length**penalty


def brute_force(
    chain: Chain, example: int, *, longest: int, penalty: float, blocked: tuple[int, ...] = (), keep: int = 1
) -> list[tuple[tuple[int, ...], float]]:
    """Every sequence there is, ended ones before cut ones, best first."""
    words = [t for t in range(chain.vocabulary) if t != END and t not in blocked]
    everything = []
    for length in range(longest + 1):
        for body in itertools.product(words, repeat=length):
            if length < longest:
                everything.append((*body, END))
            else:
                everything.append(body)
    rows = [(s, ranked(chain.score(example, s), len(s), penalty, s[-1] == END)) for s in everything]
    rows.sort(key=lambda row: row[1], reverse=True)
    return [(sequence, value) for sequence, (_, value) in rows[:keep]]


def plain_beam(chain: Chain, example: int, *, beam: int, longest: int, penalty: float) -> tuple[tuple[int, ...], float]:
    """Beam search over one example in lists, without any early stop."""
    alive: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    done: list[tuple[tuple[int, ...], float]] = []
    for length in range(1, longest + 1):
        grown = [((*s, t), chain.score(example, (*s, t))) for s, _ in alive for t in range(chain.vocabulary)]
        grown.sort(key=lambda row: row[1], reverse=True)
        done += [(s, total / length**penalty) for s, total in grown[:beam] if s[-1] == END]
        alive = [row for row in grown if row[0][-1] != END][:beam]
    if done:
        return max(done, key=lambda row: row[1])
    best, total = alive[0]
    return best, total / longest**penalty


def close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-5)
