"""Captions of unequal length side by side: which rows a loop over time carries, and what it gives back."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Cutting the rows off at every step costs a copy of all that is cut; carrying a few finished ones costs less.
_WORTH_CUTTING = 0.85


class Written(NamedTuple):
    """What a system says of given captions, word by word.

    `logits` are of all words of all captions, `targets` the words that were to be said, `captions` the caption that
    each belongs to, in its given order, `steps` their place in it.  `weights` is the attention, zero beyond a caption's
    end, and `looked` what the context was made by: the same, or the one place of hard attention; both None for a system
    without attention.
    """

    logits: Float[Tensor, "words vocab"]
    targets: Int[Tensor, " words"]
    captions: Int[Tensor, " words"]
    steps: Int[Tensor, " words"]
    weights: Float[Tensor, "captions steps cells"] | None = None
    looked: Float[Tensor, "captions steps cells"] | None = None

    def unpacked(self) -> Float[Tensor, "captions steps vocab"]:
        """Gives the logits as one row a caption, zero beyond its end."""
        shape = (int(self.captions.max()) + 1, int(self.steps.max()) + 1, self.logits.shape[1])
        return self.logits.new_zeros(shape).index_put((self.captions, self.steps), self.logits)

    def by_caption(self, values: Float[Tensor, " words"]) -> Float[Tensor, " captions"]:
        """Sums a number of each word over each caption."""
        return values.new_zeros(int(self.captions.max()) + 1).index_add(0, self.captions, values)


class Packed:
    """The rows of a loop over captions of unequal length, the longest first.

    `tokens` (captions, steps + 1) begin with the start token, end with the end token and are filled up with `pad`,
    which occurs nowhere else.  `order` sorts the rows; step t needs the first `active[t]` of them, and the loop
    carries the first `carried[t]`, which shrink in few cuts.  Raises ValueError for a caption without any word to
    say."""

    def __init__(self, tokens: Int[Tensor, "captions length"], pad: int = 0) -> None:
        lengths = (tokens != pad).sum(dim=1) - 1
        if tokens.shape[1] < 2 or int(lengths.min()) < 1:
            raise ValueError("a caption needs a start token and at least one more, given one with fewer")
        lengths, self.order = lengths.sort(descending=True, stable=True)
        self.steps = int(lengths[0])
        self.tokens = tokens[self.order, : self.steps + 1]
        self.active: list[int] = (lengths[:, None] > torch.arange(self.steps, device=tokens.device)).sum(dim=0).tolist()
        self.carried: list[int] = []
        rows = len(tokens)
        for count in self.active:
            rows = count if count < _WORTH_CUTTING * rows else rows
            self.carried.append(rows)

    @property
    def read(self) -> Int[Tensor, " words"]:
        """The tokens that go in, step after step, `carried[t]` at each: the words before those that are to be said."""
        return torch.cat([self.tokens[:rows, step] for step, rows in enumerate(self.carried)])

    def written(self, outputs: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Joins what each step gave, (carried[t], …), leaving finished rows out.

        Gives (outputs (words, …), targets (words,), captions (words,), steps (words,)).
        """
        device = self.tokens.device
        rows = torch.cat([torch.arange(count, device=device) for count in self.active])
        counts = torch.tensor(self.active, device=device)
        steps = torch.repeat_interleave(torch.arange(self.steps, device=device), counts)
        joined = torch.cat([one[:count] for one, count in zip(outputs, self.active, strict=True)])
        return joined, self.tokens[rows, steps + 1], self.order[rows], steps

    def aligned(self, weights: list[Tensor]) -> Float[Tensor, "captions steps cells"]:
        """Gives the weights of each step, (carried[t], cells), as one row a caption in the given order, zero beyond."""
        count = len(self.tokens)
        rows = [
            torch.nn.functional.pad(one[:active], (0, 0, 0, count - active))
            for one, active in zip(weights, self.active, strict=True)
        ]
        return torch.stack(rows, dim=1)[self.order.argsort()]
