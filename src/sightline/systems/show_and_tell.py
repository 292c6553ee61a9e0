"""Show and Tell.

paper     Show and Tell: A Neural Image Caption Generator, Vinyals et al., CVPR 2015 (arXiv 1411.4555)
idea      Translate a picture into a sentence: a convolutional network reads it, an LSTM writes.
          The picture is shown once, as if it were the first word.
flow      features (B, N, F), the N cells of a frozen encoder's grid -> mean (B, F) -> linear (B, E)
          LSTM from zero over [picture, <start>, word, word, …] (B, 1 + T, E) -> hidden (B, T, H) -> logits (B, T, V)
differs   The encoder is frozen and whatever gives a grid of features (the paper: GoogLeNet, later Inception v3).
          Words are read and written by different matrices, as in the paper; dropout keeps the mean while training.
recipe    recipes/show_and_tell.py; the control without attention of show_attend_tell
"""

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.blocks.packed import Packed, Written
from sightline.decoding.step import State, Step


class ShowAndTell(nn.Module, PyTorchModelHubMixin):
    """Computes the next-word logits of captions from the mean of a grid of features.

    `vocab` counts the words, `width` the features' channels; `embedding` and `hidden` are the widths of words and LSTM.
    Token 0 is padding, 1 start, 2 end.
    """

    pad, start, end, unknown = 0, 1, 2, 3

    def __init__(
        self, *, vocab: int, width: int = 2048, embedding: int = 512, hidden: int = 512, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.picture = nn.Linear(width, embedding)
        self.embedding = nn.Embedding(vocab, embedding, padding_idx=self.pad)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        self.head = nn.Linear(hidden, vocab)
        self.dropout = nn.Dropout(dropout)
        self.initialise()

    def initialise(self) -> None:
        """Draws all weights uniformly in ±0.08, as the paper does; the forget gate starts open (bias 1)."""
        for name, parameter in self.named_parameters():
            nn.init.zeros_(parameter) if "bias" in name else nn.init.uniform_(parameter, -0.08, 0.08)
        with torch.no_grad():
            self.embedding.weight[self.pad].zero_()
            hidden = self.lstm.hidden_size
            self.lstm.get_parameter("bias_ih_l0")[hidden : 2 * hidden].fill_(1.0)

    def look(self, features: Float[Tensor, "batch cells width"]) -> Float[Tensor, "batch embedding"]:
        """Gives the picture as a word."""
        return self.picture(features.mean(dim=1))

    def forward(self, features: Float[Tensor, "batch cells width"], tokens: Int[Tensor, "captions length"]) -> Written:
        """Reads given captions and gives what it would say at each word.

        The captions are shared out among the pictures in order: as many for each.
        """
        packed = Packed(tokens, self.pad)
        pictures = self.look(features)[packed.order // (len(tokens) // len(features))]
        words = self.embedding(packed.tokens[:, :-1])
        hidden, _ = self.lstm(self.dropout(torch.cat([pictures[:, None], words], dim=1)))
        said, targets, captions, steps = packed.written(list(hidden[:, 1:].unbind(dim=1)))
        return Written(self.head(self.dropout(said)), targets, captions, steps)

    def loss(self, batch: dict[str, Tensor], smoothing: float = 0.0) -> dict[str, Tensor]:
        """Computes the cross-entropy a word of `batch["tokens"]` ([images,] captions, length), for "features"."""
        told = self(batch["features"], batch["tokens"].flatten(0, -2))
        cost = F.cross_entropy(told.logits, told.targets, label_smoothing=smoothing)
        return {"loss": cost, "cross_entropy": cost}

    def decoder(self, features: Float[Tensor, "batch cells width"]) -> tuple[Step, State]:
        """Gives (step, state) for `sightline.decoding`: greedy, beam search or sampling of captions."""

        def advance(inputs: Tensor, state: State) -> tuple[Tensor, State]:
            past = None if state is None else (state[0][None], state[1][None])
            hidden, (last, memory) = self.lstm(inputs[:, None], past)
            return hidden[:, 0], (last[0], memory[0])

        def step(tokens: Tensor, state: State) -> tuple[Tensor, State]:
            hidden, state = advance(self.embedding(tokens), state)
            return self.head(hidden).log_softmax(dim=1), state

        return step, advance(self.look(features), None)[1]


def show_and_tell_coco(vocab: int = 12000, **more: object) -> ShowAndTell:
    """The authors' sizes: words 512, LSTM 512, Inception v3's 2048 channels."""
    return ShowAndTell(**{"vocab": vocab, **more})  # type: ignore[arg-type]
