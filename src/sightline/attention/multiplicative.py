"""Multiplicative attention.

Luong, Pham, Manning 2015 (arXiv 1508.04025), section 3.1: score(q, m) = q · m ("dot") or q · W m ("general"). Their
third score, "concat", is `AdditiveAttention` with the current state as query.
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.attention import masks


class MultiplicativeAttention(nn.Module):
    """Computes softmax(q · W m) over a memory, without scaling, and the values' mean under these weights.

    `learned=False` leaves W out (the paper's "dot"); both widths must then be the same. The kernel is torch's own,
    so `sightline.record` sees the call. Raises ValueError for a width below 1, and for widths that differ without W.
    """

    def __init__(self, *, query_dim: int, memory_dim: int, learned: bool = True) -> None:
        super().__init__()
        if min(query_dim, memory_dim) < 1:
            raise ValueError(f"widths must be 1 or more, given {query_dim=}, {memory_dim=}")
        if not learned and query_dim != memory_dim:
            raise ValueError(
                f"the dot score multiplies query and memory as they are: give them the same width, or a learned map "
                f"between them; given {query_dim=}, {memory_dim=}"
            )
        self.key = nn.Linear(memory_dim, query_dim, bias=False) if learned else nn.Identity()

    def project(self, memory: Float[Tensor, "batch keys memory_dim"]) -> Float[Tensor, "batch keys query_dim"]:
        """Computes the keys W m, which are the same for every query: once a sentence or image, not once a step."""
        return self.key(memory)

    def forward(
        self,
        queries: Float[Tensor, "batch queries query_dim"],
        values: Float[Tensor, "batch keys value_dim"],
        *,
        keys: Float[Tensor, "batch keys query_dim"] | None = None,
        mask: Bool[Tensor, "#batch #heads #queries #keys"] | None = None,
    ) -> Float[Tensor, "batch queries value_dim"]:
        """Gives the mean of `values` that each query sees.

        `keys` is `project(memory)`, and the values may then be any function of the memory; without keys the values
        are the memory itself. `mask` is True where a query may attend (`masks.padding`).
        """
        keys = self.project(values) if keys is None else keys
        if mask is not None:
            masks.check(mask, len(queries), 1, queries.shape[1], keys.shape[1])
        one_head = F.scaled_dot_product_attention(
            queries[:, None], keys[:, None], values[:, None], attn_mask=mask, scale=1.0
        )
        return one_head[:, 0]
