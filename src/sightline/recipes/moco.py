"""Trains MoCo v2: a view finds the other one among a queue of keys, which a slow copy of the network made.

data      any collection of `sightline.data.labelled`; labels only measure
system    systems/moco.py around a backbone of recipes/self_supervised.py
objective InfoNCE against one right key and `entries` of earlier batches
schedule  AdamW, linear warm-up, cosine to zero (the paper: SGD); the keys' network follows with constant momentum
kept      the queries' backbone, without the head
control   recipes/infomin.py: stronger views; recipes/supervised.py, with rate=0 the network at random
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from sightline.recipes import self_supervised
from sightline.recipes.views import View
from sightline.systems.moco import MoCo

FRAME = self_supervised  # pictures, backbone and figures are those of all methods


@dataclass(frozen=True)
class Settings(self_supervised.Common):
    """What can be set beside the backbone's own arguments; the queue is that of small data (the paper: 65,536)."""

    least: float = 0.2  # share of a picture that a view shows at least
    blur: float = 1.0  # the paper's chance of blur, times this: 0 for pictures of 32 pixels
    momentum: float = 0.99  # the paper: 0.999, for two hundred times as many steps
    temperature: float = 0.2
    entries: int = 8192
    embedding: int = 128


TINY = {**self_supervised.TINY, "entries": 256, "embedding": 32, "blur": 0.0, "temperature": 0.5}


class Recipe(self_supervised.SelfSupervised):
    """Trains a backbone by contrasting a view with its key and a queue of others."""

    settings: Settings

    def __init__(self, system: nn.Module, settings: Settings, data: Any) -> None:
        side: int = settings.side or system.image_size[0]  # type: ignore[index,assignment]
        sizes = {"out": settings.embedding, "entries": settings.entries}
        method = MoCo(backbone=system, temperature=settings.temperature, **sizes)
        super().__init__(system, settings, data, method=method, views=self.views_of(settings, side))

    @staticmethod
    def views_of(settings: Settings, side: int) -> list[View]:
        """Gives the views of version 2: SimCLR's, with jitter of 0.4."""
        jitter = (0.4, 0.4, 0.4, 0.1)
        return [View(side=side, scale=(settings.least, 1.0), jitter=jitter, blur=0.5 * settings.blur, count=2)]

    def moved(self, step: int) -> None:
        self.method.follow(self.settings.momentum)  # type: ignore[operator]
