"""Trains Segmenter from scratch, or from weights of one's own (`init=`): a class for every pixel.

data      any collection of `sightline.data.segmented`
system    systems/segmenter.py, small by default: windows of 256 x 320 pixels, patches of 16, 6 layers of 192; for the
          generated world windows of 64 x 64, patches of 8
objective cross-entropy of labelled pixels
augment   scale 0.5 to 2, crop, mirror, colours
schedule  AdamW, short linear warm-up, then the paper's polynomial of power 0.9.  The paper's SGD suits encoders that
          come pretrained; from random weights it reaches 12.5 mIoU on ADE20K (their table 3), so Adam's steps are used
kept      the moving average of the weights
"""

from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from sightline.data.pixel_labels import PixelLabels
from sightline.data.world_pictures import SIDE
from sightline.data.world_pixels import WorldPixels
from sightline.metrics.segmentation import Confusion
from sightline.recipes import augment, segmentations
from sightline.recipes.averaged import averaged
from sightline.recipes.crops import cut_some
from sightline.recipes.pixel_batches import class_weights
from sightline.recipes.segmentations import HELD, normalised, probabilities, sizes_for
from sightline.systems.segmenter import Segmenter

FRAME = segmentations


@dataclass(frozen=True)
class Settings:
    """What can be set as key=value beside the system's own arguments."""

    steps: int = 4000
    batch: int = 8
    rate: float = 5e-4
    decay: float = 0.05
    power: float = 0.9
    smallest: float = 0.5  # scale of the crops
    largest: float = 2.0
    colours: float = 0.3
    balance: float = 0.0  # how much more the pixels of rare classes count: by (1 / share)^balance
    short: int = 0  # pixels of the short side that pictures are brought to; 0: as they are
    multi_scale: bool = False  # the end measures at six scales, mirrored too, beside
    average: float = 0.99
    held: int = 1000  # held-out pictures of the quick figure, and how often it is taken
    checks: int = 5
    seed: int = 0
    precision: str = "32-true"
    save_every: int = 200
    init: str = ""  # a folder of weights to start from, with the same classes


TINY = {"steps": 100, "batch": 4, "rate": 1e-3, "save_every": 30, "average": 0.9, "short": 96}
TINY_SYSTEM = {"image_size": (64, 64), "patch": 8, "dim": 48, "depth": 2, "heads": 3, "decoder_depth": 1}


def build(data: PixelLabels | None, **sizes: Any) -> Segmenter:
    """Builds the system with this recipe's sizes where none are given, and as many classes as the data has."""
    usual: dict[str, Any] = {"image_size": (256, 320), "patch": 16, "dim": 192, "depth": 6, "heads": 3}
    if isinstance(data, WorldPixels):
        usual |= {"image_size": (SIDE, SIDE), "patch": 8}
    return Segmenter(**usual | sizes_for(data, sizes))


class Recipe(lightning.LightningModule):
    """Trains a network of images (batch, 3, H, W) -> logits (batch, classes, H, W); keeps the weights' average."""

    paced = True  # the schedule reads `settings.steps` at each step (recipes/within.py)
    scaling = (0.5, 0.5)  # mean and deviation of the channels, as ViT's weights expect

    def __init__(self, system: nn.Module, settings: Settings, data: PixelLabels | None) -> None:
        super().__init__()
        self.system, self.settings = system, settings
        self.window: tuple[int, int] = system.image_size  # type: ignore[assignment]  # of a Module, anything may be had
        self.classes: tuple[str, ...] = () if data is None else data.classes
        self.palette = None if data is None else data.palette
        self.average = averaged(system, settings.average)
        weights = torch.ones(int(system.classes)) if data is None else class_weights(data, settings.balance)  # type: ignore[arg-type]
        self.register_buffer("weights", weights, persistent=False)
        self.held = Confusion(int(system.classes))  # type: ignore[arg-type]

    @property
    def kept(self) -> nn.Module:
        """The network to save: the averaged one."""
        return self.average.module

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        # crops are drawn on the CPU, which would wait for the GPU to hear sizes that it knew
        return super().transfer_batch_to_device(batch, device, dataloader_idx) | {"sizes": batch["sizes"]}

    def training_step(self, batch: dict[str, Tensor], number: int) -> Tensor:
        settings = self.settings
        images = augment.jitter_colours(batch["images"].float() / 255, settings.colours)
        sizes, scales = batch["sizes"], (settings.smallest, settings.largest)
        images = normalised(255 * images, self.scaling)
        images, labels = cut_some(images, batch["labels"], sizes, crop=self.window, scales=scales, short=settings.short)
        return self.system.loss({"images": images, "labels": labels, "weights": self.weights})["loss"]  # type: ignore[operator]

    def optimizer_step(self, *given: Any, **named: Any) -> None:
        super().optimizer_step(*given, **named)
        # here, and not at the batch's end, where the checkpoint has already been written
        self.average.update_parameters(self.system)

    def on_validation_epoch_start(self) -> None:
        self.held = Confusion(self.held.classes)

    def validation_step(self, batch: dict[str, Tensor], number: int) -> None:
        for image, labels, (height, width) in zip(
            batch["images"], batch["labels"], batch["sizes"].tolist(), strict=True
        ):
            said = probabilities(self, image[:, :height, :width])[0].argmax(dim=0)
            self.held.update(said.cpu(), labels[:height, :width].cpu())

    def on_validation_epoch_end(self) -> None:
        self.log(HELD, self.held.mean_iou(), sync_dist=True)

    def groups(self) -> list[dict[str, Any]]:
        """Gives the parameters that decay, and those that do not: biases, norms, tokens and positions."""
        named = [(name, p) for name, p in self.system.named_parameters() if p.requires_grad]
        plain = [p for name, p in named if p.ndim > 1 and not name.endswith(("_token", "_tokens", "table"))]
        others = [p for name, p in named if p.ndim <= 1 or name.endswith(("_token", "_tokens", "table"))]
        return [{"params": plain, "weight_decay": self.settings.decay}, {"params": others, "weight_decay": 0.0}]

    def configure_optimizers(self) -> Any:
        settings = self.settings
        optimizer = torch.optim.AdamW(self.groups(), lr=settings.rate)

        def share(step: int) -> float:
            steps = self.settings.steps  # as many as there are by now: `within` tells them anew as the run goes on
            warm = max(1, steps // 25)
            return min((step + 1) / warm, max(0.01, 1 - step / steps) ** settings.power)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
