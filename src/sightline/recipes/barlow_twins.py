"""Trains Barlow Twins: the channels of two views agree, each with itself and with no other.

data      any collection of `sightline.data.labelled`; labels only measure
system    systems/barlow_twins.py around a backbone of recipes/self_supervised.py
objective Σ (C_ii - 1)² + λ Σ_{i≠j} C_ij² of the correlations C over the batch
schedule  AdamW, linear warm-up, cosine to zero (the paper: LARS)
kept      the backbone, without the projector
control   the same network at random (recipes/supervised.py with rate=0), and trained with labels
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from sightline.recipes import self_supervised
from sightline.recipes.views import View
from sightline.systems.barlow_twins import BarlowTwins

FRAME = self_supervised  # pictures, backbone and figures are those of all methods


@dataclass(frozen=True)
class Settings(self_supervised.Common):
    """What can be set beside the backbone's own arguments; the projector is that of small data (the paper: 8,192)."""

    least: float = 0.08  # share of a picture that a view shows at least
    blur: float = 1.0  # the paper's chances of blur, times this: 0 for pictures of 32 pixels
    hidden: int = 1024
    embedding: int = 1024
    weight: float = 0.0051


TINY = {**self_supervised.TINY, "hidden": 128, "embedding": 16, "blur": 0.0, "least": 0.2}


class Recipe(self_supervised.SelfSupervised):
    """Trains a backbone so that the channels of two views agree and do not repeat each other."""

    settings: Settings

    def __init__(self, system: nn.Module, settings: Settings, data: Any) -> None:
        side: int = settings.side or system.image_size[0]  # type: ignore[index,assignment]
        scale = (settings.least, 1.0)
        views = [
            View(side=side, scale=scale, blur=settings.blur),
            View(side=side, scale=scale, blur=0.1 * settings.blur, solarise=0.2),
        ]
        method = BarlowTwins(backbone=system, hidden=settings.hidden, out=settings.embedding, weight=settings.weight)
        super().__init__(system, settings, data, method=method, views=views)
