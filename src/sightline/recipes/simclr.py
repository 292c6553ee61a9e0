"""Trains SimCLR: two views of a picture find each other among all views of the batch.

data      any collection of `sightline.data.labelled`; labels only measure
system    systems/simclr.py around a backbone of recipes/self_supervised.py
objective NT-Xent over 2 x batch views
schedule  AdamW, linear warm-up, cosine to zero (the paper: LARS)
kept      the backbone, without the projector
control   the same network at random (recipes/supervised.py with rate=0), and trained with labels
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from sightline.recipes import self_supervised
from sightline.recipes.views import View
from sightline.systems.simclr import SimCLR

FRAME = self_supervised  # pictures, backbone and figures are those of all methods


@dataclass(frozen=True)
class Settings(self_supervised.Common):
    """What can be set beside the backbone's own arguments."""

    least: float = 0.2  # share of a picture that a view shows at least
    blur: float = 1.0  # the paper's chance of blur, times this: 0 for pictures of 32 pixels
    temperature: float = 0.5
    hidden: int = 512
    embedding: int = 128


TINY = {**self_supervised.TINY, "hidden": 128, "embedding": 32, "blur": 0.0}


class Recipe(self_supervised.SelfSupervised):
    """Trains a backbone by contrasting two views of each picture."""

    settings: Settings

    def __init__(self, system: nn.Module, settings: Settings, data: Any) -> None:
        side: int = settings.side or system.image_size[0]  # type: ignore[index,assignment]
        jitter = (0.4, 0.4, 0.4, 0.1)  # the paper's for CIFAR-10: half the strength
        view = View(side=side, scale=(settings.least, 1.0), jitter=jitter, blur=0.5 * settings.blur, count=2)
        sizes = {"hidden": settings.hidden, "out": settings.embedding}
        method = SimCLR(backbone=system, temperature=settings.temperature, **sizes)
        super().__init__(system, settings, data, method=method, views=[view])
