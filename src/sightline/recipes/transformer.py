"""Trains a Transformer translator.

data      pairs of sentences (recipes/pairs.py), cut into pieces of words that are learned from them (`words`)
system    systems/transformer.py, small by default: one table of 4000 pieces for source, target and output, width 192,
          3 + 3 layers with the norms first, which bear a steep warm-up; as many parameters as recipes/seq2seq.py has
objective cross-entropy of the next piece with smoothed labels, teacher forced
schedule  Adam (0.9, 0.98), linear warm-up, then a cosine to zero: the paper's 1 / sqrt(step) has no end to plan for,
          a run of known length gains from one; batches of pairs whose longer side is of similar length
kept      the moving average of the weights, in place of the paper's mean of the last checkpoints
controls  positions=none (the order of the source means nothing), heads=1, causal=false (target words see those behind
          them while training, so copying is learned, not writing)
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sightline.data.subwords import Subwords
from sightline.recipes import seq2seq
from sightline.recipes.buckets import Buckets
from sightline.recipes.pairs import Pairs
from sightline.recipes.schedules import climb_and_fall
from sightline.systems.transformer import Transformer

FRAME = seq2seq


@dataclass(frozen=True)
class Settings(seq2seq.Settings):
    """What can be set as key=value beside the system's own arguments, beyond what recurrent translators have."""

    steps: int = 5200
    batch: int = 64
    rate: float = 1.5e-3
    warm: float = 0.1  # share of the steps


TINY: dict[str, Any] = {
    "steps": 400,
    "batch": 32,
    "rate": 1e-2,
    "smoothing": 0.0,
    "average": 0.95,
    "beam": 2,
    "save_every": 100,
}
TINY_SYSTEM = {"words": 120, "dim": 32, "depth": 1, "heads": 2, "hidden": 64, "dropout": 0.0}


def build(data: Pairs | None, *, words: int = 4000, **sizes: Any) -> Transformer:
    """Builds the system with this recipe's sizes where none are given; learns at most `words` pieces from the data."""
    if data is None:
        return Transformer(words=words, **sizes)
    data.pieces = Subwords.build(data.source + data.target, size=words)
    usual: dict[str, Any] = {"dim": 192, "depth": 3, "heads": 4, "hidden": 768, "norm": "pre", "dropout": 0.2}
    return Transformer(**usual | sizes | {"words": len(data.pieces)})


def order(data: Pairs, settings: Settings) -> Buckets:
    """Orders training pairs by the pieces of their longer side, then of both, so that little is padding."""
    assert data.pieces is not None
    rows = data.numbers(range(len(data)), data.pieces)
    source, target = np.array([[len(side) for side in pair] for pair in rows]).T
    return Buckets(1000 * np.maximum(source, target) + source + target, settings.batch, settings.seed)


class Recipe(seq2seq.Recipe):
    """Trains as the recurrent translators are trained; the rate climbs longer."""

    settings: Settings

    def training_step(self, batch: dict[str, Tensor], number: int) -> dict[str, Tensor]:
        # sentences are short: on a CPU the backward pass of the fused kernel takes longer than the plain products
        plain = sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()
        with plain:
            return super().training_step(batch, number)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        # Lightning clips for no fused Adam in mixed precision, lest gradients be scaled; in bfloat16 none are scaled
        if gradient_clip_val:
            nn.utils.clip_grad_norm_(self.system.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(
            self.system.parameters(), lr=self.settings.rate, betas=(0.9, 0.98), eps=1e-9, fused=True
        )

        def share(step: int) -> float:
            steps = self.settings.steps
            return climb_and_fall(step, steps, warm=max(1, round(steps * self.settings.warm)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
