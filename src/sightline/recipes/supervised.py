"""Trains the backbones of self-supervision with labels, and keeps them without the classifier: the control.

data      any collection of `sightline.data.labelled`; pictures without a label teach nothing
system    a backbone of recipes/self_supervised.py and a linear classifier
objective cross-entropy on one view of each picture: crop, mirror, jitter, grey
schedule  that of all methods: AdamW, linear warm-up, cosine to zero
kept      the backbone
control   rate=0 gives the network at random, whose batch norms have seen pictures
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from sightline.data.unlabelled import UNKNOWN
from sightline.recipes import self_supervised
from sightline.recipes.views import View
from sightline.systems.backbones import width_of

FRAME = self_supervised  # pictures, backbone and figures are those of all methods


@dataclass(frozen=True)
class Settings(self_supervised.Common):
    """What can be set beside the backbone's own arguments."""

    least: float = 0.4  # share of a picture that a view shows at least


TINY = {**self_supervised.TINY}


class Classifier(nn.Module):
    """A backbone and a linear map to class logits."""

    def __init__(self, *, backbone: nn.Module, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(width_of(backbone), classes)

    @property
    def learned(self) -> nn.Module:
        """The network that is used afterwards."""
        return self.backbone

    def loss(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Computes the cross-entropy of the first of `batch["views"]` with `batch["labels"]`; 0 where none is known."""
        logits, labels = self.head(self.backbone(batch["views"][0])), batch["labels"]
        total = F.cross_entropy(logits.float(), labels, ignore_index=UNKNOWN, reduction="sum")
        return {"loss": total / (labels != UNKNOWN).sum().clamp_min(1)}


class Recipe(self_supervised.SelfSupervised):
    """Trains a backbone with labels."""

    settings: Settings

    def __init__(self, system: nn.Module, settings: Settings, data: Any) -> None:
        side: int = settings.side or system.image_size[0]  # type: ignore[index,assignment]
        method = Classifier(backbone=system, classes=2 if data is None else len(data.classes))
        view = View(side=side, scale=(settings.least, 1.0), blur=0.0)
        super().__init__(system, settings, data, method=method, views=[view])

    def beside(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        return {"labels": batch["labels"]}
