"""Trains the Vision Transformer as a classifier of photographs.

data      any collection of `sightline.data.labelled`
system    systems/vit.py, small by default: 64 pixels, patches of 8, 6 layers of 192
objective cross-entropy with smoothed labels and CutMix
schedule  AdamW, linear warm-up, cosine to zero; pictures grow from `small` to full size over the first 3/4
kept      the moving average of the weights
control   recipes/vit_control.py
"""

from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from sightline.data.labelled import Union
from sightline.recipes import augment, pictures
from sightline.recipes.averaged import averaged
from sightline.recipes.pictures import HELD, sizes_for
from sightline.recipes.schedules import climb_and_fall
from sightline.systems.vit import VisionTransformer

FRAME = pictures  # classifiers read and measure alike
MEAN, DEVIATION = (0.48, 0.45, 0.40), (0.27, 0.26, 0.27)  # channels of everyday photographs, in 0..1


@dataclass(frozen=True)
class Settings:
    """What can be set as key=value beside the system's own arguments."""

    steps: int = 4000
    batch: int = 128
    rate: float = 1e-3
    decay: float = 0.05
    small: int = 64
    mix: float = 0.2
    smoothing: float = 0.1
    average: float = 0.998
    seed: int = 0
    precision: str = "32-true"
    save_every: int = 200
    init: str = ""  # a folder of weights to start from, with the same classes


TINY = {"steps": 100, "batch": 32, "mix": 0.0, "save_every": 25, "average": 0.95}
TINY_SYSTEM = {"image_size": 32, "patch": 8, "dim": 48, "depth": 2, "heads": 3}


def build(data: Union | None, **sizes: Any) -> VisionTransformer:
    """Builds the system with this recipe's sizes where none are given, and as many classes as the data has."""
    usual = {"image_size": 64, "patch": 8, "dim": 192, "depth": 6, "heads": 3}
    return VisionTransformer(**usual | sizes_for(data, sizes))


class Recipe(lightning.LightningModule):
    """Trains a network of images (batch, 3, S, S) -> logits; keeps the moving average of its weights."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, system: nn.Module, settings: Settings, data: Union | None) -> None:
        super().__init__()
        self.system, self.settings = system, settings
        self.side: int = system.image_size[0]  # type: ignore[index,assignment]  # of a Module, anything may be had
        self.classes = () if data is None else data.classes
        self.average = averaged(system, settings.average)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None], persistent=False)

    @property
    def kept(self) -> nn.Module:
        """The network to save: the averaged one."""
        return self.average.module

    def logits(self, images: Tensor) -> Tensor:
        """Gives the kept network's logits of byte images (batch, 3, S, S)."""
        return self.kept((images.float() / 255 - self.mean) / self.deviation)

    def side_at(self, step: int) -> int:
        """Gives the side of the training pictures: `small` to full in steps of 8 pixels over 3/4 of the run."""
        small = min(self.settings.small, self.side)
        reached = min(1.0, step / (0.75 * self.settings.steps))
        return min(self.side, small + int((self.side - small + 8) * reached) // 8 * 8)

    def training_step(self, batch: dict[str, Tensor], number: int) -> Tensor:
        smooth = self.settings.smoothing
        classes = len(self.classes)
        labels = F.one_hot(batch["labels"], classes) * (1 - smooth) + smooth / classes
        images = augment.crop_and_flip(batch["images"].float() / 255, self.side_at(self.global_step))
        images = augment.soften_some(augment.jitter_colours(images))
        images, labels = augment.mix_some(images, labels, self.settings.mix)
        # the fused CPU kernel is slow in bfloat16 at 65 tokens: 87 pictures/s with it, 105 without (one core)
        kernels = [SDPBackend.MATH] if images.device.type == "cpu" else list(SDPBackend.__members__.values())
        with sdpa_kernel(kernels):
            return F.cross_entropy(self.system((images - self.mean) / self.deviation), labels)

    def optimizer_step(self, *given: Any, **named: Any) -> None:
        super().optimizer_step(*given, **named)
        # here, and not at the batch's end, where the checkpoint has already been written
        self.average.update_parameters(self.system)

    def validation_step(self, batch: dict[str, Tensor], number: int) -> None:
        right = self.logits(batch["images"]).argmax(dim=1) == batch["labels"]
        self.log(HELD, right.float().mean(), batch_size=len(right), sync_dist=True)

    def configure_optimizers(self) -> Any:
        settings, parameters = self.settings, list(self.system.parameters())
        # neither biases and norms nor the class token (one row) are drawn to zero
        matrices = [p for p in parameters if p.ndim > 1 and len(p) > 1]
        others = [p for p in parameters if p.ndim <= 1 or len(p) == 1]
        groups = [{"params": matrices, "weight_decay": settings.decay}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=settings.rate, betas=(0.9, 0.98))
        warm = max(1, settings.steps // 20)

        def share(step: int) -> float:
            return climb_and_fall(step, settings.steps, warm=warm)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
