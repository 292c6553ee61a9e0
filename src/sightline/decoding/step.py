"""What greedy, beam and sampled decoding have in common: the step they call, the state they carry, what they return."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.attention.cache import Cache

# a tensor, a cache of keys and values, None, or tuples, lists and dicts of them; a tensor's first dimension is the row
State = Any
Step = Callable[[Tensor, State], tuple[Tensor, State]]


@dataclass(frozen=True)
class Decoded:
    """Sequences that a search found, and how likely they are.

    tokens (batch, length) holds each row's tokens without the start; the end token, where it was reached, is the
    last one that counts, and fills the rest of the row. lengths (batch,) counts tokens, the end token included.
    scores (batch,) is what the search ranks by. A beam search that keeps several hypotheses an example has one more
    axis, best first: (batch, keep, length), (batch, keep), (batch, keep).
    """

    tokens: Tensor
    lengths: Tensor
    scores: Tensor
    end: int

    def lists(self) -> list[list[int]]:
        """Gives the best sequence of every example as plain numbers, without the end token."""
        tokens, lengths = self.tokens, self.lengths
        if tokens.ndim == 3:
            tokens, lengths = tokens[:, 0], lengths[:, 0]
        rows = [row[:length] for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]
        return [row[:-1] if row and row[-1] == self.end else row for row in rows]


def take(state: State, rows: Int[Tensor, " rows"]) -> State:
    """Picks rows of every tensor in a state, by `index_select` along the first dimension; a cache picks its own.

    Raises ValueError for anything in it that is neither a tensor, cache, None, tuple, list nor dict.
    """
    if state is None:
        return None
    if isinstance(state, Cache):
        return state.take(rows)
    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    if isinstance(state, dict):
        return {name: take(part, rows) for name, part in state.items()}
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return type(state)(*(take(part, rows) for part in state))
    if isinstance(state, tuple | list):
        return type(state)(take(part, rows) for part in state)
    raise ValueError(
        f"a decoding state holds tensors, caches, None, tuples, lists and dicts, given {type(state).__name__}"
    )


def rows_of(state: State) -> int:
    """Counts the rows of a state: the first dimension of the first tensor in it (ValueError where it has none)."""
    found = _first(state)
    if isinstance(found, Cache):
        return found.rows
    if found is None or found.ndim == 0:
        raise ValueError("this decoding state holds no tensor with rows: give the number of examples as batch=...")
    return len(found)


def _first(state: State) -> Tensor | Cache | None:
    if isinstance(state, Tensor | Cache):
        return state
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, tuple | list) else ()
    return next((found for part in parts if (found := _first(part)) is not None), None)


def device_of(state: State) -> torch.device:
    """Gives the device of the first tensor in a state, the CPU where there is none."""
    found = _first(state)
    return torch.device("cpu") if found is None else found.device


def block(log_probs: Float[Tensor, "rows vocabulary"], blocked: Sequence[int]) -> Float[Tensor, "rows vocabulary"]:
    """Makes the blocked tokens impossible; the rest is left as it is, not scaled up."""
    if not blocked:
        return log_probs
    return log_probs.index_fill(1, torch.tensor(list(blocked), device=log_probs.device), float("-inf"))


def check_search(max_length: int, end: int, blocked: Sequence[int]) -> None:
    """Refuses, with ValueError, a search that could produce nothing or never end."""
    if max_length < 1:
        raise ValueError(f"max_length must be 1 or more, given {max_length}")
    if end in blocked:
        raise ValueError(f"the end token {end} is among the blocked ones, so no sequence could end: take it out")
