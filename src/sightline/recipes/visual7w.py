"""Trains Visual7W to answer questions in words (telling).

data      recipes/answers.py says what can be given
system    systems/visual7w.py: its own small eyes for the generated world, a frozen encoder's features for photographs
objective the paper's: cross-entropy of the answer's words and its end; on the world its eyes also learn to name things
schedule  AdamW, warm-up, cosine to zero
measure   answers chosen by least mean cost, and written; the same with other pictures; where was looked
control   kind=blind (question only), kind=first (the picture as first word only), kind=even (the mean of the cells at
          every step), shuffle=true (the picture of another sample at every step)
"""

import math
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from sightline.data.asked import ATTRIBUTES, Asked
from sightline.recipes import answers
from sightline.recipes.looks import looks
from sightline.recipes.marks import by_sort, correct, marks, ready, words_right
from sightline.systems.visual7w import Visual7W

FRAME = answers

HELD = "val_accuracy"
TINY = {"steps": 300, "batch": 8, "rate": 8e-3, "save_every": 100, "precision": "32-true", "held": 100}
TINY_SYSTEM = {"width": 24, "embedding": 24, "hidden": 48, "attention": 16, "dropout": 0.0}


@dataclass(frozen=True)
class Settings:
    """What can be set as key=value beside the system's own arguments."""

    steps: int = 3000
    batch: int = 32  # pictures, each with up to seven of its questions (photographs: four)
    rate: float = 3e-3
    decay: float = 0.01
    shuffle: bool = False  # the control that learns from pictures of other samples
    held: int = 320
    seed: int = 0
    precision: str = "bf16-mixed"
    save_every: int = 200
    init: str = ""  # a folder of weights to start from


def build(data: Asked | None, **sizes: Any) -> Visual7W:
    """Builds the system for the words and pictures of the data, with this recipe's sizes where none are given."""
    return Visual7W(**usual(data) | sizes)


def usual(data: Asked | None) -> dict[str, Any]:
    """Gives the sizes for the data: a small system for the world, more dropout for few photographs."""
    if data is None:
        return {}
    sizes: dict[str, Any] = {"width": 64, "embedding": 64, "hidden": 128, "attention": 48}
    sizes["vocab"] = len(data.vocabulary)
    if "features" in data.about:
        return sizes | {"features": data.about["features"], "width": 128, "dropout": 0.5}
    names = tuple(map(len, ATTRIBUTES.values()))
    return sizes | {"image_size": data.about["image_size"], "dropout": 0.1, "names": names}


class Recipe(lightning.LightningModule):
    """Trains a system that has `loss(batch)`."""

    def __init__(self, system: nn.Module, settings: Settings, data: Asked | None) -> None:
        super().__init__()
        self.system, self.settings = system, settings
        self.vocabulary: Any = data.vocabulary if data else None

    @property
    def kept(self) -> nn.Module:
        """The network to save."""
        return self.system

    def training_step(self, batch: dict[str, Tensor], number: int) -> Tensor:
        system: Any = self.system
        return system.loss(ready(batch, self.device, self.settings.shuffle))["loss"]

    def validation_step(self, batch: dict[str, Tensor], number: int) -> None:
        right = correct(self.kept, ready(batch, self.device), self.vocabulary)[batch["items"] >= 0]
        self.log(HELD, right.float().mean(), batch_size=len(right), sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.system.parameters(), lr=self.settings.rate, betas=(0.9, 0.98), weight_decay=self.settings.decay
        )
        steps = self.settings.steps
        warm = max(1, steps // 15)

        def share(step: int) -> float:
            rest = max(0, step - warm) / max(1, steps - warm)
            return min(1.0, (step + 1) / warm) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * rest)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def measure(recipe: Any, data: Asked) -> dict[str, Any]:
    """Computes the accuracies on a split, by sort of question, with other pictures, and of the world where was looked.

    "accuracy" chooses among the given answers; where there are none, the written answer must be right word for word.
    """
    right, other = marks(recipe, data), marks(recipe, data, other=True)
    many = max(len(item.choices) for item in data.items)
    figures: dict[str, Any] = {
        "questions": len(right),
        "chance": 1 / many if many > 1 else 0.0,
        "accuracy": sum(right.values()) / len(right),
        "other_pictures": sum(other.values()) / len(other),
        "by_sort": by_sort(data.items, right),
    }
    if many > 1:
        figures["written"] = words_right(recipe, data)
    if data.things is not None and recipe.kept.kind == "attention":
        figures["looks"] = looks(recipe, data, right)
    return figures
