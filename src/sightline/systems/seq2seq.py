"""Recurrent sequence-to-sequence models, without attention and with the first two kinds of it.

papers    Learning Phrase Representations using RNN Encoder-Decoder, Cho et al., EMNLP 2014 (arXiv 1406.1078);
          Neural Machine Translation by Jointly Learning to Align and Translate, Bahdanau et al., ICLR 2015
          (arXiv 1409.0473); Effective Approaches to Attention-based NMT, Luong et al., EMNLP 2015 (1508.04025)
idea      One recurrent network reads a sentence, another writes its translation, a word a step.
          Squeezed into one vector, long sentences are forgotten; so the writer looks back, at every word it writes,
          at all states of the reader, and learns by itself where to look.
flow      source (B, S) -> embedding -> GRU in both directions -> memory (B, S, 2E), s_0 = tanh(W [last; first])
          "none"      s_t = GRU([y_{t-1}; summary], s_{t-1})
          "additive"  c_t = attention(s_{t-1}, memory), s_t = GRU([y_{t-1}; c_t], s_{t-1})            Bahdanau
          "dot", "general", "concat"   h_t = GRU([y_{t-1}; a_{t-1}], h_{t-1}), c_t = attention(h_t, memory),
                      a_t = tanh(W [c_t; h_t]), which is fed to the next step                         Luong
          -> readout of [s_t; c_t; y_{t-1}], or a_t itself -> logits (B, T, V)
differs   GRUs everywhere (Luong: LSTM; his global attention, not the local one). Padding is packed away in the
          encoder and masked in the attention. The readout is one linear map to the words (`readout=0`, as in
          bentrevett/pytorch-seq2seq) or tanh of a narrow map and then the words (Bahdanau: maxout); `tied` shares one
          table of words between source, target and output. What does not depend on the previous step (keys, gates of
          the words, everything behind the recurrence) is computed for all steps at once.
recipe    recipes/seq2seq.py
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.attention import masks
from sightline.attention.additive import AdditiveAttention
from sightline.attention.multiplicative import MultiplicativeAttention

ATTENTIONS = ("none", "additive", "dot", "general", "concat")


class Memory(NamedTuple):
    """What the encoder hands over: states (B, S, 2E), last forward and backward one (B, 2E), mask (B, 1, 1, S)."""

    states: Tensor
    summary: Tensor
    mask: Tensor


class Encoder(nn.Module):
    """Computes the states of a GRU in both directions over embedded words; padding is never read.

    The backward direction reads each sentence turned round within its own length, so that both run over plain
    rectangles: the same numbers as packed sequences, and shapes that repeat, which kernels in bfloat16 want.
    """

    def __init__(self, *, embedding: int, hidden: int) -> None:
        super().__init__()
        self.rnn = nn.GRU(embedding, hidden, batch_first=True, bidirectional=True)

    def forward(self, words: Float[Tensor, "batch source embedding"], lengths: Int[Tensor, " batch"]) -> Memory:
        """Reads the first `lengths[b]` words of each row; states behind them are zero."""
        mask = masks.padding(lengths, words.shape[1])
        place, last = torch.arange(words.shape[1], device=words.device), (lengths - 1)[:, None]
        turned = (last - place).where(place <= last, place)[:, :, None]  # its own inverse
        forward = self._run(words, "")
        backward = self._run(words.take_along_dim(turned, dim=1), "_reverse")
        ends = [states.take_along_dim(last[:, :, None], dim=1)[:, 0] for states in (forward, backward)]
        states = torch.cat([forward, backward.take_along_dim(turned, dim=1)], dim=2)
        return Memory(states.masked_fill(~mask[:, 0, 0, :, None], 0.0), torch.cat(ends, dim=1), mask)

    def _run(self, words: Tensor, direction: str) -> Tensor:
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        weights = [getattr(self.rnn, name + direction) for name in names]
        start = words.new_zeros(1, len(words), self.rnn.hidden_size)
        return torch.gru(words, start, weights, True, 1, 0.0, self.training, False, True)[0]


class GRU(nn.GRU):
    """torch's GRU of one layer, with its step apart from the input's part of the gates."""

    weight_ih_l0: Tensor
    weight_hh_l0: Tensor
    bias_ih_l0: Tensor
    bias_hh_l0: Tensor

    def __init__(self, *, given: int, hidden: int) -> None:
        super().__init__(given, hidden, batch_first=True)

    def gates(self, given: Tensor) -> Tensor:
        """Computes what the first columns of the input, as many as `given` is wide, add to the gates, and the bias."""
        return F.linear(given, self.weight_ih_l0[:, : given.shape[-1]], self.bias_ih_l0)

    def last_columns(self, width: int, dtype: torch.dtype) -> Tensor:
        """Gives the weights of the input's last columns, once for a loop over time, in the precision it runs in."""
        return self.weight_ih_l0[:, -width:].to(dtype)

    def advance(self, gates: Tensor, hidden: Tensor) -> Tensor:
        """Computes the next state (…, H) from the gates (…, 3H) and the former state."""
        size = self.hidden_size
        recurrent = F.linear(hidden, self.weight_hh_l0, self.bias_hh_l0)
        reset, update = torch.sigmoid(gates[..., : 2 * size] + recurrent[..., : 2 * size]).chunk(2, dim=-1)
        new = torch.tanh(gates[..., 2 * size :] + reset * recurrent[..., 2 * size :])
        return torch.lerp(new, hidden.to(new.dtype), update)


# A decoder offers: open(memory), what every step needs and no step changes; start(first state); step(word (B, Q, E),
# state (B, Q, ·), opened), for one word of Q hypotheses that share a memory; forward(words (B, T, E), first state,
# memory) for all words at once. Both compute features (…, F) for the readout.


class PlainDecoder(nn.Module):
    """Writes from one vector (Cho et al.): features [s_t; summary; y_{t-1}]. Teacher forced it is one fused GRU."""

    def __init__(self, *, embedding: int, memory: int, hidden: int) -> None:
        super().__init__()
        self.rnn = GRU(given=embedding + memory, hidden=hidden)
        self.features = hidden + memory + embedding

    def open(self, memory: Memory) -> Tensor:
        return memory.summary[:, None]

    def start(self, first: Tensor) -> Tensor:
        return first

    def step(self, word: Tensor, state: Tensor, opened: Any) -> tuple[Tensor, Tensor]:
        summary = opened.expand(-1, word.shape[1], -1)
        state = self.rnn.advance(self.rnn.gates(torch.cat([word, summary], dim=2)), state)
        return torch.cat([state, summary, word], dim=2), state

    def forward(self, words: Tensor, first: Tensor, memory: Memory) -> Tensor:
        summary = self.open(memory).expand(-1, words.shape[1], -1)
        states, _ = self.rnn(torch.cat([words, summary], dim=2), first.transpose(0, 1).contiguous())
        return torch.cat([states, summary, words], dim=2)


class AdditiveDecoder(nn.Module):
    """Looks before each step, with the former state (Bahdanau et al.): features [s_t; c_t; y_{t-1}]."""

    def __init__(self, *, embedding: int, memory: int, hidden: int) -> None:
        super().__init__()
        self.attention = AdditiveAttention(query_dim=hidden, memory_dim=memory, dim=hidden)
        self.rnn = GRU(given=embedding + memory, hidden=hidden)
        self.features = hidden + memory + embedding

    def open(self, memory: Memory) -> tuple[Tensor, ...]:
        keys = self.attention.project(memory.states)
        return memory.states, keys, memory.mask, self.rnn.last_columns(memory.states.shape[2], keys.dtype)

    def start(self, first: Tensor) -> Tensor:
        return first

    def step(self, word: Tensor, state: Tensor, opened: Any) -> tuple[Tensor, Tensor]:
        state, context = self._advance(self.rnn.gates(word), state, *opened)
        return torch.cat([state, context, word], dim=2), state

    def _advance(
        self, gates: Tensor, state: Tensor, states: Tensor, keys: Tensor, mask: Tensor, of_context: Tensor
    ) -> tuple[Tensor, Tensor]:
        context, _ = self.attention(state, states, keys=keys, mask=mask)
        return self.rnn.advance(gates + F.linear(context, of_context), state), context

    def forward(self, words: Tensor, first: Tensor, memory: Memory) -> Tensor:
        opened, state, written, contexts = self.open(memory), first, [], []
        for gates in self.rnn.gates(words).split(1, dim=1):
            state, context = self._advance(gates, state, *opened)
            written.append(state)
            contexts.append(context)
        return torch.cat([torch.cat(written, dim=1), torch.cat(contexts, dim=1), words], dim=2)


class InputFeedingDecoder(nn.Module):
    """Looks after each step, with the new state, and feeds what it made of it to the next (Luong et al.): a_t.

    Its state is [h_t; a_t].
    """

    def __init__(self, *, embedding: int, memory: int, hidden: int, features: int, score: str) -> None:
        super().__init__()
        self.attention: AdditiveAttention | MultiplicativeAttention
        if score == "concat":
            self.attention = AdditiveAttention(query_dim=hidden, memory_dim=memory, dim=hidden)
        else:
            self.attention = MultiplicativeAttention(query_dim=hidden, memory_dim=memory, learned=score == "general")
        self.rnn = GRU(given=embedding + features, hidden=hidden)
        self.combine = nn.Linear(memory + hidden, features, bias=False)
        self.features, self.memory = features, memory

    def open(self, memory: Memory) -> tuple[Tensor, ...]:
        # W [c; h] = W_c c + W_h h, and W_c of a mean is the mean of W_c m: the memory is mapped once, not every step
        mapped = F.linear(memory.states, self.combine.weight[:, : self.memory])
        weights = (
            self.rnn.last_columns(self.features, mapped.dtype),
            self.combine.weight[:, self.memory :].to(mapped.dtype),
        )
        return mapped, self.attention.project(memory.states), memory.mask, *weights

    def start(self, first: Tensor) -> Tensor:
        return F.pad(first, (0, self.features))

    def step(self, word: Tensor, state: Tensor, opened: Any) -> tuple[Tensor, Tensor]:
        parts = state.split([self.rnn.hidden_size, self.features], dim=2)
        hidden, fed = self._advance(self.rnn.gates(word), *parts, *opened)
        return fed, torch.cat([hidden, fed], dim=2)

    def _advance(
        self, gates: Tensor, hidden: Tensor, fed: Tensor, mapped: Tensor, keys: Tensor, mask: Tensor, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        of_fed, of_hidden = weights
        hidden = self.rnn.advance(gates + F.linear(fed, of_fed), hidden)
        found = self.attention(hidden, mapped, keys=keys, mask=mask)
        context = found[0] if isinstance(found, tuple) else found
        return hidden, torch.tanh(context + F.linear(hidden, of_hidden))

    def forward(self, words: Tensor, first: Tensor, memory: Memory) -> Tensor:
        opened, hidden, written = self.open(memory), first, []
        fed = self.start(first)[..., self.rnn.hidden_size :]
        for gates in self.rnn.gates(words).split(1, dim=1):
            hidden, fed = self._advance(gates, hidden, fed, *opened)
            written.append(fed)
        return torch.cat(written, dim=1)


class Seq2Seq(nn.Module, PyTorchModelHubMixin):
    """Computes the logits of each next target word, given a source sentence and the target words before it.

    `source_words` and `target_words` count the vocabularies; `encoder` is the width of the reading GRU in each
    direction, `decoder` that of the writing one and of the space where its queries meet the keys; `attention` is one
    of ATTENTIONS. `readout` is the width in front of the output words (0: none; for Luong's scores, which always have
    it, `decoder`). `tied` shares one table between source, target and output: it needs one vocabulary and
    `readout == embedding`. Words of number `pad` are not learned from. Raises ValueError for sizes that do not fit.
    """

    def __init__(
        self,
        *,
        source_words: int,
        target_words: int,
        embedding: int = 256,
        target_embedding: int | None = None,
        encoder: int = 256,
        decoder: int = 512,
        attention: str = "additive",
        readout: int = 0,
        tied: bool = False,
        dropout: float = 0.0,
        pad: int = 0,
    ) -> None:
        super().__init__()
        if attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)}, given {attention!r}")
        written = embedding if target_embedding is None else target_embedding
        if tied and not (source_words == target_words and readout == embedding == written):
            raise ValueError(
                "tied=True shares one table of words: give source_words == target_words and readout == embedding, "
                f"given {source_words=}, {target_words=}, {readout=}, {embedding=}, target_embedding={written}"
            )
        self.attention, self.pad, self.dropout = attention, pad, nn.Dropout(dropout)
        self.source = nn.Embedding(source_words, embedding)
        self.target = None if tied else nn.Embedding(target_words, written)
        self.encoder = Encoder(embedding=embedding, hidden=encoder)
        self.first = nn.Linear(2 * encoder, decoder)
        sizes = {"embedding": written, "memory": 2 * encoder, "hidden": decoder}
        self.decoder: PlainDecoder | AdditiveDecoder | InputFeedingDecoder
        if attention == "none":
            self.decoder = PlainDecoder(**sizes)
        elif attention == "additive":
            self.decoder = AdditiveDecoder(**sizes)
        else:
            self.decoder = InputFeedingDecoder(**sizes, features=readout or decoder, score=attention)
        narrow = bool(readout) and not isinstance(self.decoder, InputFeedingDecoder)
        self.readout = nn.Linear(self.decoder.features, readout) if narrow else None
        self.words = None if tied else nn.Linear(readout if narrow else self.decoder.features, target_words)
        self.bias = nn.Parameter(torch.zeros(target_words)) if tied else None
        if tied:
            nn.init.normal_(self.source.weight, std=embedding**-0.5)  # as output weights: logits of order 1

    def read(self, source: Int[Tensor, "batch source"], lengths: Int[Tensor, " batch"]) -> Memory:
        """Encodes sentences; `lengths` says how many words of each row count."""
        return self.encoder(self.dropout(self.source(source)), lengths)

    def embed(self, target: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows embedding"]:
        """Looks up target words."""
        return self.dropout((self.source if self.target is None else self.target)(target))

    def begin(self, memory: Memory) -> Float[Tensor, "batch 1 decoder"]:
        """Computes the decoder's first state: tanh(W [last forward; last backward state])."""
        return torch.tanh(self.first(memory.summary))[:, None]

    def logits(self, features: Float[Tensor, "*rows features"]) -> Float[Tensor, "*rows words"]:
        """Computes the scores of all target words."""
        if self.readout is not None:
            features = torch.tanh(self.readout(features))
        features = self.dropout(features)
        return F.linear(features, self.source.weight, self.bias) if self.words is None else self.words(features)

    def features(
        self, source: Int[Tensor, "batch source"], lengths: Int[Tensor, " batch"], target: Int[Tensor, "batch target"]
    ) -> Float[Tensor, "batch target features"]:
        """Computes what the readout sees behind each of the target's words, all words given (teacher forcing)."""
        memory = self.read(source, lengths)
        return self.decoder(self.embed(target), self.begin(memory), memory)

    def forward(
        self, source: Int[Tensor, "batch source"], lengths: Int[Tensor, " batch"], target: Int[Tensor, "batch target"]
    ) -> Float[Tensor, "batch target words"]:
        """Gives the logits of the word that follows each target word; the target begins with the start word."""
        return self.logits(self.features(source, lengths, target))

    def steps(
        self, source: Int[Tensor, "batch source"], lengths: Int[Tensor, " batch"]
    ) -> tuple[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], Tensor]:
        """Gives the (step, state) that `sightline.decoding` takes: log-probabilities of the next word.

        All hypotheses of a sentence share its memory; only the decoder's state is reordered.
        """
        memory = self.read(source, lengths)
        opened, count = self.decoder.open(memory), len(source)

        def step(tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            word = self.embed(tokens).unflatten(0, (count, -1))
            features, state = self.decoder.step(word, state.unflatten(0, (count, -1)), opened)
            return self.logits(features.flatten(0, 1)).float().log_softmax(dim=1), state.flatten(0, 1)

        return step, self.decoder.start(self.begin(memory))[:, 0]

    def loss(self, batch: dict[str, Tensor], smoothing: float = 0.0) -> dict[str, Tensor]:
        """Computes the cross-entropy of a word: -log p(y_t | y_<t, source), averaged over words that are no padding.

        `batch` has `source` (B, S), `lengths` (B,) and `target` (B, T), which begins with the start word and ends
        with the end word. `smoothing` spreads that share of each label over all words; `plain` is the loss without.
        """
        given, wanted = batch["target"][:, :-1], batch["target"][:, 1:].flatten()
        logits = self.logits(self.features(batch["source"], batch["lengths"], given)).flatten(0, 1).float()
        log_probs, counts = logits.log_softmax(dim=1), wanted != self.pad
        plain = F.nll_loss(log_probs, wanted, ignore_index=self.pad)
        loss = plain
        if smoothing:
            loss = (1 - smoothing) * plain - smoothing * log_probs.mean(dim=1).where(counts, 0.0).sum() / counts.sum()
        return {"loss": loss, "plain": plain.detach()}


def rnnsearch(**more: Any) -> Seq2Seq:
    """RNNsearch, Bahdanau et al.'s sizes: 30,000 words each side, embeddings of 620, states of 1000."""
    usual = {"source_words": 30_000, "target_words": 30_000, "embedding": 620, "encoder": 1000, "decoder": 1000}
    return Seq2Seq(**usual | {"readout": 500} | more)
