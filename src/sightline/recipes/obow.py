"""Trains OBoW: crops of a picture predict the bag of visual words that a slow teacher finds in the whole of it.

data      any collection of `sightline.data.labelled`; labels only measure
system    systems/obow.py around a backbone of recipes/self_supervised.py
objective cross-entropy of the teacher's histogram of words and the student's prediction, for each crop
schedule  AdamW, linear warm-up, cosine to zero (the paper: SGD); the teacher's momentum grows to 1 along a cosine
kept      the student's backbone
control   the same network at random (recipes/supervised.py with rate=0), and trained with labels
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from sightline.recipes import self_supervised
from sightline.recipes.schedules import cosine
from sightline.recipes.views import View
from sightline.systems.obow import OBoW

FRAME = self_supervised  # pictures, backbone and figures are those of all methods


@dataclass(frozen=True)
class Settings(self_supervised.Common):
    """What can be set beside the backbone's own arguments; words are those of small data (the paper: 8,192)."""

    crops: int = 5  # small views
    largest: float = 0.6  # share of a picture that a large view shows at most
    smallest: float = 0.25  # share of a picture that divides small views from large ones
    least: float = 0.05  # share of a picture that the smallest view shows
    blur: float = 1.0  # the paper's chance of blur, times this: 0 for pictures of 32 pixels
    momentum: float = 0.99  # of the teacher at first; 1 at the end
    entries: int = 4096
    sharpness: float = 10.0  # the paper's ResNet-50: 15
    scale: float = 8.0


TINY = {**self_supervised.TINY, "entries": 128, "crops": 4, "blur": 0.0, "momentum": 0.9}


class Recipe(self_supervised.SelfSupervised):
    """Trains a backbone to predict bags of its own moving average's words."""

    settings: Settings

    def __init__(self, system: nn.Module, settings: Settings, data: Any) -> None:
        side: int = settings.side or system.image_size[0]  # type: ignore[index,assignment]
        blur, between = 0.5 * settings.blur, settings.smallest
        views = [
            View(side=side, scale=(1.0, 1.0), colour=0.0, grey=0.0, blur=0.0),  # what the teacher sees
            View(side=side, scale=(between, settings.largest), blur=blur, count=2),
        ]
        if settings.crops:
            small = settings.small or side // 2
            views.append(View(side=small, scale=(settings.least, between), blur=blur, count=settings.crops))
        given = {"sharpness": settings.sharpness, "scale": settings.scale}
        method = OBoW(backbone=system, entries=settings.entries, **given)
        super().__init__(system, settings, data, method=method, views=views)

    def moved(self, step: int) -> None:
        self.method.follow(cosine(self.settings.momentum, 1.0, step, self.settings.steps))  # type: ignore[operator]
