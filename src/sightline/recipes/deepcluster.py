"""Trains DeepCluster v2: cluster the features of all pictures once an epoch, then predict the clusters.

data      any collection of `sightline.data.labelled`; labels only measure
system    systems/deepcluster.py around a backbone of recipes/self_supervised.py
objective cross-entropy of every view with its picture's cluster, the mean over several clusterings
schedule  AdamW, linear warm-up, cosine to zero (the paper: LARS); the memory is filled before the first step
kept      the backbone, without the projector
control   recipes/swav.py, whose assignments are made within a batch
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sightline.recipes import self_supervised
from sightline.recipes.banks import read_batch
from sightline.recipes.plan import TrainingError
from sightline.recipes.views import multi_crop
from sightline.systems.backbones import unit
from sightline.systems.deepcluster import DeepCluster

FRAME = self_supervised  # pictures, backbone and figures are those of all methods


@dataclass(frozen=True)
class Settings(self_supervised.Common):
    """What can be set beside the backbone's own arguments; clusters are those of small data (the paper: 3,000)."""

    crops: int = 6  # small views
    smallest: float = 0.14  # share of a picture that divides small views from large ones
    least: float = 0.05  # share of a picture that the smallest view shows
    blur: float = 1.0  # the paper's chance of blur, times this: 0 for pictures of 32 pixels
    clusters: int = 512  # of each clustering
    clusterings: int = 3
    hidden: int = 512
    embedding: int = 128
    temperature: float = 0.1


TINY = {**self_supervised.TINY, "clusters": 20, "hidden": 128, "embedding": 32, "crops": 4}
TINY |= {"blur": 0.0, "smallest": 0.25}


class Recipe(self_supervised.SelfSupervised):
    """Trains a backbone to predict clusters of its own features."""

    settings: Settings

    def __init__(self, system: nn.Module, settings: Settings, data: Any) -> None:
        self.pictures = 1 if data is None else len(data)
        method = DeepCluster(
            backbone=system,
            pictures=self.pictures,
            clusters=(settings.clusters,) * settings.clusterings,
            hidden=settings.hidden,
            out=settings.embedding,
            temperature=settings.temperature,
        )
        super().__init__(system, settings, data, method=method, views=multi_crop(settings, system))

    def beside(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        return {"indices": batch["indices"]}

    def on_train_start(self) -> None:
        """Remembers every picture as it is, and clusters them, before the first step.

        Raises ValueError for fewer pictures than clusters, of which none would ever be made.
        """
        count, clusters = self.pictures, self.settings.clusters
        if count < clusters:
            raise TrainingError(f"{count} pictures cannot make clusters={clusters}: give more, or ask for fewer")
        if self.global_step:
            return
        mixed = np.random.default_rng(self.settings.seed).permutation(self.pictures)  # batch norms need all kinds
        with torch.no_grad():
            for some in np.array_split(mixed, -(-self.pictures // 500)):
                images = self.normalised(read_batch(self.data, some, self)["images"].to(self.device))
                z = unit(self.method.projector(self.method.backbone(images)))  # type: ignore[operator]
                self.method.memory[torch.from_numpy(some).to(self.device)] = z  # type: ignore[operator]
        self.cluster(0)

    def moved(self, step: int) -> None:
        if (step + 1) % max(1, round(self.pictures / self.settings.batch)) == 0:
            self.cluster(step + 1)

    def cluster(self, step: int) -> None:
        """Clusters the memory, from centres drawn for this step."""
        seed = int(np.random.SeedSequence([self.settings.seed, step]).generate_state(1)[0])
        self.method.cluster(torch.Generator().manual_seed(seed))  # type: ignore[operator]
