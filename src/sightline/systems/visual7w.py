"""Visual7W: answers questions in words (telling) and by pointing at a box.

paper     Visual7W: Grounded Question Answering in Images, Zhu, Groth, Bernstein, Fei-Fei, CVPR 2016 (arXiv 1511.03416)
idea      An LSTM reads the picture as its first word, then the question, and goes on with the answer.
          At every step, reading or answering, it attends to the cells of a convolutional map: where to look depends on
          what was read so far.  An answer is written, or chosen: the choice whose words cost least on average.
          Pointing scores each box by a dot product of its features with the last state.
flow      picture -> C(I) (B, N, W), the cells of a conv map, and F(I) (B, K), one code of the whole
          v_0 = W_i F(I) + b_i; v_t = word t (B, Q, E), Q questions for each picture
          e = w_a · tanh(W_he h_{t-1} + W_ce C(I)); a = softmax(e) (B, Q, N); r_t = a C(I) (B, Q, W)
          LSTM on [v_t; h_{t-1}; r_t] -> h_t (B, Q, H) -> telling: logits (B, Q, V) | pointing: region · h (B, Q, boxes)
differs   The picture is seen by a small convolutional network of our own (image_size), trained with the rest, or by any
          frozen encoder (features: its channels), where the paper has VGG-16's conv5 and fc7.  A start token stands
          between question and answer, so that decoding starts as in every other system here.
          The code released by the authors weighs the cells otherwise (one linear map of the whole conv map and one of
          h, added); this is the paper's own, additive attention cell by cell.
          Pointing was never released: a box's features are the mean of the cells under it, by the area that each
          covers, and the box's place and size, through one relu layer in the place of fc7.  Random windows are further
          wrong choices in training, so that boxes may also be proposed and not given.
          Eyes of our own also learn to name what lies under a box (`names`: colour, shape, …), which stands in for
          VGG's training on ImageNet; questions alone teach them to see only slowly.
          `kind` are the controls: "even" has the same weight on every cell at every step, "first" sees the picture
          as the first word only (the paper's LSTM without attention), "blind" sees nothing.
recipe    recipes/visual7w.py, recipes/visual7w_pointing.py
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.attention.additive import AdditiveAttention
from sightline.decoding.step import State, Step

KINDS = ("attention", "even", "first", "blind")


class Seen(NamedTuple):
    """A picture as it is looked at: its cells C(I), their keys W_ce C(I), and its code F(I)."""

    cells: Float[Tensor, "batch cells width"]
    keys: Float[Tensor, "batch cells attention"]
    code: Float[Tensor, "batch code"]


class Followed(NamedTuple):
    """What reading words step by step gave: states after each word, the last one, and where each word looked.

    Where a row has ended (padding) its hidden states and weights are zero and its last state stays.  Weights are kept
    outside training only.
    """

    hidden: Float[Tensor, "batch questions steps hidden"]
    last: tuple[Tensor, Tensor]
    weights: Float[Tensor, "batch questions steps cells"] | None


class Eyes(nn.Module):
    """Computes C(I) and F(I) of small pictures with four convolutions, one cell for 8 x 8 pixels.

    The pixels' coordinates are two more channels.  F(I) reads a narrow copy of the whole map, as fc7 does.
    """

    def __init__(self, *, image_size: int, width: int, code: int) -> None:
        super().__init__()
        if image_size < 16 or image_size % 8:
            raise ValueError(f"image_size must be a multiple of 8 and 16 or more, given {image_size}")
        self.side = image_size // 8
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((5, 32, 2), (32, 64, 2), (64, width, 2), (width, width, 1)):
            convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.narrow = nn.Conv2d(width, 16, 1)
        self.whole = nn.Linear(16 * self.side**2, code)

    def forward(
        self, images: Float[Tensor, "batch 3 size size"]
    ) -> tuple[Float[Tensor, "batch cells width"], Float[Tensor, "batch code"]]:
        """Looks at pictures, 0 … 1."""
        line = torch.linspace(-1, 1, images.shape[2], device=images.device)
        place = torch.stack(torch.meshgrid(line, line, indexing="xy")).expand(len(images), -1, -1, -1)
        grid = self.layers(torch.cat([2 * images - 1, place], dim=1))
        code = self.whole(self.narrow(grid).relu().flatten(1)).relu()
        return grid.flatten(2).transpose(1, 2), code


class Frozen(nn.Module):
    """Computes C(I), a linear map and relu of an encoder's features, and F(I), their mean."""

    def __init__(self, *, features: int, width: int, dropout: float) -> None:
        super().__init__()
        self.narrow = nn.Linear(features, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, features: Float[Tensor, "batch cells features"]
    ) -> tuple[Float[Tensor, "batch cells width"], Float[Tensor, "batch features"]]:
        """Takes the features of each cell."""
        return self.dropout(self.narrow(features).relu()), self.dropout(features.mean(dim=1))


class Names(nn.Module):
    """Computes the logits of several attributes of what lies under boxes; `names` counts the values of each."""

    def __init__(self, *, width: int, names: Sequence[int]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.linear = nn.Linear(width, sum(names))

    def loss(
        self,
        cells: Float[Tensor, "batch cells width"],
        boxes: Float[Tensor, "batch things 4"],
        truth: Int[Tensor, "batch things attributes"],
    ) -> Float[Tensor, ""]:
        """Computes the mean cross-entropy of the attributes; -1 counts nothing."""
        under = covered(boxes, round(cells.shape[1] ** 0.5)) @ cells.float()
        parts = self.linear(under).split(self.names, dim=2)
        pairs = zip(parts, truth.unbind(dim=2), strict=True)
        costs = [F.cross_entropy(part.flatten(0, 1), one.flatten(), ignore_index=-1) for part, one in pairs]
        return torch.stack(costs).mean()


class Reader(nn.Module):
    """Reads a picture and then words with an LSTM that attends to the picture at every step (equations 1 to 9)."""

    pad, start, end = 0, 1, 2

    def __init__(
        self,
        *,
        vocab: int,
        features: int,
        image_size: int,
        width: int,
        embedding: int,
        hidden: int,
        attention: int,
        dropout: float,
        kind: str,
        names: Sequence[int],
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind is one of {', '.join(KINDS)}: {kind!r}")
        self.kind = kind
        if features:
            self.see: Eyes | Frozen = Frozen(features=features, width=width, dropout=dropout)
        else:
            self.see = Eyes(image_size=image_size, width=width, code=2 * width)
        self.names = Names(width=width, names=names) if names else None
        self.picture = nn.Linear(features or 2 * width, embedding)
        self.embedding = nn.Embedding(vocab, embedding, padding_idx=self.pad)
        self.attention = AdditiveAttention(query_dim=hidden, memory_dim=width, dim=attention)
        # the gates (input, forget, content, output) read v_t, h_{t-1} and r_t
        self.read = nn.Linear(embedding, 4 * hidden)
        self.recall = nn.Linear(hidden, 4 * hidden, bias=False)
        self.let_in = nn.Linear(width, 4 * hidden, bias=False)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embedding.weight, std=embedding**-0.5)
        with torch.no_grad():
            self.embedding.weight[self.pad].zero_()
            for gate in range(4):
                nn.init.orthogonal_(self.recall.weight[gate * hidden : (gate + 1) * hidden])
            self.read.bias[hidden : 2 * hidden].fill_(1.0)  # the forget gate starts open

    def look(self, pictures: Float[Tensor, "batch *shape"]) -> Seen:
        """Sees pictures (batch, 3, size, size), 0 … 1, or features (batch, cells, features)."""
        cells, code = self.see(pictures)
        if self.kind == "blind":
            cells, code = torch.zeros_like(cells), torch.zeros_like(code)
        return Seen(cells, self.attention.project(cells), code)

    def naming(self, seen: Seen, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the "naming" loss of the things in a batch, where it has some and this reader learns their names."""
        if self.names is None or "things" not in batch or self.kind == "blind":
            return {}
        return {"naming": self.names.loss(seen.cells, batch["things"], batch["made"])}

    def step(
        self, read: Float[Tensor, "batch some gates"], seen: Seen, hidden: Tensor, cell: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Looks where h_{t-1} says and takes in one word: ((h_t, c_t), weights (batch, some, cells))."""
        gates = read + self.recall(hidden)
        if self.kind == "attention":
            weights = self.attention.weigh(hidden, seen.keys)
        else:
            weights = torch.full_like(seen.keys[:, :, 0], 1 / seen.keys.shape[1])[:, None].expand(*read.shape[:2], -1)
        if self.kind in ("attention", "even"):
            gates = gates + self.let_in(weights @ seen.cells)
        entry, forget, content, exit_ = gates.chunk(4, dim=2)
        cell = forget.sigmoid() * cell + entry.sigmoid() * content.tanh()
        return (exit_.sigmoid() * cell.tanh(), cell), weights

    def begin(self, seen: Seen, questions: int) -> tuple[Tensor, Tensor]:
        """Reads the picture, v_0, as the first word; gives the state for each of its questions."""
        zero = torch.zeros(len(seen.code), 1, self.recall.in_features, device=seen.code.device)
        state, _ = self.step(self.read(self.dropout(self.picture(seen.code)))[:, None], seen, zero, zero)
        return state[0].expand(-1, questions, -1), state[1].expand(-1, questions, -1)

    def follow(
        self, seen: Seen, tokens: Int[Tensor, "batch questions steps"], state: tuple[Tensor, Tensor]
    ) -> Followed:
        """Reads words from a state on, stopping in each row where its padding starts."""
        gates = self.read(self.dropout(self.embedding(tokens)))
        hidden, cell = state
        live = tokens != self.pad
        said, looked = [], []
        for t in range(tokens.shape[2]):
            some = live[:, :, t].any(dim=0).nonzero().squeeze(1)  # columns of questions that go on
            goes_on = live[:, some, t, None]
            old = hidden[:, some], cell[:, some]
            new, weights = self.step(gates[:, some, t], seen, *old)
            new = torch.where(goes_on, new[0], old[0]), torch.where(goes_on, new[1], old[1])
            hidden, cell = hidden.index_copy(1, some, new[0]), cell.index_copy(1, some, new[1])
            said.append(torch.zeros_like(hidden).index_copy(1, some, new[0] * goes_on))
            if not self.training:
                blank = weights.new_zeros(*tokens.shape[:2], weights.shape[2])
                looked.append(blank.index_copy(1, some, weights * goes_on))
        everywhere = torch.stack(looked, dim=2) if looked else None
        return Followed(torch.stack(said, dim=2), (hidden, cell), everywhere)


class Visual7W(nn.Module, PyTorchModelHubMixin):
    """Computes the next-word logits of answers to questions about pictures (telling).

    `vocab` counts the words.  `features` are the channels of a frozen encoder; with 0 a small network of its own sees
    pictures of `image_size` pixels.  `width`, `embedding`, `hidden` and `attention` are the widths of cells, words,
    LSTM and attention; `kind` is one of KINDS (see the card); `names` counts the values of the attributes that the eyes
    learn to name (none: they learn from questions alone).  Token 0 is padding, 1 start, 2 end.  Raises ValueError
    for another kind, and sizes that do not fit.
    """

    pad, start, end, unknown = 0, 1, 2, 3

    def __init__(
        self,
        *,
        vocab: int,
        features: int = 0,
        image_size: int = 64,
        width: int = 128,
        embedding: int = 128,
        hidden: int = 256,
        attention: int = 64,
        dropout: float = 0.2,
        kind: str = "attention",
        names: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.features, self.image_size, self.kind = features, image_size, kind
        self.reader = Reader(
            vocab=vocab,
            features=features,
            image_size=image_size,
            width=width,
            embedding=embedding,
            hidden=hidden,
            attention=attention,
            dropout=dropout,
            kind=kind,
            names=names,
        )
        self.words = nn.Linear(hidden, vocab)

    def forward(
        self,
        pictures: Float[Tensor, "batch *shape"],
        questions: Int[Tensor, "batch questions words"],
        answers: Int[Tensor, "batch questions steps"],
    ) -> Float[Tensor, "batch questions steps vocab"]:
        """Gives, at each word of given answers (from the start token on), the logits of the next."""
        return self.tell(self.reader.look(pictures), questions, answers)

    def tell(
        self,
        seen: Seen,
        questions: Int[Tensor, "batch questions words"],
        answers: Int[Tensor, "batch questions steps"],
    ) -> Float[Tensor, "batch questions steps vocab"]:
        """Does what `forward` does for pictures that were looked at already."""
        asked = self.reader.follow(seen, questions, self.reader.begin(seen, questions.shape[1]))
        said = self.reader.follow(seen, answers, asked.last)
        return self.words(self.reader.dropout(said.hidden))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the mean cross-entropy of the words of `batch["answers"]`, start … end, the end included.

        `batch` also has "pictures" and "questions" (batch, questions, words); padding does not count.  Where it has
        "things" (batch, things, 4) and "made" (batch, things, attributes), naming them is added.
        """
        answers, seen = batch["answers"], self.reader.look(batch["pictures"])
        logits = self.tell(seen, batch["questions"], _without_end(answers))
        telling = F.cross_entropy(logits.flatten(0, 2), answers[:, :, 1:].flatten(), ignore_index=self.pad)
        parts = {"telling": telling, **self.reader.naming(seen, batch)}
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}

    def cost(
        self,
        pictures: Float[Tensor, "batch *shape"],
        questions: Int[Tensor, "batch questions words"],
        choices: Int[Tensor, "batch questions choices steps"],
    ) -> tuple[Float[Tensor, "batch questions choices"], Float[Tensor, "batch questions choices looks cells"] | None]:
        """Computes the mean cost of a word (nats) of every choice, start … end: the least is the answer.

        Also gives where each word of each choice, and its end, was looked for (None in training).
        """
        seen, many = self.reader.look(pictures), choices.shape[2]
        asked = self.reader.follow(seen, questions, self.reader.begin(seen, questions.shape[1]))
        state = tuple(part.repeat_interleave(many, dim=1) for part in asked.last)
        flat = choices.flatten(1, 2)
        said = self.reader.follow(seen, _without_end(flat), (state[0], state[1]))
        logits, targets = self.words(said.hidden), flat[:, :, 1:]
        each = F.cross_entropy(logits.flatten(0, 2), targets.flatten(), ignore_index=self.pad, reduction="none")
        mean = each.view(targets.shape).sum(dim=2) / (targets != self.pad).sum(dim=2).clamp(min=1)
        weights = said.weights if said.weights is None else said.weights.unflatten(1, (-1, many))
        return mean.unflatten(1, (-1, many)), weights

    def decoder(
        self, pictures: Float[Tensor, "batch *shape"], questions: Int[Tensor, "batch questions words"]
    ) -> tuple[Step, State]:
        """Gives (step, state) for `sightline.decoding`, one row for each question of each picture in turn."""
        seen = self.reader.look(pictures)
        asked = self.reader.follow(seen, questions, self.reader.begin(seen, questions.shape[1]))

        def step(tokens: Tensor, state: State) -> tuple[Tensor, State]:
            rows = tuple(part.unflatten(0, (len(pictures), -1)) for part in state)
            gates = self.reader.read(self.reader.embedding(tokens)).unflatten(0, (len(pictures), -1))
            new, _ = self.reader.step(gates, seen, *rows)
            return self.words(new[0].flatten(0, 1)).log_softmax(dim=1), tuple(part.flatten(0, 1) for part in new)

        return step, tuple(part.flatten(0, 1) for part in asked.last)


def _without_end(tokens: Tensor) -> Tensor:
    """What is read while answers are written: all but their last token, the end."""
    return tokens[:, :, :-1].masked_fill(tokens[:, :, :-1] == Visual7W.end, Visual7W.pad)


class Visual7WPointing(nn.Module, PyTorchModelHubMixin):
    """Computes the score of each box as the answer to a question about a picture (pointing).

    The arguments are those of `Visual7W`; `region` is the width of a box's features.
    """

    pad, start, end, unknown = 0, 1, 2, 3

    def __init__(
        self,
        *,
        vocab: int,
        features: int = 0,
        image_size: int = 64,
        width: int = 128,
        embedding: int = 128,
        hidden: int = 256,
        attention: int = 64,
        region: int = 256,
        dropout: float = 0.2,
        kind: str = "attention",
        names: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.features, self.image_size, self.kind = features, image_size, kind
        self.reader = Reader(
            vocab=vocab,
            features=features,
            image_size=image_size,
            width=width,
            embedding=embedding,
            hidden=hidden,
            attention=attention,
            dropout=dropout,
            kind=kind,
            names=names,
        )
        self.region = nn.Linear(width + 4, region)
        self.meet = nn.Linear(region, hidden)

    def forward(
        self,
        pictures: Float[Tensor, "batch *shape"],
        questions: Int[Tensor, "batch questions words"],
        boxes: Float[Tensor, "batch questions boxes 4"],
    ) -> tuple[Float[Tensor, "batch questions boxes"], Float[Tensor, "batch questions words cells"] | None]:
        """Gives the score of every box (left, top, right, bottom, 0 … 1), and where each word of a question looked.

        The latter is None in training.
        """
        return self.point(self.reader.look(pictures), questions, boxes)

    def point(
        self,
        seen: Seen,
        questions: Int[Tensor, "batch questions words"],
        boxes: Float[Tensor, "batch questions boxes 4"],
    ) -> tuple[Float[Tensor, "batch questions boxes"], Float[Tensor, "batch questions words cells"] | None]:
        """Does what `forward` does for pictures that were looked at already."""
        asked = self.reader.follow(seen, questions, self.reader.begin(seen, questions.shape[1]))
        under = covered(boxes.flatten(1, 2), round(seen.cells.shape[1] ** 0.5)) @ seen.cells
        regions = self.region(torch.cat([under, 2 * boxes.flatten(1, 2) - 1], dim=2)).relu()
        regions = self.meet(self.reader.dropout(regions)).unflatten(1, boxes.shape[1:3])
        hidden = self.reader.dropout(asked.last[0])
        return torch.einsum("bqnh,bqh->bqn", regions, hidden) / hidden.shape[2] ** 0.5, asked.weights

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Computes the cross-entropy of `batch["right"]` (batch, questions; -1 counts nothing) among "boxes".

        Where the batch has "things" and "made", naming them is added.
        """
        seen = self.reader.look(batch["pictures"])
        scores, _ = self.point(seen, batch["questions"], batch["boxes"])
        pointing = F.cross_entropy(scores.flatten(0, 1), batch["right"].flatten(), ignore_index=-1)
        parts = {"pointing": pointing, **self.reader.naming(seen, batch)}
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}


def covered(boxes: Float[Tensor, "batch boxes 4"], side: int) -> Float[Tensor, "batch boxes cells"]:
    """Computes how much of each box lies on each cell of a `side` x `side` grid: rows that sum to 1.

    Boxes are left, top, right, bottom in parts of the picture; an empty one covers nothing.
    """
    edges = torch.arange(side, device=boxes.device) / side
    low, high = boxes[:, :, None, :2], boxes[:, :, None, 2:]  # (batch, boxes, 1, x and y)
    inside = torch.minimum(high, edges[:, None] + 1 / side) - torch.maximum(low, edges[:, None])
    across, down = inside.clamp(min=0).unbind(dim=3)
    area = (down[:, :, :, None] * across[:, :, None]).flatten(2)
    return area / area.sum(dim=2, keepdim=True).clamp(min=1e-9)


def visual7w_telling(vocab: int, **more: object) -> Visual7W:
    """The paper's sizes: words and LSTM 512, the 512 channels of VGG-16's conv5, a frozen encoder."""
    sizes = {"features": 512, "width": 512, "embedding": 512, "hidden": 512, "attention": 512, "dropout": 0.5}
    return Visual7W(**{"vocab": vocab, **sizes, **more})  # type: ignore[arg-type]


def visual7w_pointing(vocab: int, **more: object) -> Visual7WPointing:
    """The same sizes for pointing, and fc7's 4096 for a box."""
    sizes = {"features": 512, "width": 512, "embedding": 512, "hidden": 512, "attention": 512, "dropout": 0.5}
    return Visual7WPointing(**{"vocab": vocab, "region": 4096, **sizes, **more})  # type: ignore[arg-type]
