"""Scaled dot-product attention with several heads.

Vaswani et al. 2017, section 3.2: softmax(Q Kᵀ / sqrt(E)) V for each head of width E, then one linear map.
Grouped heads: Ainslie et al. 2023 (arXiv 2305.13245).
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.attention import masks


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

    def forward(
        self,
        tokens: Float[Tensor, "batch queries dim"],
        memory: Float[Tensor, "batch keys memory_dim"] | None = None,
        *,
        mask: Bool[Tensor, "#batch #heads #queries #keys"] | None = None,
        causal: bool = False,
    ) -> Float[Tensor, "batch queries dim"]:
        """Attends from `tokens` to `memory` (default: to themselves).

        `mask` is True where a query may attend (see `sightline.attention.masks`); `causal` hides later
        tokens and is refused with a memory, whose order means nothing to the tokens (ValueError).
        """
        if causal and memory is not None:
            raise ValueError("causal=True orders tokens among themselves; for a memory build a mask instead")
        source = tokens if memory is None else memory
        if mask is not None:
            masks.check(mask, len(tokens), self.heads, tokens.shape[1], source.shape[1])
            if causal:
                mask = masks.combine(mask, masks.causal(tokens.shape[1], device=tokens.device))
        mixed = F.scaled_dot_product_attention(
            self._split(self.query(tokens), self.heads),
            self._split(self.key(source), self.key_heads),
            self._split(self.value(source), self.key_heads),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=causal and mask is None,
            enable_gqa=self.key_heads != self.heads,
        )
        return self.output(mixed.transpose(1, 2).flatten(2))

    @staticmethod
    def _split(flat: Tensor, heads: int) -> Tensor:
        return flat.unflatten(2, (heads, -1)).transpose(1, 2)  # (batch, length, dim) -> (batch, heads, length, width)
