"""Trains Show, Attend and Tell on captioned photographs with features of a frozen encoder.

data      recipes/captions.py says what can be given; mirror images of the training photographs double them
system    systems/show_attend_tell.py in its compact form; kind=hard for hard attention
objective the paper's, with label smoothing
schedule  AdamW, warm-up, cosine to zero; the moving average of the weights is kept
control   recipes/show_and_tell.py: the same encoder, steps and measure, no attention
"""

import math
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from sightline.data.captioned_features import CaptionedFeatures
from sightline.recipes import captions
from sightline.recipes.averaged import averaged
from sightline.recipes.captions import quick
from sightline.systems.show_attend_tell import ShowAttendTell

FRAME = captions  # captioners read and measure alike
HELD = "val_bleu4"
TINY = {"steps": 200, "batch": 8, "rate": 5e-3, "save_every": 50, "average": 0.95, "beam": 2, "precision": "32-true"}
TINY_SYSTEM = {"embedding": 32, "hidden": 48, "attention": 32, "dropout": 0.0}


@dataclass(frozen=True)
class Settings:
    """What can be set as key=value beside the system's own arguments."""

    steps: int = 4000
    batch: int = 16  # photographs, each with all its captions
    rate: float = 1e-3
    decay: float = 0.01
    smoothing: float = 0.1
    average: float = 0.999
    beam: int = 5
    penalty: float = 0.7  # of the length, in beam search
    held: int = 320
    seed: int = 0
    precision: str = "bf16-mixed"
    save_every: int = 250
    init: str = ""  # a folder of weights to start from


def build(data: CaptionedFeatures | None, **sizes: Any) -> ShowAttendTell:
    """Builds the compact form for the words and features of the data."""
    if data is None:
        return ShowAttendTell(**sizes)
    usual: dict[str, Any] = {"form": "compact", "embedding": 256, "hidden": 448, "attention": 256, "dropout": 0.3}
    return ShowAttendTell(**usual | {"vocab": len(data.vocabulary), "width": data.width} | sizes)


class Recipe(lightning.LightningModule):
    """Trains a captioner with `loss(batch, smoothing)` and `decoder(features)`; keeps the average of its weights."""

    def __init__(self, system: Any, settings: Settings, data: Any) -> None:
        super().__init__()
        self.system, self.settings = system, settings
        self.vocabulary: Any = data.vocabulary if data else None
        self.average = averaged(system, settings.average)

    @property
    def kept(self) -> nn.Module:
        """The network to save: the averaged one."""
        return self.average.module

    def training_step(self, batch: dict[str, Tensor], number: int) -> Tensor:
        return self.system.loss(batch, self.settings.smoothing)["loss"]

    def optimizer_step(self, *given: Any, **named: Any) -> None:
        super().optimizer_step(*given, **named)
        # here, and not at the batch's end, where the checkpoint has already been written
        self.average.update_parameters(self.system)

    def validation_step(self, batch: dict[str, Tensor], number: int) -> None:
        self.log(HELD, quick(self, batch), batch_size=len(batch["tokens"]), sync_dist=True)

    def configure_optimizers(self) -> Any:
        matrices = [p for p in self.system.parameters() if p.ndim > 1]
        others = [p for p in self.system.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": self.settings.decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.settings.rate, betas=(0.9, 0.98))
        steps = self.settings.steps
        warm = max(1, steps // 25)

        def share(step: int) -> float:
            rest = max(0, step - warm) / max(1, steps - warm)
            return min(1.0, (step + 1) / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * rest)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
