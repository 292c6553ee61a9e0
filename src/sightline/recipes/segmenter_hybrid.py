"""Trains the hybrid Segmenter: ImageNet's convolutions below, a Transformer and its class tokens above.

data      any collection of `sightline.data.segmented`
system    systems/segmenter_hybrid.py; its convolutions start from the bundled `efficientnet_lite0`
objective cross-entropy of labelled pixels
augment   scale 0.5 to 2, crop, mirror, colours
schedule  AdamW with the paper's polynomial; the convolutions learn at `slower` of the rate (0: they stay as they are)
kept      the moving average of the weights
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from sightline.checkpoints import bundled
from sightline.data.pixel_labels import PixelLabels
from sightline.recipes import segmenter
from sightline.recipes.segmentations import sizes_for
from sightline.systems.segmenter_hybrid import SegmenterHybrid

FRAME = segmenter


@dataclass(frozen=True)
class Settings(segmenter.Settings):
    """What can be set as key=value beside the system's own arguments."""

    steps: int = 3000
    batch: int = 16
    rate: float = 1e-3
    short: int = 384  # CamVid's frames a third larger than they are: thin things get more cells
    slower: float = 0.3  # the convolutions' share of the rate
    pretrained: bool = True


TINY = {"steps": 40, "batch": 4, "save_every": 20, "average": 0.9, "short": 96}
TINY_SYSTEM = {"image_size": (64, 64), "dim": 48, "depth": 1, "heads": 3, "decoder_depth": 1}


def build(data: PixelLabels | None, **sizes: Any) -> SegmenterHybrid:
    """Builds the system with as many classes as the data has."""
    return SegmenterHybrid(**sizes_for(data, sizes))


class Recipe(segmenter.Recipe):
    """Trains the network; its convolutions come from the package, unless an earlier run's weights follow."""

    scaling = (127 / 255, 128 / 255)  # as the bundled convolutions expect

    def __init__(self, system: nn.Module, settings: Settings, data: PixelLabels | None) -> None:
        features: Any = system.features
        if data is not None and settings.pretrained and not settings.init:
            network: Any = bundled("efficientnet_lite0")
            features.stem.load_state_dict(network.stem.state_dict())
            features.blocks.load_state_dict(network.blocks[: len(features.blocks)].state_dict())
        if settings.slower == 0:
            features.stem.requires_grad_(False)
            features.blocks.requires_grad_(False)
        super().__init__(system, settings, data)

    def groups(self) -> list[dict[str, Any]]:
        """Gives the groups of the parent, the convolutions apart, at their own rate and without decay."""
        settings: Any = self.settings
        features: Any = self.system.features
        below = [p for part in (features.stem, features.blocks) for p in part.parameters() if p.requires_grad]
        known = {id(p) for p in below}
        above = [g | {"params": [p for p in g["params"] if id(p) not in known]} for g in super().groups()]
        slow = [{"params": below, "weight_decay": 0.0, "lr": settings.slower * settings.rate}] * bool(below)
        return above + slow
