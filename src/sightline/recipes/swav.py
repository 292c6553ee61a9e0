"""Trains SwAV: each view predicts to which prototype the others were assigned, all prototypes being used alike.

data      any collection of `sightline.data.labelled`; labels only measure
system    systems/swav.py around a backbone of recipes/self_supervised.py
objective cross-entropy of Sinkhorn-Knopp's codes of a large view and the scores of every other one
schedule  AdamW, linear warm-up, cosine to zero (the paper: LARS); prototypes of length 1, which stay at first
kept      the backbone, without projector and prototypes
control   recipes/deepcluster.py, whose assignments are made for all pictures at once
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from sightline.recipes import self_supervised
from sightline.recipes.views import multi_crop
from sightline.systems.swav import SwAV

FRAME = self_supervised  # pictures, backbone and figures are those of all methods


@dataclass(frozen=True)
class Settings(self_supervised.Common):
    """What can be set beside the backbone's own arguments; prototypes are those of small data (the paper: 3,000)."""

    crops: int = 6  # small views
    smallest: float = 0.14  # share of a picture that divides small views from large ones
    least: float = 0.05  # share of a picture that the smallest view shows
    blur: float = 1.0  # the paper's chance of blur, times this: 0 for pictures of 32 pixels
    prototypes: int = 512
    hidden: int = 512
    embedding: int = 128
    temperature: float = 0.1
    frozen: float = 0.05  # share of the steps over which the prototypes stay (the paper: the first epoch)


TINY = {**self_supervised.TINY, "prototypes": 30, "hidden": 128, "embedding": 32, "crops": 4}
TINY |= {"blur": 0.0, "smallest": 0.25}


class Recipe(self_supervised.SelfSupervised):
    """Trains a backbone by swapped assignments."""

    settings: Settings

    def __init__(self, system: nn.Module, settings: Settings, data: Any) -> None:
        method = SwAV(
            backbone=system,
            prototypes=settings.prototypes,
            hidden=settings.hidden,
            out=settings.embedding,
            temperature=settings.temperature,
        )
        super().__init__(system, settings, data, method=method, views=multi_crop(settings, system))

    def moved(self, step: int) -> None:
        self.method.follow()  # type: ignore[operator]

    def configure_gradient_clipping(self, *given: Any, **named: Any) -> None:
        """Clips as usual, and leaves the prototypes be at first."""
        super().configure_gradient_clipping(*given, **named)
        if self.global_step < self.settings.frozen * self.settings.steps:
            self.method.prototypes.weight.grad = None  # type: ignore[union-attr]
