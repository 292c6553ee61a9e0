"""Trains the recurrent attention model to read a digit on a canvas through a few glimpses.

data      mnist:FOLDER, translated60:FOLDER, cluttered60:FOLDER (`sightline.data.canvas`), a new layout at every pass
system    systems/ram.py: 8 x 8 glimpses at one scale for 28 pixels, 12 x 12 at three scales for larger canvases
objective cross-entropy + squared error of the baseline + REINFORCE of the path
schedule  Adam, warm-up, cosine to zero
control   recipes/ram_control.py: fully connected, two-layer convolution, random glimpses; same data and steps
measure   the official test part: error of ten paths averaged (as published), of a single path, and of ten paths of
          random places followed by the same weights; how often a glimpse's middle lies on the digit
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning
import numpy as np
import torch
from torch import Tensor, nn

from sightline.data.canvas import DIGIT, Canvases, normalised, open_canvases
from sightline.lens.path import GlimpsePath, draw_paths
from sightline.systems.ram import RAM

HELD = "val_accuracy"
TINY = {"steps": 250, "batch": 128, "rate": 3e-3, "save_every": 50}
TINY_SYSTEM = {"glimpses": 4, "what": 48, "where": 16, "locator": 32, "std": 0.3}


@dataclass(frozen=True)
class Settings:
    """What can be set as key=value beside the system's own arguments."""

    steps: int = 16000
    batch: int = 256
    rate: float = 2e-3
    seed: int = 0
    precision: str = "32-true"
    save_every: int = 500
    init: str = ""  # a folder of weights to start from


def open_data(spec: str, split: str) -> Canvases:
    """Opens KIND:PATH as `sightline.data.canvas.open_canvases` does."""
    return open_canvases(spec, split)


def build(data: Canvases | None, **sizes: Any) -> RAM:
    """Builds the paper's model for the canvas of the data."""
    if data is None:
        return RAM(**sizes)
    usual = {"image_size": data.side} | (
        {"patch": 8, "scales": 1} if data.side == DIGIT else {"patch": 12, "scales": 3}
    )
    return RAM(**usual | sizes)


def read_batch(data: Canvases, indices: np.ndarray, told: Any) -> dict[str, Tensor]:
    """Reads "labels", and "digits" (batch, 28, 28) for training, "images" (batch, 1, S, S) for measuring, as bytes."""
    chosen = torch.from_numpy(indices)
    digits, labels = data.digits[chosen], data.labels[chosen]
    if data.layout is None:
        return {"digits": digits, "labels": labels}
    return {"images": data.canvases(digits, data.layout.take(chosen)), "labels": labels}


class Recipe(lightning.LightningModule):
    """Trains a network that has `loss(batch)` and `predict(images, copies)`, as RAM and its controls do."""

    def __init__(self, system: nn.Module, settings: Settings, data: Canvases | None) -> None:
        super().__init__()
        # Any: RAM or a control, which nn.Module does not tell apart from tensors
        self.system, self.settings, self.canvases = cast(Any, system), settings, data

    @property
    def kept(self) -> nn.Module:
        """The network to save."""
        return self.system

    def training_step(self, batch: dict[str, Tensor], number: int) -> Tensor:
        digits, canvases = batch["digits"], self.canvases
        assert canvases is not None, "a recipe around saved weights measures, and does not train"
        # drawn by the CPU's generator, so that every device sees the same canvases, and laid out where they are read
        images = canvases.canvases(digits, canvases.draw(len(digits)))
        return self.system.loss({"images": normalised(images), "labels": batch["labels"]})["loss"]

    def validation_step(self, batch: dict[str, Tensor], number: int) -> None:
        right = self.system.predict(normalised(batch["images"]), 4).argmax(dim=1) == batch["labels"]
        self.log(HELD, right.float().mean(), batch_size=len(right), sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.system.parameters(), lr=self.settings.rate, betas=(0.9, 0.99))
        steps = self.settings.steps
        warm = max(1, steps // 50)

        def share(step: int) -> float:
            rest = max(0, step - warm) / max(1, steps - warm)
            return min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * rest))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def measure(recipe: Any, data: Canvases) -> dict[str, Any]:
    """Computes the shares of wrong answers, and for RAM of glimpses after the first whose middle is on the digit.

    "error" averages ten paths; of RAM also "random_path_error": ten random paths followed by the same weights.
    """
    system, width = recipe.kept.eval(), data.side
    wrong: dict[str, int] = {}
    hits = {"own": 0, "random": 0}
    for indices in np.array_split(np.arange(len(data)), math.ceil(len(data) / 500)):
        batch = read_batch(data, indices, recipe)
        images, labels = normalised(batch["images"]).to(recipe.device), batch["labels"].to(recipe.device)
        said = {"error": system.predict(images, 10), "single_path_error": system.predict(images, 1)}
        if isinstance(system, RAM) and data.layout:
            random = torch.rand(10, len(images), system.glimpses, 2, device=recipe.device) * 2 - 1
            said["random_path_error"] = torch.stack([system(images, path).log_probs for path in random]).mean(dim=0)
            corner = data.layout.digit[indices].to(recipe.device)
            for name, path in {"own": system(images).places, "random": random[0]}.items():
                offset = (0.5 * (path[:, 1:] + 1) * width).flip(2) - corner[:, None]  # (x, y) to (row, column)
                hits[name] += int(((offset >= 0) & (offset < DIGIT)).all(dim=2).sum())
        for name, log_probs in said.items():
            wrong[name] = wrong.get(name, 0) + int((log_probs.argmax(dim=1) != labels).sum())
    shares: dict[str, Any] = {name: count / len(data) for name, count in wrong.items()}
    if isinstance(system, RAM) and data.kind != "mnist":  # whose digit fills the canvas
        shares["on_digit"] = {name: count / (len(data) * max(1, system.glimpses - 1)) for name, count in hits.items()}
    return {"canvases": len(data), "classes": 10, "chance": 0.1, "top1": 1 - shares["error"], **shares}


def describe(recipe: Any, data: Canvases) -> dict[str, Any]:
    """Gives what the card says of the canvases."""
    return {"image_size": data.side, "kind": data.kind, "pieces": data.pieces, "classes": list(data.classes)}


def draw_samples(recipe: Any, data: Canvases, path: Path) -> None:
    """Draws twelve test canvases with the path over each and the answer."""
    batch = read_batch(data, np.linspace(0, len(data) - 1, 12).round().astype(int), recipe)
    images, system = normalised(batch["images"]).to(recipe.device), recipe.kept.eval()
    reading = system(images) if isinstance(system, RAM) else None
    answers = (reading.log_probs if reading else system.predict(images, 1)).argmax(dim=1).tolist()
    places = reading.places if reading else torch.zeros(len(images), 0, 2)
    sizes: dict[str, Any] = {name: getattr(system, name, 1) for name in ("patch", "scales", "factor")}
    paths = [GlimpsePath(image.numpy(), way, **sizes) for image, way in zip(batch["images"][:, 0], places, strict=True)]
    draw_paths(paths, [f"{one} (is {truth})" for one, truth in zip(answers, batch["labels"], strict=True)]).save(path)
