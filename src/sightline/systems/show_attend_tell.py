"""Show, Attend and Tell.

paper     Show, Attend and Tell: Neural Image Caption Generation with Visual Attention, Xu et al., ICML 2015
          (arXiv 1502.03044)
idea      An LSTM writes a caption word by word and looks at another part of the photograph for each word.
          Soft attention looks everywhere by degrees and learns by gradient; hard attention looks at one place,
          drawn by lot, and learns by REINFORCE.
          A term asks that over the whole sentence every place is looked at about once ("doubly stochastic").
flow      features (B, N, F), the N cells of a frozen encoder's grid
          -> mean -> first hidden and memory (B, H)
          each step: hidden (B, H) and the N cells -> weights (B, N) -> context (B, F), times the gate beta
          -> LSTM on [word before; context] -> hidden
          -> deep output: tanh(W hidden + E word + W context) (B, E) -> logits (B, V)
differs   Three forms.  "paper": the authors' Theano code (tanh in the attention, beta one number, h0 and c0 with tanh,
          deep output).  "port": the PyTorch tutorial that most people know (relu, beta a vector, linear h0 and c0, the
          words read from the hidden state alone, the balance term a mean over cells).  "compact": the paper's, with
          features first mapped to the attention's width (so that the decoder stays small whatever the encoder) and one
          matrix for the words read and written.
          The loss is the authors' divided by the mean number of words, so that it does not grow with length.
          Dropout keeps the mean while training (theirs halves at test time; the converter folds it in).
          Hard attention rewards with the mean log-likelihood of the caption's words.  Once trained it reads the mean
          over the places, as the authors' code does by default; `one_place` makes it read the likeliest place alone.
recipe    recipes/show_attend_tell.py
"""

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.attention import hard
from sightline.attention.additive import AdditiveAttention
from sightline.blocks.packed import Packed, Written
from sightline.decoding.step import State, Step
from sightline.objectives.policy_gradient import reinforce

FORMS = ("paper", "port", "compact")
KINDS = ("soft", "hard")


class Gate(nn.Module):
    """Computes beta = sigmoid(W h + b), how much of the context to let in: one number, or one for each channel."""

    def __init__(self, *, hidden: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden, outputs)

    def forward(self, hidden: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows outputs"]:
        """Gives beta."""
        return self.linear(hidden).sigmoid()


class Beginning(nn.Module):
    """Computes the first hidden and memory from the mean annotation, through `layers` - 1 relu layers."""

    def __init__(self, *, width: int, hidden: int, layers: int, dropout: float, bounded: bool) -> None:
        super().__init__()
        self.before = nn.ModuleList(nn.Linear(width, width) for _ in range(layers - 1))
        self.hidden = nn.Linear(width, hidden)
        self.memory = nn.Linear(width, hidden)
        self.dropout, self.bounded = nn.Dropout(dropout), bounded

    def forward(
        self, mean: Float[Tensor, "batch width"]
    ) -> tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]:
        """Gives (h0, c0)."""
        for layer in self.before:
            mean = self.dropout(layer(mean).relu())
        first = self.hidden(mean), self.memory(mean)
        return (first[0].tanh(), first[1].tanh()) if self.bounded else first


class DeepOutput(nn.Module):
    """Computes tanh(W_h h + y + W_z z): what the words are read from (equation 7)."""

    def __init__(self, *, hidden: int, context: int, embedding: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(hidden, embedding)
        self.context = nn.Linear(context, embedding)

    def forward(
        self,
        hidden: Float[Tensor, "rows hidden"],
        words: Float[Tensor, "rows embedding"],
        context: Float[Tensor, "rows context"],
    ) -> Float[Tensor, "rows embedding"]:
        """Joins the hidden state, the word before and the context."""
        return (self.hidden(hidden) + words + self.context(context)).tanh()


class ShowAttendTell(nn.Module, PyTorchModelHubMixin):
    """Computes the next-word logits of captions, looking at a grid of features.

    `vocab` counts the words, `width` the features' channels; `embedding`, `hidden` and `attention` are the widths of
    words, LSTM and attention.  `form` is one of FORMS (see the card), `kind` "soft" or "hard".  `init_layers` and
    `attention_layers` (of the authors' code) deepen h0 and the keys.  Token 0 is padding, 1 start, 2 end.  Raises
    ValueError for an unknown form or kind.
    """

    pad, start, end, unknown = 0, 1, 2, 3
    balance = 1.0  # alpha_c of the doubly stochastic term
    surprise = 0.002  # weight of the entropy of hard attention
    one_place = False  # whether trained hard attention reads the likeliest place alone, and not the mean over places

    baseline: Tensor

    def __init__(
        self,
        *,
        vocab: int,
        width: int = 512,
        embedding: int = 512,
        hidden: int = 1800,
        attention: int = 512,
        dropout: float = 0.5,
        form: str = "paper",
        kind: str = "soft",
        init_layers: int = 1,
        attention_layers: int = 1,
    ) -> None:
        super().__init__()
        if form not in FORMS or kind not in KINDS:
            raise ValueError(
                f"form is one of {', '.join(FORMS)} and kind one of {', '.join(KINDS)}: {form!r}, {kind!r}"
            )
        self.form, self.kind = form, kind
        port = form == "port"
        self.annotate = nn.Linear(width, attention) if form == "compact" else None
        cells = attention if form == "compact" else width
        self.embedding = nn.Embedding(vocab, embedding, padding_idx=self.pad)
        self.begin = Beginning(width=cells, hidden=hidden, layers=init_layers, dropout=dropout, bounded=not port)
        self.attention = AdditiveAttention(
            query_dim=hidden, memory_dim=cells, dim=attention, activation=torch.relu if port else torch.tanh
        )
        self.deeper = nn.ModuleList(nn.Linear(attention, attention) for _ in range(attention_layers - 1))
        self.gate = Gate(hidden=hidden, outputs=cells if port else 1)
        # the LSTM's gates (input, forget, content, output) in three parts: a slice of one matrix at every step would
        # cost a gradient as large as the whole
        self.read = nn.Linear(embedding, 4 * hidden)
        self.let_in = nn.Linear(cells, 4 * hidden, bias=False)
        self.recall = nn.Linear(hidden, 4 * hidden, bias=False)
        self.output = None if port else DeepOutput(hidden=hidden, context=cells, embedding=embedding)
        self.head = None if form == "compact" else nn.Linear(hidden if port else embedding, vocab)
        self.bias = nn.Parameter(torch.zeros(vocab)) if form == "compact" else None
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("baseline", torch.zeros(()))  # of the rewards of hard attention
        self.initialise()

    def initialise(self) -> None:
        """Draws the weights: words N(0, 1/width) or uniform 0.1, recurrent matrices orthogonal, the rest torch's own.

        The forget gate starts open (bias 1).
        """
        embedding, hidden = self.embedding.embedding_dim, self.recall.in_features
        if self.form == "compact":
            nn.init.normal_(self.embedding.weight, std=embedding**-0.5)
        else:
            nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        with torch.no_grad():
            self.embedding.weight[self.pad].zero_()
            for gate in range(4):
                nn.init.orthogonal_(self.recall.weight[gate * hidden : (gate + 1) * hidden])
            self.read.bias[hidden : 2 * hidden].fill_(1.0)

    def annotations(self, features: Float[Tensor, "batch cells width"]) -> Float[Tensor, "batch cells inner"]:
        """Gives what is looked at: the features, in the compact form mapped to the attention's width."""
        return features if self.annotate is None else self.dropout(self.annotate(features).relu())

    def keys(self, memory: Float[Tensor, "batch cells inner"]) -> Float[Tensor, "batch cells attention"]:
        """Gives the keys of the cells, the same for every step."""
        keys = self.attention.project(memory)
        for layer in self.deeper:
            keys = layer(keys).tanh()
        return keys

    def step(
        self,
        read: Float[Tensor, "rows gates"],
        memory: Float[Tensor, "batch cells inner"],
        keys: Float[Tensor, "batch cells attention"],
        state: tuple[Tensor, Tensor],
        draw: bool = False,
    ) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor, Tensor]:
        """Looks and writes one word: (hidden, memory), gated context, weights, where it looked (all (rows, …)).

        Rows are a multiple of the batch: several hypotheses, side by side, look at one picture.
        """
        hidden, cell = state
        queries = hidden.unflatten(0, (len(memory), -1))
        weights = self.attention.weigh(queries, keys)
        looked = weights
        if self.kind == "hard" and (draw or (self.one_place and not self.training)):
            looked = hard.draw(weights) if draw else hard.likeliest(weights)
        context = self.gate(hidden) * (looked @ memory).flatten(0, 1)
        gates = read + self.recall(hidden) + self.let_in(context)
        entry, forget, content, exit_ = gates.chunk(4, dim=1)
        cell = forget.sigmoid() * cell + entry.sigmoid() * content.tanh()
        hidden = exit_.sigmoid() * cell.tanh()
        return (hidden, cell), context, weights.flatten(0, 1), looked.flatten(0, 1)

    def words(
        self,
        hidden: Float[Tensor, "rows hidden"],
        words: Float[Tensor, "rows embedding"],
        context: Float[Tensor, "rows inner"],
    ) -> Float[Tensor, "rows vocab"]:
        """Gives the logits of the next word."""
        hidden = self.dropout(hidden)
        if self.output is not None:
            hidden = self.dropout(self.output(hidden, words, context))
        return F.linear(hidden, self.embedding.weight, self.bias) if self.head is None else self.head(hidden)

    def forward(
        self, features: Float[Tensor, "batch cells width"], tokens: Int[Tensor, "captions length"], draw: bool = False
    ) -> Written:
        """Reads given captions and gives what it would say at each word, and where it looked.

        The captions are shared out among the pictures in order: as many for each.  `draw` draws the places of hard
        attention by lot.
        """
        packed = Packed(tokens, self.pad)
        memory = self.annotations(features)
        pictures = packed.order // (len(tokens) // len(features))
        state: tuple[Tensor, ...] = tuple(part[pictures] for part in self.begin(memory.mean(dim=1)))
        keys, memory = self.keys(memory)[pictures], memory[pictures]
        embedded = self.embedding(packed.read)
        read = self.read(embedded).split(packed.carried)
        steps: list[tuple[Tensor, ...]] = []
        for number, rows in enumerate(packed.carried):
            if rows < len(memory):
                memory, keys, state = memory[:rows], keys[:rows], tuple(part[:rows] for part in state)
            state, context, weights, looked = self.step(read[number], memory, keys, state, draw)  # type: ignore[arg-type]
            steps.append((state[0], context, weights, looked))
        hidden, targets, captions, place = packed.written([one[0] for one in steps])
        context = packed.written([one[1] for one in steps])[0]
        before = packed.written(list(embedded.split(packed.carried)))[0]
        logits = self.words(hidden, before, context)
        weights, looked = (packed.aligned([one[part] for one in steps]) for part in (2, 3))
        return Written(logits, targets, captions, place, weights, looked)

    def loss(self, batch: dict[str, Tensor], smoothing: float = 0.0) -> dict[str, Tensor]:
        """Computes the paper's objective of `batch["tokens"]` ([images,] captions, length) for `batch["features"]`.

        Cross-entropy + alpha_c · balance (equation 14); with hard attention, on one batch in two the places are drawn
        and REINFORCE (equation 12) and the entropy are added.  All in nats a word.
        """
        draw = self.kind == "hard" and self.training and bool(torch.rand(()) < 0.5)
        tokens = batch["tokens"].flatten(0, -2)
        told = self(batch["features"], tokens, draw)
        assert told.weights is not None
        cost = F.cross_entropy(told.logits, told.targets, label_smoothing=smoothing)
        missed = (1 - told.weights.sum(dim=1)).square()
        length = len(told.targets) / len(tokens)
        uneven = missed.mean() if self.form == "port" else missed.sum(dim=1).mean() / length
        parts = {"cross_entropy": cost, "balance": uneven}
        loss = cost + self.balance * uneven
        if draw:
            parts["policy"] = self._policy(told) / length
            loss = loss + parts["policy"]
        return {"loss": loss, **parts}

    def _policy(self, told: Written) -> Tensor:
        assert told.weights is not None
        assert told.looked is not None
        said = told.logits.detach().log_softmax(dim=1).gather(1, told.targets[:, None]).squeeze(1)
        reward = told.by_caption(said) / told.by_caption(torch.ones_like(said))
        chances = hard.log_chance(told.weights, told.looked)
        policy = reinforce(chances, reward[:, None].expand_as(chances), self.baseline.expand_as(chances))
        self.baseline = 0.9 * self.baseline + 0.1 * reward.mean()
        return policy - self.surprise * hard.entropy(told.weights).sum(dim=1).mean()

    def decoder(self, features: Float[Tensor, "batch cells width"]) -> tuple[Step, State]:
        """Gives (step, state) for `sightline.decoding`: greedy, beam search or sampling of captions."""
        memory = self.annotations(features)
        keys = self.keys(memory)

        def step(tokens: Tensor, state: State) -> tuple[Tensor, State]:
            embedded = self.embedding(tokens)
            state, context, _, _ = self.step(self.read(embedded), memory, keys, state)
            return self.words(state[0], embedded, context).log_softmax(dim=1), state

        return step, self.begin(memory.mean(dim=1))


def show_attend_tell_coco(vocab: int = 10000, **more: object) -> ShowAttendTell:
    """The authors' preset for COCO: words 512, LSTM 1800, VGG's 14 x 14 x 512 cells, two layers before h0 and keys."""
    return ShowAttendTell(**{"vocab": vocab, "init_layers": 2, "attention_layers": 2, **more})  # type: ignore[arg-type]


def show_attend_tell_port(vocab: int, **more: object) -> ShowAttendTell:
    """The tutorial's sizes: everything 512, ResNet-101's 2048 channels."""
    return ShowAttendTell(**{"vocab": vocab, "width": 2048, "hidden": 512, "form": "port", **more})  # type: ignore[arg-type]
