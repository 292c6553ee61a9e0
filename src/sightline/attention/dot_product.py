"""Scaled dot-product attention with several heads.

Vaswani et al. 2017, section 3.2: softmax(Q Kᵀ / sqrt(E)) V for each head of width E, then one linear map.
Grouped heads: Ainslie et al. 2023 (arXiv 2305.13245).
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.attention import masks
from sightline.attention.cache import KeysValues, Part


class MultiHeadAttention(nn.Module):
    """Computes multi-head attention of tokens over themselves, or over a memory (cross attention).

    `heads` divides `dim`; `key_heads` (default: heads) divides `heads`, each key head serving heads /
    key_heads query heads; `memory_dim` (default: dim) is the width of the memory.  No weights are returned:
    the kernel stays fused and `sightline.record` sees the call.  Raises ValueError where a number does not
    divide.
    """

    def __init__(
        self,
        *,
        dim: int,
        heads: int,
        key_heads: int | None = None,
        memory_dim: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        key_heads = heads if key_heads is None else key_heads
        if heads < 1 or dim % heads:
            raise ValueError(f"dim must be a multiple of heads, given dim={dim}, heads={heads}")
        if key_heads < 1 or heads % key_heads:
            raise ValueError(f"heads must be a multiple of key_heads, given {heads=}, {key_heads=}")
        self.heads, self.key_heads, self.dropout = heads, key_heads, dropout
        memory_dim = dim if memory_dim is None else memory_dim
        key_dim = key_heads * (dim // heads)
        self.query = nn.Linear(dim, dim, bias=bias)
        self.key = nn.Linear(memory_dim, key_dim, bias=bias)
        self.value = nn.Linear(memory_dim, key_dim, bias=bias)
        self.output = nn.Linear(dim, dim)

    def project(self, memory: Float[Tensor, "batch keys memory_dim"]) -> KeysValues:
        """Computes the keys and values of a memory, which are the same for every query: once, not once a step."""
        return KeysValues(
            self._split(self.key(memory), self.key_heads), self._split(self.value(memory), self.key_heads)
        )

    def forward(
        self,
        tokens: Float[Tensor, "batch queries dim"],
        memory: Float[Tensor, "batch keys memory_dim"] | KeysValues | None = None,
        *,
        mask: Bool[Tensor, "#batch #heads #queries #keys"] | None = None,
        causal: bool = False,
        cache: Part | None = None,
    ) -> Float[Tensor, "batch queries dim"]:
        """Attends from `tokens` to `memory` (default: to themselves), which may be `project`ed already.

        `mask` is True where a query may attend (see `sightline.attention.masks`); `causal` hides later
        tokens and is refused with a memory, whose order means nothing to the tokens (ValueError). With a `cache` the
        tokens stand behind those in it and attend to them too.
        """
        if causal and memory is not None:
            raise ValueError("causal=True orders tokens among themselves; for a memory build a mask instead")
        seen = memory if isinstance(memory, KeysValues) else self.project(tokens if memory is None else memory)
        queries, before = tokens.shape[1], 0
        if cache is not None:
            before, seen = cache.length, cache.extend(seen)
        causal = causal and queries > 1  # the last token sees all
        if mask is not None:
            masks.check(mask, len(tokens), self.heads, queries, seen.keys.shape[2])
        if causal and (mask is not None or before):
            mask = masks.combine(mask, masks.causal(queries, start=before, device=tokens.device))
        mixed = F.scaled_dot_product_attention(
            self._split(self.query(tokens), self.heads),
            seen.keys,
            seen.values,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal and mask is None,
            enable_gqa=self.key_heads != self.heads,
        )
        return self.output(mixed.transpose(1, 2).flatten(2))

    @staticmethod
    def _split(flat: Tensor, heads: int) -> Tensor:
        return flat.unflatten(2, (heads, -1)).transpose(1, 2)  # (batch, length, dim) -> (batch, heads, length, width)
