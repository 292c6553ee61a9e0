"""DeepCluster v2: cluster the features of all pictures, then predict the clusters as if they were labels.

paper     Deep Clustering for Unsupervised Learning of Visual Features, Caron et al., ECCV 2018 (arXiv 1807.05520);
          version 2 in appendix D of Unsupervised Learning of Visual Features by Contrasting Cluster Assignments,
          NeurIPS 2020 (arXiv 2006.09882)
idea      Keep a feature of every picture in a memory.  Cluster it from time to time by spherical k-means.
          The clusters are the classes of the next steps; their centres are the classifier itself.
          Several clusterings, of different numbers, make it steadier.
flow      views: 2 large (B, 3, S, S) and small (B, 3, s, s) -> backbone, projector -> unit z (views, B, out)
          -> z C_h^T / τ against the cluster of the picture, for each clustering h -> cross-entropy, mean
          -> z of the first large view joins the memory
differs   Clustered every so many steps, from the pictures that were seen so far, instead of once an epoch; a picture
          without a cluster teaches nothing.  One feature a picture is remembered, that of the first large view.
          The optimizer is the recipe's, not LARS.
recipe    recipes/deepcluster.py
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.objectives.across import gathered
from sightline.systems.backbones import Backbone, backbone_of, encode_views, projector, unit, width_of


@torch.no_grad()
def spherical_kmeans(
    features: Float[Tensor, "count dim"], clusters: int, *, rounds: int = 10, generator: torch.Generator | None = None
) -> tuple[Float[Tensor, "clusters dim"], Int[Tensor, " count"]]:
    """Clusters unit features by cosine: centres are means of their members, brought to length 1.

    Starts from features drawn at random; a cluster that lost all its members keeps its centre.  Gives centres and the
    cluster of each feature.  Raises ValueError for fewer features than clusters.
    """
    if len(features) < clusters:
        raise ValueError(f"{len(features)} features cannot make {clusters} clusters: remember more, or ask for fewer")
    drawn = torch.randperm(len(features), generator=generator)[:clusters]
    centres = features[drawn.to(features.device)]
    for _ in range(rounds):
        nearest = (features @ centres.T).argmax(dim=1)
        total = torch.zeros_like(centres).index_add_(0, nearest, features)
        members = torch.bincount(nearest, minlength=clusters)[:, None]
        centres = torch.where(members > 0, F.normalize(total, dim=1), centres)
    return centres, (features @ centres.T).argmax(dim=1)


class DeepCluster(nn.Module, PyTorchModelHubMixin):
    """Computes features of images with a backbone that learns to predict clusters of its own features.

    `pictures` is how many there are in all, `clusters` the number in each clustering, `hidden` and `out` the
    projector's widths.  Memory: pictures x out floats, saved with the module.
    """

    memory: Tensor
    assigned: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        pictures: int,
        clusters: Sequence[int] = (3000, 3000, 3000),
        hidden: int = 2048,
        out: int = 128,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        self.backbone = backbone_of(backbone)
        self.projector = projector((width_of(self.backbone), hidden, out))
        self.clusters, self.temperature = tuple(clusters), temperature
        self.register_buffer("memory", torch.zeros(pictures, out))
        self.register_buffer("assigned", torch.full((len(self.clusters), pictures), -1, dtype=torch.long))
        for number, count in enumerate(self.clusters):
            self.register_buffer(f"centres_{number}", torch.zeros(count, out))

    @property
    def learned(self) -> nn.Module:
        """The network that is used afterwards."""
        return self.get_submodule("backbone")

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Gives the backbone's features."""
        return self.backbone(images)

    def loss(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Computes the cross-entropy of `batch["views"]` with the clusters of pictures `batch["indices"]`.

        Zero, with a gradient of zero, where no picture has a cluster yet.  In training the first view's features are
        remembered.
        """
        views, indices = encode_views(self.backbone, batch["views"]), batch["indices"]
        z = unit(self.projector(views.flatten(0, 1))).unflatten(0, views.shape[:2])
        losses, assigned = [], self.assigned[:, indices]
        known = (assigned[0] >= 0).sum().clamp_min(1) * len(z)  # a tensor, so that nothing waits for the GPU
        for number in range(len(self.clusters)):
            with torch.autocast(z.device.type, enabled=False):
                scores = z @ self.get_buffer(f"centres_{number}").T.clone() / self.temperature
            target = assigned[number].expand(len(z), -1).flatten()
            losses.append(F.cross_entropy(scores.flatten(0, 1), target, ignore_index=-1, reduction="sum") / known)
        if self.training:
            self.memory[gathered(indices)] = gathered(z[0].detach()).to(self.memory.dtype)
        return {"loss": torch.stack(losses).mean()}

    @torch.no_grad()
    def cluster(self, generator: torch.Generator | None = None) -> int:
        """Clusters what is remembered, once for each clustering; gives how many pictures that were.

        Does nothing while fewer pictures are remembered than there are clusters.
        """
        seen = self.memory.abs().sum(dim=1).nonzero()[:, 0]
        if len(seen) < max(self.clusters):
            return 0
        for number, count in enumerate(self.clusters):
            centres, nearest = spherical_kmeans(self.memory[seen], count, generator=generator)
            self.get_buffer(f"centres_{number}").copy_(centres)
            self.assigned[number, seen] = nearest
        return len(seen)
