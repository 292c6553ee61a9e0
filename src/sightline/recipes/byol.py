"""Trains BYOL: predict what a slow copy of oneself says of another view.

data      any collection of `sightline.data.labelled`; labels only measure
system    systems/byol.py around a backbone of recipes/self_supervised.py
objective 2 - 2 cos, both ways; no negatives
schedule  AdamW, linear warm-up, cosine to zero (the paper: LARS); the target's momentum grows to 1 along a cosine
kept      the online backbone, without projector and predictor
control   the same network at random (recipes/supervised.py with rate=0), and trained with labels
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from sightline.recipes import self_supervised
from sightline.recipes.schedules import cosine
from sightline.recipes.views import View
from sightline.systems.byol import BYOL

FRAME = self_supervised  # pictures, backbone and figures are those of all methods


@dataclass(frozen=True)
class Settings(self_supervised.Common):
    """What can be set beside the backbone's own arguments."""

    least: float = 0.08  # share of a picture that a view shows at least
    blur: float = 1.0  # the paper's chances of blur, times this: 0 for pictures of 32 pixels
    momentum: float = 0.99  # of the target at first; 1 at the end
    hidden: int = 1024
    embedding: int = 256


TINY = {**self_supervised.TINY, "hidden": 128, "embedding": 32, "blur": 0.0, "least": 0.2, "momentum": 0.9}


class Recipe(self_supervised.SelfSupervised):
    """Trains a backbone to predict its own moving average."""

    settings: Settings

    def __init__(self, system: nn.Module, settings: Settings, data: Any) -> None:
        side: int = settings.side or system.image_size[0]  # type: ignore[index,assignment]
        scale = (settings.least, 1.0)
        views = [
            View(side=side, scale=scale, blur=settings.blur),
            View(side=side, scale=scale, blur=0.1 * settings.blur, solarise=0.2),
        ]
        method = BYOL(backbone=system, hidden=settings.hidden, out=settings.embedding)
        super().__init__(system, settings, data, method=method, views=views)

    def moved(self, step: int) -> None:
        self.method.follow(cosine(self.settings.momentum, 1.0, step, self.settings.steps))  # type: ignore[operator]
