"""Trains MoCo v2 with InfoMin's views: they share what they must, and as little else as can be.

paper     What Makes for Good Views for Contrastive Learning?, Tian et al., NeurIPS 2020 (arXiv 2005.10243)
data      any collection of `sightline.data.labelled`; labels only measure
system    systems/moco.py, as recipes/moco.py trains it
objective InfoNCE against a queue
views     crops, stronger jitter, blur, two random operations (RandAugment), grey
differs   RandAugment draws its two operations for a batch of views, not for each.  The paper's longer projection and
          its jigsaw branch are left out, so that the row differs from MoCo v2 in the views alone.
control   recipes/moco.py
"""

from dataclasses import dataclass
from typing import Any

from sightline.recipes import moco
from sightline.recipes.views import View

FRAME = moco


@dataclass(frozen=True)
class Settings(moco.Settings):
    """What can be set: MoCo's, and the strength of the jitter (hue: a quarter of it)."""

    strength: float = 0.8


TINY = {**moco.TINY, "strength": 0.2, "steps": 120}  # its pictures are told apart by hue


class Recipe(moco.Recipe):
    """Trains a backbone as MoCo does, on stronger views."""

    @staticmethod
    def views_of(settings: Any, side: int) -> list[View]:
        """Gives InfoMin Aug. (section 5 of the paper)."""
        strength, scale = settings.strength, (settings.least, 1.0)
        jitter = (strength, strength, strength, strength / 4)
        return [View(side=side, scale=scale, jitter=jitter, blur=0.5 * settings.blur, strong=True, count=2)]
