"""Trains a recurrent translator, with or without attention.

data      pairs of sentences (recipes/pairs.py), cut into pieces of words that are learned from them (`words`)
system    systems/seq2seq.py, small by default: one table of 4000 pieces for source, target and output, 256 wide
objective cross-entropy of the next piece with smoothed labels, teacher forced
schedule  Adam, linear warm-up, cosine to zero; batches of sentences of similar length
kept      the moving average of the weights
control   attention=none with a wider decoder of as many parameters: decoder=446 has what attention=additive and
          decoder=384 have (a test counts them)
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from sightline.data.subwords import Subwords
from sightline.recipes import translations
from sightline.recipes.averaged import averaged
from sightline.recipes.pairs import Pairs
from sightline.recipes.schedules import climb_and_fall
from sightline.systems.seq2seq import Seq2Seq
from sightline.tasks.translate import PIECES

FRAME = translations
HELD = "val_accuracy"  # of the next piece, the truth given so far


@dataclass(frozen=True)
class Settings:
    """What can be set as key=value beside the system's own arguments."""

    steps: int = 3000
    batch: int = 128
    rate: float = 2e-3
    smoothing: float = 0.1
    average: float = 0.998
    beam: int = 5
    length_penalty: float = 1.0
    seed: int = 0
    precision: str = "32-true"
    save_every: int = 200
    init: str = ""  # a folder of weights to start from, with the same pieces


TINY = {"steps": 150, "batch": 32, "rate": 1e-2, "smoothing": 0.0, "average": 0.95, "beam": 2, "save_every": 50}
TINY_SYSTEM = {"words": 120, "embedding": 24, "encoder": 24, "decoder": 32, "readout": 24, "dropout": 0.0}


def build(data: Pairs | None, *, words: int = 4000, **sizes: Any) -> Seq2Seq:
    """Builds the system with this recipe's sizes where none are given; learns at most `words` pieces from the data."""
    if data is None:
        return Seq2Seq(**sizes)
    data.pieces = Subwords.build(data.source + data.target, size=words)
    count = len(data.pieces)
    for side in ("source_words", "target_words"):
        if sizes.get(side, count) != count:
            raise ValueError(f"{side}={sizes[side]}: the data gives {count} pieces; set words= instead")
    usual = {"embedding": 256, "encoder": 256, "decoder": 384, "readout": 256, "tied": True, "dropout": 0.3}
    return Seq2Seq(**usual | sizes | {"source_words": count, "target_words": count})


class Recipe(lightning.LightningModule):
    """Trains a network of (source, lengths, target) -> logits; keeps the moving average of its weights."""

    paced = True  # the schedule reads `settings.steps` at each step (recipes/within.py)

    def __init__(self, system: nn.Module, settings: Settings, data: Pairs | None) -> None:
        super().__init__()
        self.system, self.settings = system, settings
        self.pieces = None if data is None else data.pieces
        self.average = averaged(system, settings.average)

    @property
    def kept(self) -> nn.Module:
        """The network to save: the averaged one."""
        return self.average.module

    def training_step(self, batch: dict[str, Tensor], number: int) -> dict[str, Tensor]:
        loss = self.system.loss(batch, self.settings.smoothing)["loss"]  # type: ignore[operator]
        return {"loss": loss, "count": torch.count_nonzero(batch["target"][:, 1:])}  # words, no padding

    def optimizer_step(self, *given: Any, **named: Any) -> None:
        super().optimizer_step(*given, **named)
        self.average.update_parameters(self.system)

    def validation_step(self, batch: dict[str, Tensor], number: int) -> None:
        given, wanted = batch["target"][:, :-1], batch["target"][:, 1:]
        right = (self.kept(batch["source"], batch["lengths"], given).argmax(dim=2) == wanted)[wanted != 0]
        self.log(HELD, right.float().mean(), batch_size=len(right), sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.system.parameters(), lr=self.settings.rate, betas=(0.9, 0.98))

        def share(step: int) -> float:
            steps = self.settings.steps
            return climb_and_fall(step, steps, warm=max(1, steps // 20))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def describe(recipe: Recipe, data: Pairs) -> dict[str, Any]:
    """Gives what the card says of the sentences: how many pieces, one pair as an example."""
    return {"pieces": len(recipe.pieces or ()), "example": [data.source[0], data.target[0]]}


def save_beside(recipe: Recipe, folder: Path) -> None:
    """Writes the pieces of words beside the weights."""
    if recipe.pieces is not None:
        recipe.pieces.save(folder / PIECES)


def load_beside(recipe: Recipe, folder: Path) -> None:
    """Gives a recipe without data the pieces that lie beside its weights."""
    recipe.pieces = Subwords.load(folder / PIECES)
