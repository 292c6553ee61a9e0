"""The Transformer: attention is all there is.

paper     Attention Is All You Need, Vaswani et al., NIPS 2017 (arXiv 1706.03762)
idea      No state is carried from word to word: each word asks all others at once, and position is an added wave.
          So a sentence is read in a few matrix products, however long it is, and any two words are one step apart.
          Several heads ask at the same time, each in a narrow space of its own.
flow      source (B, S) -> table * sqrt(D) + waves -> depth x [self-attention, feed-forward] -> memory (B, S, D)
          target (B, T) -> the same table + waves -> depth x [self-attention to what stands before,
          attention to the memory, feed-forward] -> (B, T, D) -> the table again, as output -> logits (B, T, V)
differs   norm="post" is the layer as printed, norm(x + f(x)); "pre" is x + f(norm(x)) with a norm at the end, which
          tensor2tensor came to and the Annotated Transformer has. The waves as printed ("interleaved"), or sines
          first and then cosines: tensor2tensor's ("concatenated") and Marian's ("halves"). Output words have a bias,
          zero at first, which Marian's weights need. Controls: positions="none", heads=1, causal=False (the future is
          not hidden while training, so there is nothing to learn for writing).
recipe    recipes/transformer.py
reached   BLEU 41.3 on Multi30k German to English, test_2016_flickr, with 3.9 million parameters (recurrent: 39.6)
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.attention import masks
from sightline.attention.cache import Cache, KeysValues
from sightline.attention.dot_product import MultiHeadAttention
from sightline.blocks.positions import sinusoidal_concatenated, sinusoidal_halves, sinusoidal_interleaved
from sightline.blocks.transformer import FeedForward, PostNormLayer, PreNormLayer
from sightline.objectives.label_smoothing import smoothed_cross_entropy

LAYERS = {"post": PostNormLayer, "pre": PreNormLayer}
WAVES: dict[str, Callable[[int, int], Tensor] | None] = {
    "interleaved": sinusoidal_interleaved,
    "concatenated": sinusoidal_concatenated,
    "halves": sinusoidal_halves,
    "none": None,
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


class Memory(NamedTuple):
    """What the encoder hands over: states (B, S, D), and which of them are words (B, 1, 1, S), None where all are."""

    states: Tensor
    mask: Tensor | None


class Waves(nn.Module):
    """Adds sinusoids to words, (B, T, D) -> the same; the table grows where a sentence is longer than any before."""

    def __init__(self, *, kind: str, dim: int) -> None:
        super().__init__()
        self.kind, self.dim = kind, dim
        self.table = torch.empty(0, dim)  # no buffer: it is made again where it is needed, and never averaged or saved

    def forward(self, words: Float[Tensor, "batch length dim"], first: int = 0) -> Float[Tensor, "batch length dim"]:
        """Adds the waves of positions `first`, `first` + 1, …"""
        make, end = WAVES[self.kind], first + words.shape[1]
        if make is None:
            return words
        if len(self.table) < end or self.table.device != words.device or self.table.dtype != words.dtype:
            self.table = make(max(64, 1 << (end - 1).bit_length()), self.dim).to(words)
        return words + self.table[first:end]


class Encoder(nn.Module):
    """Reads: each word attends to all words of its sentence, `layers` times."""

    def __init__(self, *, layers: list[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm

    def forward(self, words: Float[Tensor, "batch source dim"], mask: Tensor | None) -> Memory:
        for layer in self.layers:
            words = layer(words, mask=mask)
        return Memory(self.norm(words), mask)


class Decoder(nn.Module):
    """Writes: each word attends to the words before it and to the memory, `layers` times."""

    def __init__(self, *, layers: list[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.layers, self.norm = nn.ModuleList(layers), norm

    def forward(
        self, words: Float[Tensor, "batch target dim"], memory: Memory, mask: Tensor | None = None, causal: bool = True
    ) -> Float[Tensor, "batch target dim"]:
        for layer in self.layers:
            words = layer(words, memory.states, mask=mask, memory_mask=memory.mask, causal=causal)
        return self.norm(words)

    def open(self, memory: Memory) -> list[KeysValues]:
        """Computes what every step needs and none changes: the memory's keys and values in each layer."""
        return [layer.cross.project(memory.states) for layer in self.layers]  # type: ignore[operator,union-attr]

    def step(
        self, words: Float[Tensor, "rows new dim"], opened: list[KeysValues], mask: Tensor | None, cache: Cache
    ) -> Float[Tensor, "rows new dim"]:
        """Computes the new words alone; those before them are in the cache. Neighbouring rows may share a memory."""
        for number, layer in enumerate(self.layers):
            words = layer(words, opened[number], memory_mask=mask, causal=True, cache=cache[number])
        return self.norm(words)


class Transformer(nn.Module, PyTorchModelHubMixin):
    """Computes the logits of each next target word, given a source sentence and the target words before it.

    `words` counts one vocabulary, whose table serves source, target and output; two numbers (source, target) have a
    table each and an output of their own. `depth` is the number of layers of encoder and decoder, or (encoder,
    decoder); `hidden` the width of the feed-forward parts. `norm` is one of LAYERS, `positions` of WAVES, `activation`
    of ACTIVATIONS. `causal=False` lets target words see those behind them: a control, which cannot learn to write.
    Words of number `pad` are not learned from. Raises ValueError for values that do not fit.
    """

    def __init__(
        self,
        *,
        words: int | Sequence[int],
        dim: int = 512,
        depth: int | Sequence[int] = 6,
        heads: int = 8,
        hidden: int = 2048,
        norm: str = "post",
        positions: str = "interleaved",
        activation: str = "relu",
        causal: bool = True,
        dropout: float = 0.1,
        pad: int = 0,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("norm", norm, LAYERS),
            ("positions", positions, WAVES),
            ("activation", activation, ACTIVATIONS),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, given {value!r}")
        depths, counts = ([n, n] if isinstance(n, int) else list(n) for n in (depth, words))
        if len(depths) != 2 or len(counts) != 2 or min(*depths, *counts) < 1:
            raise ValueError(
                f"depth and words are one number or (source, target), all above 0; given {depth=}, {words=}"
            )
        self.dim, self.pad, self.causal, self.dropout = dim, pad, causal, nn.Dropout(dropout)
        self.source = nn.Embedding(counts[0], dim)
        self.target = None if isinstance(words, int) else nn.Embedding(counts[1], dim)
        self.output = None if isinstance(words, int) else nn.Linear(dim, counts[1], bias=False)
        self.bias = nn.Parameter(torch.zeros(counts[1]))
        self.positions = Waves(kind=positions, dim=dim)

        def layer(crossed: bool) -> nn.Module:
            return LAYERS[norm](
                dim=dim,
                attention=MultiHeadAttention(dim=dim, heads=heads),
                feedforward=FeedForward(dim=dim, hidden=hidden, activation=ACTIVATIONS[activation]),
                cross=MultiHeadAttention(dim=dim, heads=heads) if crossed else None,
                dropout=dropout,
                eps=1e-5,
            )

        def last() -> nn.Module:
            return nn.LayerNorm(dim, eps=1e-5) if norm == "pre" else nn.Identity()

        self.encoder = Encoder(layers=[layer(False) for _ in range(depths[0])], norm=last())
        self.decoder = Decoder(layers=[layer(True) for _ in range(depths[1])], norm=last())
        self._initialise()

    def _initialise(self) -> None:
        """Glorot's uniform matrices, as the published codes; tables of deviation 1 / sqrt(D): scaled words have 1."""
        for name, parameter in self.named_parameters():
            if name in ("source.weight", "target.weight", "output.weight"):
                nn.init.normal_(parameter, std=self.dim**-0.5)
            elif parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def embed(self, table: nn.Embedding, words: Int[Tensor, "batch length"], first: int = 0) -> Tensor:
        """Looks words up, scales them by sqrt(D) and adds the waves of their positions, which begin at `first`."""
        return self.dropout(self.positions(table(words) * math.sqrt(self.dim), first))

    def read(self, source: Int[Tensor, "batch source"], lengths: Int[Tensor, " batch"]) -> Memory:
        """Encodes sentences; `lengths` says how many words of each row count."""
        mask = masks.padding(lengths, source.shape[1])
        return self.encoder(self.embed(self.source, source), None if bool(mask.all()) else mask)

    def write(
        self, target: Int[Tensor, "batch target"], memory: Memory, mask: Tensor | None = None
    ) -> Float[Tensor, "batch target dim"]:
        """Computes what the output sees behind each of the target's words (teacher forcing).

        `mask` hides more than the future: words that are padding need none, as they stand behind all others.
        """
        words = self.embed(self.source if self.target is None else self.target, target)
        return self.decoder(words, memory, mask, self.causal)

    def logits(self, features: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows words"]:
        """Computes the scores of all target words."""
        return F.linear(features, (self.source if self.output is None else self.output).weight, self.bias)

    def forward(
        self, source: Int[Tensor, "batch source"], lengths: Int[Tensor, " batch"], target: Int[Tensor, "batch target"]
    ) -> Float[Tensor, "batch target words"]:
        """Gives the logits of the word that follows each target word; the target begins with the start word."""
        return self.logits(self.write(target, self.read(source, lengths)))

    def steps(
        self, source: Int[Tensor, "batch source"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Callable[[Tensor, Cache], tuple[Tensor, Cache]], Cache]:
        """Gives the (step, state) that `sightline.decoding` takes: log-probabilities of the next word.

        All hypotheses of a sentence share its memory, whose keys and values are computed once; of the target only the
        newest word is computed, and the cache, which is the state, holds the others.
        """
        memory = self.read(source, lengths)
        opened = self.decoder.open(memory)
        table = self.source if self.target is None else self.target

        def step(tokens: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
            words = self.embed(table, tokens[:, None], first=cache.length)
            features = self.decoder.step(words, opened, memory.mask, cache)
            return self.logits(features[:, 0]).log_softmax(dim=1), cache

        return step, Cache(layers=len(self.decoder.layers), rows=len(source), device=source.device)

    def loss(self, batch: dict[str, Tensor], smoothing: float = 0.1) -> dict[str, Tensor]:
        """Computes the cross-entropy of a word with smoothed labels, averaged over words that are no padding.

        `batch` has `source` (B, S), `lengths` (B,) and `target` (B, T), which begins with the start word and ends
        with the end word. `smoothing` spreads that share of each label over all words; `plain` is the loss without.
        """
        given, wanted = batch["target"][:, :-1], batch["target"][:, 1:].flatten()
        logits = self(batch["source"], batch["lengths"], given).flatten(0, 1)
        loss, plain = smoothed_cross_entropy(logits, wanted, smoothing=smoothing, ignore=self.pad)
        return {"loss": loss, "plain": plain.detach()}


def transformer_base(**more: Any) -> Transformer:
    """The paper's base model: 6 layers of width 512, 8 heads, 37,000 pieces of words; 63 million parameters."""
    return Transformer(**{"words": 37_000} | more)


def transformer_big(**more: Any) -> Transformer:
    """The paper's big model: width 1024, 16 heads, dropout 0.3 (English to German)."""
    return Transformer(**{"words": 37_000, "dim": 1024, "heads": 16, "hidden": 4096, "dropout": 0.3} | more)
