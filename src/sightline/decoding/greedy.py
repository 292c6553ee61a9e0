"""Greedy decoding: the most likely token at each step."""

from collections.abc import Sequence

import torch

from sightline.decoding.step import Decoded, State, Step, block, check_search, device_of, rows_of


@torch.no_grad()
def greedy(
    step: Step,
    state: State,
    *,
    start: int,
    end: int,
    max_length: int = 50,
    blocked: Sequence[int] = (),
    batch: int | None = None,
) -> Decoded:
    """Computes, for each row of `state`, the sequence that takes the most likely token at every step.

    `step(tokens (rows,), state) -> (log-probabilities (rows, vocabulary), state)` is called with the last tokens,
    first with `start`. A row is finished at `end` or after `max_length` tokens; `blocked` tokens are never chosen.
    `batch` is needed only where the state holds no tensor. Scores are sums of log-probabilities. Raises ValueError
    for `max_length` below 1 and a blocked end token.
    """
    check_search(max_length, end, blocked)
    rows, device = batch or rows_of(state), device_of(state)
    last = torch.full((rows,), start, device=device)
    scores = torch.zeros(rows, device=device)
    lengths = torch.zeros(rows, dtype=torch.long, device=device)
    running = torch.ones(rows, dtype=torch.bool, device=device)
    tokens = []
    for _ in range(max_length):
        log_probs, state = step(last, state)
        best, last = block(log_probs, blocked).max(dim=1)
        last = last.where(running, end)
        scores = scores + best.where(running, 0.0)
        lengths = lengths + running.long()
        tokens.append(last)
        running = running & (last != end)
        if not running.any():
            break
    return Decoded(torch.stack(tokens, dim=1), lengths, scores, end)
