"""Trains DINO: a student that predicts, from crops of a picture, what its own moving average says of other crops.

data      any collection of `sightline.data.labelled`; labels only measure
system    systems/dino.py around a small Vision Transformer: 64 pixels, patches of 8, 6 layers of 192
objective self-distillation over two large and several small views (recipes/views.py)
schedule  AdamW; rate, decay, the teacher's momentum and its temperature follow the step; each parameter's gradient is
          clipped by itself; the prototypes stay as they are over the first steps
kept      the teacher's backbone
control   the same network at random, and trained with labels (recipes/vit.py)
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sightline.recipes import self_supervised
from sightline.recipes.schedules import cosine, ramp
from sightline.recipes.views import View
from sightline.systems.dino import DINO

FRAME = self_supervised  # pictures, backbone and figures are those of all methods


@dataclass(frozen=True)
class Settings(self_supervised.Common):
    """What can be set beside the backbone's own arguments; the head's sizes are those of small data."""

    last_decay: float = 0.4
    momentum: float = 0.996  # of the teacher at first
    last_momentum: float = 1.0  # at the end; with both 0, the teacher equals the student at each step
    warm_temperature: float = 0.04
    temperature: float = 0.04  # of the teacher, reached after `warm` of the steps
    crops: int = 8  # small views
    smallest: float = 0.25  # share of a picture that divides small views from large ones
    least: float = 0.05  # share of a picture that the smallest view shows
    blur: float = 1.0  # the paper's chances of blur, times this: 0 for pictures of 32 pixels
    colours: float = 1.0  # the same of jitter, grey and solarising: less where colours are what tells things apart
    prototypes: int = 4096
    hidden: int = 512
    bottleneck: int = 128
    head_norm: bool = False
    frozen: float = 0.01  # share of the steps over which the prototypes stay (the paper: the first epoch)
    drop_path: float = 0.1
    centring: bool = True


TINY = {**self_supervised.TINY, "steps": 90, "prototypes": 256, "hidden": 128, "bottleneck": 64}
TINY |= {"crops": 4, "momentum": 0.9}


class Recipe(self_supervised.SelfSupervised):
    """Trains a backbone by self-distillation."""

    settings: Settings

    def __init__(self, system: nn.Module, settings: Settings, data: Any) -> None:
        side: int = settings.side or system.image_size[0]  # type: ignore[index,assignment]
        between, blur, colours = settings.smallest, settings.blur, settings.colours
        any_view = View(side=side, scale=(between, 1.0), blur=blur, colour=0.8 * colours, grey=0.2 * colours)
        views = [any_view, replace(any_view, blur=0.1 * blur, solarise=0.2 * colours)]
        if settings.crops:
            small, scale = settings.small or side // 2, (settings.least, between)
            views.append(replace(any_view, side=small, scale=scale, blur=0.5 * blur, count=settings.crops))
        method = DINO(
            backbone=system,
            prototypes=settings.prototypes,
            hidden=settings.hidden,
            bottleneck=settings.bottleneck,
            head_norm=settings.head_norm,
            drop_path=settings.drop_path,
            centre_momentum=0.9 if settings.centring else 1.0,
        )
        super().__init__(system, settings, data, method=method, views=views)

    def beside(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        given = self.settings
        warm = round(given.warm * given.steps)
        return {"temperature": ramp(given.warm_temperature, given.temperature, self.global_step, warm)}

    def moved(self, step: int) -> None:
        given = self.settings
        self.method.follow(cosine(given.momentum, given.last_momentum, step, given.steps))  # type: ignore[operator]

    def configure_gradient_clipping(self, *given: Any, **named: Any) -> None:
        """Clips each parameter's gradient to a norm of 3 by itself, and leaves the prototypes be at first."""
        gradients = [p.grad for p in self.method.parameters() if p.grad is not None]
        shares = [(3.0 / (norm + 1e-6)).clamp(max=1.0) for norm in torch._foreach_norm(gradients)]
        torch._foreach_mul_(gradients, shares)
        if self.global_step < self.settings.frozen * self.settings.steps:
            head: nn.Module = self.method.student.head.last  # type: ignore[union-attr,assignment]
            for parameter in head.parameters():
                parameter.grad = None
