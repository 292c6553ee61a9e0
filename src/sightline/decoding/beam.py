"""Beam search over many examples at once.

Sutskever et al. 2014 (arXiv 1409.3215), section 3.2: the `beam` likeliest unfinished hypotheses of an example go on;
one that ends while it is among the `beam` likeliest leaves the beam for the list of finished ones.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sightline.decoding.step import Decoded, State, Step, block, check_search, device_of, rows_of, take


@torch.no_grad()
def beam_search(
    step: Step,
    state: State,
    *,
    start: int,
    end: int,
    beam: int = 5,
    keep: int = 1,
    max_length: int = 50,
    length_penalty: float = 0.0,
    blocked: Sequence[int] = (),
    batch: int | None = None,
) -> Decoded:
    """Finds, for each row of `state`, the `keep` best sequences, best first.

    The score is the sum of log-probabilities / length ** `length_penalty` (0: none, 1: mean of a token; the end
    token counts). An example stops when nothing still in the beam could enter its list of finished ones. A hypothesis
    that `max_length` cuts stands behind every finished one.

    `step` and `state` are as in `greedy`. The first call has one row an example, the later ones `beam`, those of an
    example side by side, so what does not differ between hypotheses (the encoder's memory) need not be in the state:
    `step` can hold it as (batch, …) and view its tokens as (batch, -1). The state is reordered by `index_select`.
    Raises ValueError for `keep` not in 1 .. beam, a negative `length_penalty`, and as `greedy` does.
    """
    check_search(max_length, end, blocked)
    if not 1 <= keep <= beam:
        raise ValueError(f"keep must lie in 1 .. beam, given {keep=}, {beam=}")
    if length_penalty < 0:
        raise ValueError(f"length_penalty must be 0 or more, given {length_penalty}")
    count, device = batch or rows_of(state), device_of(state)
    finished = _Finished(count, keep, max_length, end, device)
    last = torch.full((count,), start, device=device)
    written = torch.full((count, 1, 0), end, device=device)
    sums = torch.zeros(count, 1, device=device)  # of log-probabilities, (batch, hypotheses)
    for length in range(1, max_length + 1):
        log_probs, state = step(last, state)
        log_probs = block(log_probs, blocked)
        vocabulary = log_probs.shape[1]
        totals = (sums[:, :, None] + log_probs.view(count, -1, vocabulary)).flatten(1)
        # twice as many, because at most one continuation of each hypothesis ends: `beam` that go on are among them
        candidates, places = totals.topk(min(2 * beam, totals.shape[1]), dim=1)
        parents, tokens = places // vocabulary, places % vocabulary
        grown = torch.cat([_pick(written, parents), tokens[:, :, None]], dim=2)
        ends = tokens == end
        finished.add(grown[:, :beam], candidates[:, :beam].where(ends[:, :beam], float("-inf")), length, length_penalty)

        # unfinished ones first, each group still in falling order; where fewer are left the rest is impossible
        order = ends.to(torch.uint8).argsort(dim=1, stable=True)[:, :beam]
        sums = candidates.where(~ends, float("-inf")).gather(1, order)
        written, last = _pick(grown, order), tokens.gather(1, order).flatten()
        if finished.settled(sums.max(dim=1).values, max_length, length_penalty):
            break
        offsets = torch.arange(count, device=device)[:, None] * (len(log_probs) // count)
        state = take(state, (offsets + parents.gather(1, order)).flatten())
    finished.fill(written, sums, length_penalty)
    return Decoded(finished.tokens, finished.lengths, finished.scores, end)


def _pick(sequences: Tensor, hypotheses: Tensor) -> Tensor:
    return sequences.gather(1, hypotheses[:, :, None].expand(-1, -1, sequences.shape[2]))


class _Finished:
    """The `keep` best finished hypotheses of each example, best first; an empty place has the score -inf."""

    def __init__(self, count: int, keep: int, max_length: int, end: int, device: torch.device) -> None:
        self.tokens = torch.full((count, keep, max_length), end, device=device)
        self.lengths = torch.zeros(count, keep, dtype=torch.long, device=device)
        self.scores = torch.full((count, keep), float("-inf"), device=device)
        self.keep, self.end = keep, end

    def add(self, sequences: Tensor, sums: Tensor, length: int, length_penalty: float) -> None:
        if not sums.isfinite().any():
            return
        self._merge(self._padded(sequences), torch.full_like(sums, length).long(), sums / length**length_penalty)

    def settled(self, best: Tensor, max_length: int, length_penalty: float) -> bool:
        """Whether no unfinished hypothesis could still enter: a sum only falls, and counts least at full length."""
        hope = best / max_length**length_penalty
        return bool((hope <= self.scores[:, -1]).all())

    def fill(self, sequences: Tensor, sums: Tensor, length_penalty: float) -> None:
        """Puts unfinished hypotheses into places that are still empty."""
        missing = self.scores.isneginf()
        if missing.any():
            length = sequences.shape[2]
            scores, order = (sums / length**length_penalty).sort(dim=1, descending=True)
            sequences = _pick(self._padded(sequences), order)
            width = min(self.keep, scores.shape[1])
            # place p of an example with f finished ones takes its unfinished hypothesis p - f
            rank = (torch.arange(self.keep, device=sums.device) - (~missing).sum(dim=1, keepdim=True)).clamp(
                0, width - 1
            )
            use = missing & scores.gather(1, rank).isfinite()
            self.tokens = torch.where(use[:, :, None], _pick(sequences, rank), self.tokens)
            self.scores = self.scores.where(~use, scores.gather(1, rank))
            self.lengths = self.lengths.where(~use, length)
            nothing = self.scores.isneginf()  # fewer sequences exist than were asked for
            self.tokens = self.tokens.masked_fill(nothing[:, :, None], self.end)
            self.lengths = self.lengths.masked_fill(nothing, 0)

    def _padded(self, sequences: Tensor) -> Tensor:
        padded = self.tokens.new_full((*sequences.shape[:2], self.tokens.shape[2]), self.end)
        padded[:, :, : sequences.shape[2]] = sequences
        return padded

    def _merge(self, tokens: Tensor, lengths: Tensor, scores: Tensor) -> None:
        best = torch.cat([self.scores, scores], dim=1).topk(self.keep, dim=1)
        self.tokens = _pick(torch.cat([self.tokens, tokens], dim=1), best.indices)
        self.lengths = torch.cat([self.lengths, lengths], dim=1).gather(1, best.indices)
        self.scores = best.values
