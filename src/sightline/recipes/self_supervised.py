"""The frame in which all methods without labels are trained: the same pictures, optimizer, budget and measures.

A method is a system with `learned` (the backbone to use afterwards) and `loss(batch)` of {"views": [...]}; its recipe
says how views are made, and what happens beside the gradient step.
"""

from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sightline.metrics.neighbours import neighbour_votes
from sightline.recipes import backbone, probes
from sightline.recipes.probes import HELD, collect, features_of
from sightline.recipes.schedules import cosine
from sightline.recipes.views import View, Views
from sightline.recipes.vit import DEVIATION, MEAN
from sightline.systems.backbones import width_of
from sightline.systems.resnet import ResNet

FRAME = probes  # how pictures are read and features measured
build = backbone.build


@dataclass(frozen=True)
class Common:
    """What can be set for every method; `rate` is that of a batch of 256 and scales with the batch."""

    steps: int = 4000
    batch: int = 64
    rate: float = 2e-3
    decay: float = 0.04
    last_decay: float = 0.04
    warm: float = 0.1  # share of the steps over which the rate grows
    side: int = 0  # of the large views; 0: that of the backbone
    small: int = 0  # of the small views; 0: half of that
    bank: int = 0  # how many pictures, at most, take part in measuring; 0: all
    seed: int = 0
    precision: str = "32-true"
    save_every: int = 200
    init: str = ""  # a folder with the weights of a backbone to start from


TRACED = 50  # how often the parts of a loss are kept over a run
TINY: dict[str, Any] = {"steps": 60, "batch": 32, "rate": 8e-3, "save_every": 30}
TINY_SYSTEM: dict[str, Any] = {"image_size": 32, "patch": 8, "dim": 48, "depth": 2, "heads": 3}


class SelfSupervised(lightning.LightningModule):
    """Trains a method on views of pictures; keeps its backbone."""

    mean: Tensor
    deviation: Tensor
    paced = True  # every schedule reads `settings.steps` at each step (recipes/within.py)

    def __init__(self, system: nn.Module, settings: Any, data: Any, *, method: nn.Module, views: list[View]) -> None:
        super().__init__()
        self.system, self.settings, self.method, self.data = system, settings, method, data
        self.side: int = system.image_size[0]  # type: ignore[index,assignment]
        self.width = width_of(system)
        self.pixels_last = isinstance(system, ResNet)  # the layout in which convolutions are fast in bfloat16
        self.views = Views(views=views)
        self.told: dict[str, Tensor] = {}
        self.traced: list[list[Any]] = []  # [step, parts of the loss]
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None], persistent=False)

    @property
    def kept(self) -> nn.Module:
        """The network to save: the backbone that the method learned."""
        return self.method.learned  # type: ignore[return-value]

    def normalised(self, images: Tensor) -> Tensor:
        """Brings byte images to the numbers that the network reads."""
        return (images.float() / 255 - self.mean) / self.deviation

    def beside(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """What the loss needs beside the views at this step."""
        return {}

    def moved(self, step: int) -> None:
        """What follows the optimizer's step, counted from 0, such as the teacher."""

    def training_step(self, batch: dict[str, Tensor], number: int) -> Tensor:
        with torch.autocast(self.device.type, enabled=False):
            views = [(view - self.mean) / self.deviation for view in self.views(batch["images"].float() / 255)]
            if self.pixels_last:
                views = [view.contiguous(memory_format=torch.channels_last) for view in views]
        # the fused CPU kernel is slow in bfloat16 at this length (recipes/vit.py)
        kernels = [SDPBackend.MATH] if views[0].device.type == "cpu" else list(SDPBackend.__members__.values())
        with sdpa_kernel(kernels):
            told = self.method.loss({"views": views, **self.beside(batch)})  # type: ignore[operator]
        self.told = {name: value.detach() for name, value in told.items()}
        if self.global_step % max(1, self.settings.steps // TRACED) == 0:
            self.traced.append([self.global_step, {name: round(float(value), 4) for name, value in self.told.items()}])
        return told["loss"]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["traced"] = self.traced

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.traced = checkpoint["traced"]

    def optimizer_step(self, epoch: int, batch: int, optimizer: Any, closure: Any = None) -> None:
        given, step = self.settings, self.global_step
        rate = cosine(
            self.rate, min(1e-6, self.rate), step + 1, given.steps, warm=max(2, round(given.warm * given.steps))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
            if group["weight_decay"]:
                group["weight_decay"] = cosine(given.decay, given.last_decay, step, given.steps)
        super().optimizer_step(epoch, batch, optimizer, closure)
        self.moved(step)

    @property
    def rate(self) -> float:
        """The highest learning rate."""
        return self.settings.rate * self.settings.batch / 256

    def on_validation_epoch_start(self) -> None:
        self.bank = collect(self, self.data, 2000)

    def validation_step(self, batch: dict[str, Tensor], number: int) -> None:
        known, labels = self.bank
        found = features_of(self.kept, self.normalised(batch["images"]))[:, -self.width :].float()
        votes = neighbour_votes(found, known[:, -self.width :], labels, classes=len(self.data.classes))
        right = votes.argmax(dim=1) == batch["labels"]
        self.log(HELD, right.float().mean(), batch_size=len(right), sync_dist=True)

    def configure_optimizers(self) -> Any:
        # neither biases and norms nor the class token (one row) are drawn to zero
        learned = [p for p in self.method.parameters() if p.requires_grad]
        matrices = [p for p in learned if p.ndim > 1 and len(p) > 1]
        others = [p for p in learned if p.ndim <= 1 or len(p) == 1]
        groups = [{"params": matrices, "weight_decay": self.settings.decay}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.rate)
