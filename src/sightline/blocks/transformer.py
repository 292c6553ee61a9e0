"""Transformer layers: pre-norm and post-norm, feed-forward parts, stochastic depth, layer scale."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.attention.cache import KeysValues, Part


class FeedForward(nn.Module):
    """Computes W2 f(W1 x), token by token (Vaswani et al. 2017, equation 2); f: exact GELU by default."""

    def __init__(
        self,
        *,
        dim: int,
        hidden: int,
        activation: Callable[[Tensor], Tensor] = F.gelu,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return self.contract(self.dropout(self.activation(self.expand(tokens))))


class SwiGLU(nn.Module):
    """Computes W3 (silu(W1 x) * W2 x), token by token (Shazeer 2020, arXiv 2002.05202).

    W1 and W2 lie in one matrix of 2 x hidden rows, gate first.
    """

    def __init__(self, *, dim: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, 2 * hidden)
        self.contract = nn.Linear(hidden, dim)

    def forward(self, tokens: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        gate, value = self.expand(tokens).chunk(2, dim=-1)
        return self.contract(F.silu(gate) * value)


class DropPath(nn.Module):
    """Drops a whole residual branch per example while training (stochastic depth, Huang et al. 2016).

    What is kept is scaled by 1 / (1 - rate), so the expectation stays.  Raises ValueError for a rate
    outside [0, 1).
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"a drop-path rate lies in [0, 1), given {rate}")
        self.rate = rate

    def forward(self, branch: Float[Tensor, "batch *rest"]) -> Float[Tensor, "batch *rest"]:
        if not self.training or self.rate == 0.0:
            return branch
        kept = torch.rand(len(branch), *[1] * (branch.ndim - 1), device=branch.device) >= self.rate
        return branch * kept.to(branch.dtype) / (1.0 - self.rate)


def spread_drop_path(layers: Sequence[nn.Module], rate: float) -> None:
    """Sets the drop-path rate of `layers` to grow linearly from 0 in the first to `rate` in the last.

    The linear rule of Huang et al. 2016, as DeiT and DINO train with.
    """
    for number, layer in enumerate(layers):
        layer.drop_path = DropPath(rate * number / max(1, len(layers) - 1))


class LayerScale(nn.Module):
    """Multiplies each channel by a learned factor (CaiT, Touvron et al. 2021, equation 4)."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((dim,), float(initial)))

    def forward(self, branch: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        return branch * self.factor


class _Layer(nn.Module):
    """The parts that pre-norm and post-norm layers share; the two differ in where the norms stand."""

    def __init__(
        self,
        *,
        dim: int,
        attention: nn.Module,
        feedforward: nn.Module,
        cross: nn.Module | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, eps=eps)
        self.attention = attention
        if cross is not None:
            self.cross_norm = nn.LayerNorm(dim, eps=eps)
        self.cross = cross
        self.feedforward_norm = nn.LayerNorm(dim, eps=eps)
        self.feedforward = feedforward

        def scale() -> nn.Module:
            return nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)

        self.attention_scale, self.feedforward_scale = scale(), scale()
        if cross is not None:
            self.cross_scale = scale()
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def _add(self, tokens: Tensor, branch: Tensor, scale: nn.Module) -> Tensor:
        return tokens + self.drop_path(scale(self.dropout(branch)))

    def _attend(self, tokens: Tensor, mask: Tensor | None, causal: bool, cache: Part | None) -> Tensor:
        if cache is None:  # not every kind of attention has one
            return self.attention(tokens, mask=mask, causal=causal)
        return self.attention(tokens, mask=mask, causal=causal, cache=cache)

    def _consult(self, tokens: Tensor, memory: Tensor | KeysValues, mask: Tensor | None) -> Tensor:
        """Cross attention; neighbouring rows that share a memory (hypotheses of a sentence) ask it as more queries."""
        assert self.cross is not None
        if not isinstance(memory, KeysValues) or len(memory.keys) == len(tokens):
            return self.cross(tokens, memory, mask=mask)
        together = tokens.unflatten(0, (len(memory.keys), -1)).flatten(1, 2)
        return self.cross(together, memory, mask=mask).view_as(tokens)

    def _check(self, memory: Tensor | KeysValues | None) -> None:
        if (memory is None) != (self.cross is None):
            raise ValueError(
                "this layer has cross attention and needs `memory`"
                if memory is None
                else "this layer has no cross attention: build it with cross=MultiHeadAttention(...)"
            )


class PreNormLayer(_Layer):
    """Computes x + attention(norm(x)), then the same for cross attention (if any) and feed-forward.

    `attention`, `cross` and `feedforward` are built parts.  The last layer's output is not normalised: a
    stack needs a final norm.  In generation `memory` is what the layer's cross attention projected once, and `cache`
    this layer's part of the tokens so far.  Raises ValueError where `memory` and `cross` do not come together.
    """

    def forward(
        self,
        tokens: Float[Tensor, "batch length dim"],
        memory: Float[Tensor, "batch keys memory_dim"] | KeysValues | None = None,
        *,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        causal: bool = False,
        cache: Part | None = None,
    ) -> Float[Tensor, "batch length dim"]:
        self._check(memory)
        branch = self._attend(self.attention_norm(tokens), mask, causal, cache)
        tokens = self._add(tokens, branch, self.attention_scale)
        if memory is not None:
            branch = self._consult(self.cross_norm(tokens), memory, memory_mask)
            tokens = self._add(tokens, branch, self.cross_scale)
        return self._add(tokens, self.feedforward(self.feedforward_norm(tokens)), self.feedforward_scale)


class PostNormLayer(_Layer):
    """Computes norm(x + attention(x)), then the same for cross attention (if any) and feed-forward.

    The layer of Vaswani et al. 2017.  Raises ValueError where `memory` and `cross` do not come together.
    """

    def forward(
        self,
        tokens: Float[Tensor, "batch length dim"],
        memory: Float[Tensor, "batch keys memory_dim"] | KeysValues | None = None,
        *,
        mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        causal: bool = False,
        cache: Part | None = None,
    ) -> Float[Tensor, "batch length dim"]:
        self._check(memory)
        branch = self._attend(tokens, mask, causal, cache)
        tokens = self.attention_norm(self._add(tokens, branch, self.attention_scale))
        if memory is not None:
            branch = self._consult(tokens, memory, memory_mask)
            tokens = self.cross_norm(self._add(tokens, branch, self.cross_scale))
        return self.feedforward_norm(self._add(tokens, self.feedforward(tokens), self.feedforward_scale))
