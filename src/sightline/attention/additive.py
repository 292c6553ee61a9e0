"""Additive attention, the first one.

Bahdanau, Cho, Bengio 2015 (arXiv 1409.0473), section 3.1: score(q, k) = v · tanh(W q + U k + b), a softmax over the
keys, and the weighted mean of the memory.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sightline.attention import masks, observe


class AdditiveAttention(nn.Module):
    """Computes softmax(v · tanh(W q + U m + b)) over a memory and the memory's mean under these weights.

    `query_dim` and `memory_dim` are the widths of both sides, `dim` that of the space they meet in. `activation`
    stands in the place of tanh (Xu et al.'s popular PyTorch port has relu). There is no bias behind v: a softmax
    does not see it. The weights are reported to `observe`, so `sightline.record` sees them. Raises ValueError for
    a width below 1.
    """

    def __init__(
        self, *, query_dim: int, memory_dim: int, dim: int, activation: Callable[[Tensor], Tensor] = torch.tanh
    ) -> None:
        super().__init__()
        if min(query_dim, memory_dim, dim) < 1:
            raise ValueError(f"widths must be 1 or more, given {query_dim=}, {memory_dim=}, {dim=}")
        self.query = nn.Linear(query_dim, dim, bias=False)
        self.key = nn.Linear(memory_dim, dim)
        self.score = nn.Linear(dim, 1, bias=False)
        self.activation = activation

    def project(self, memory: Float[Tensor, "batch keys memory_dim"]) -> Float[Tensor, "batch keys dim"]:
        """Computes the keys U m + b, which are the same for every query: once a sentence or image, not once a step."""
        return self.key(memory)

    def weigh(
        self,
        queries: Float[Tensor, "batch queries query_dim"],
        keys: Float[Tensor, "batch keys dim"],
        mask: Bool[Tensor, "#batch #heads #queries #keys"] | None = None,
    ) -> Float[Tensor, "batch queries keys"]:
        """Gives the weights alone: rows sum to 1, 0 where `mask` is False."""
        meeting = self.activation(self.query(queries)[:, :, None] + keys[:, None])
        scores = self.score(meeting).squeeze(3)
        if mask is not None:
            masks.check(mask, len(queries), 1, queries.shape[1], keys.shape[1])
            scores = scores.masked_fill(~mask[:, 0], float("-inf"))
        weights = scores.softmax(dim=2)
        observe.report(weights[:, None], "cross")
        return weights

    def forward(
        self,
        queries: Float[Tensor, "batch queries query_dim"],
        memory: Float[Tensor, "batch keys memory_dim"],
        *,
        keys: Float[Tensor, "batch keys dim"] | None = None,
        mask: Bool[Tensor, "#batch #heads #queries #keys"] | None = None,
    ) -> tuple[Float[Tensor, "batch queries memory_dim"], Float[Tensor, "batch queries keys"]]:
        """Gives (the mean of `memory` that each query sees, its weights).

        `keys` is `project(memory)` where a loop over time has it already; `mask` is True where a query may attend
        (`masks.padding`). Several queries share one memory without copies: all steps of a sentence, or all
        hypotheses of a beam.
        """
        weights = self.weigh(queries, self.project(memory) if keys is None else keys, mask)
        return weights @ memory, weights
