"""Trains PS-ViT as a classifier.

data      placed64:ITEMS+PHOTOGRAPHS, digits anywhere on photographs (`sightline.data.placed`), a new picture each time;
          or any collection of `sightline.data.labelled`, cropped, mirrored, recoloured, some mixed
system    systems/ps_vit.py, small by default: 4 x 4 points, four looks, 6 layers of 48
objective cross-entropy with smoothed labels
schedule  AdamW, linear warm-up, cosine to zero
kept      the moving average of the weights
control   recipes/ps_vit_control.py: the same network with its points held on the grid, or sent at random
measure   accuracy; on placed digits also the share of points on the digit at each look, beside its share of the picture
"""

from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.data.placed import Placed
from sightline.recipes import augment, placed_digits
from sightline.recipes.averaged import averaged
from sightline.recipes.pictures import sizes_for
from sightline.recipes.placed_digits import Data
from sightline.recipes.schedules import cosine
from sightline.systems.ps_vit import PSViT

FRAME = placed_digits
HELD = "val_top1"
MEAN, DEVIATION = (0.48, 0.45, 0.40), (0.27, 0.26, 0.27)  # channels of everyday photographs, in 0..1


@dataclass(frozen=True)
class Settings:
    """What can be set as key=value beside the system's own arguments."""

    steps: int = 1500
    batch: int = 64
    rate: float = 2e-3
    offsets: float = 0.5  # rate of the offset layers, in multiples of the others'; at 3 points leave the map for good
    decay: float = 0.05
    smoothing: float = 0.05
    smallest: float = 0.5  # area of the crops of labelled photographs
    mix: float = 0.2  # share of them with a rectangle of another (CutMix)
    average: float = 0.99
    seed: int = 0
    precision: str = "32-true"
    save_every: int = 200
    init: str = ""  # a folder of weights to start from, with the same classes


TINY = {"steps": 120, "batch": 32, "save_every": 40, "average": 0.9, "offsets": 2.0}
TINY_SYSTEM = {"points": 3, "iterations": 3, "dim": 32, "depth": 4, "heads": 2, "stem": (8, 8, 16, 8)}


def usual_sizes(data: Data | None, sizes: dict[str, Any]) -> dict[str, Any]:
    """Gives this recipe's sizes where none are given, the side of the pictures and the classes of the data."""
    usual: dict[str, Any] = {"image_size": data.side if isinstance(data, Placed) else 32}
    usual |= {"points": 4, "dim": 48, "depth": 6, "heads": 3, "stem": (16, 16, 32, 16)}
    if isinstance(data, Placed) and sizes.get("image_size", data.side) != data.side:
        raise ValueError(f"image_size={sizes['image_size']}: the data's pictures have {data.side} pixels; leave it out")
    return usual | sizes_for(data, sizes)


def build(data: Data | None, **sizes: Any) -> PSViT:
    """Builds the system with this recipe's sizes where none are given, and as many classes as the data has."""
    system = PSViT(**usual_sizes(data, sizes))
    begin(system)
    return system


def begin(system: PSViT) -> None:
    """Draws the linear maps of a narrow network wider than the published 0.02, from which it learns late.

    After 300 steps on placed digits: 59 % right from 0.02, 76 % from 0.1.
    """
    system.initialise(0.1)


class Recipe(lightning.LightningModule):
    """Trains a PS-ViT; keeps the moving average of its weights."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, system: PSViT, settings: Settings, data: Data | None) -> None:
        super().__init__()
        self.system, self.settings, self.data = system, settings, data
        self.side = system.image_size
        self.classes = () if data is None else data.classes
        self.average = averaged(system, settings.average)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None], persistent=False)

    @property
    def kept(self) -> nn.Module:
        """The network to save: the averaged one."""
        return self.average.module

    def normalised(self, images: Tensor) -> Tensor:
        """Brings byte images to mean 0 and deviation 1 of everyday photographs."""
        # channels last in memory: a quarter less time a step on a CPU
        return ((images.float() / 255 - self.mean) / self.deviation).contiguous(memory_format=torch.channels_last)

    def logits(self, images: Tensor) -> Tensor:
        """Gives the kept network's logits of byte images (batch, 3, S, S)."""
        return self.kept(self.normalised(images))

    def training_step(self, batch: dict[str, Tensor], number: int) -> Tensor:
        settings = self.settings
        labels = F.one_hot(batch["labels"], len(self.classes)).float()
        if isinstance(self.data, Placed):
            digits = batch["digits"]
            images = self.data.pictures(digits, self.data.draw(len(digits)).to(digits.device))
        else:
            floats = augment.crop_and_flip(batch["images"].float() / 255, self.side, settings.smallest)
            floats, labels = augment.mix_some(augment.jitter_colours(floats), labels, settings.mix)
            images = floats * 255
        return F.cross_entropy(self.system(self.normalised(images)), labels, label_smoothing=settings.smoothing)

    def optimizer_step(self, *given: Any, **named: Any) -> None:
        super().optimizer_step(*given, **named)
        # here, and not at the batch's end, where the checkpoint has already been written
        self.average.update_parameters(self.system)

    def validation_step(self, batch: dict[str, Tensor], number: int) -> None:
        right = self.logits(batch["images"]).argmax(dim=1) == batch["labels"]
        self.log(HELD, right.float().mean(), batch_size=len(right), sync_dist=True)

    def configure_optimizers(self) -> Any:
        settings, parameters = self.settings, list(self.system.named_parameters())
        # biases and norms are not drawn to zero, nor the class token, nor the offsets, for which zero is the grid
        offsets = [p for name, p in parameters if ".offset." in name]
        rest = [p for name, p in parameters if ".offset." not in name]
        decayed = [p for p in rest if p.ndim > 1 and len(p) > 1]
        groups: list[dict[str, Any]] = [{"params": decayed, "weight_decay": settings.decay}]
        groups += [{"params": [p for p in rest if p.ndim <= 1 or len(p) == 1], "weight_decay": 0.0}]
        groups += [{"params": offsets, "weight_decay": 0.0, "lr": settings.rate * settings.offsets}]
        optimizer = torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.98))
        steps, warm = settings.steps, max(1, settings.steps // 20)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: (step + 1) / warm if step < warm else cosine(1.0, 0.0, step, steps, warm=warm)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
