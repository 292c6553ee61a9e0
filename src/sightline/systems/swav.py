"""SwAV: predict, from one view, to which prototype another view of the picture was assigned.

paper     Unsupervised Learning of Visual Features by Contrasting Cluster Assignments, Caron et al., NeurIPS 2020
          (arXiv 2006.09882)
idea      Assign the views of a batch to prototypes so that all prototypes are used alike (Sinkhorn-Knopp).
          Each view predicts the assignments ("codes") of the others; prototypes are learned by the same gradient.
          Many small crops predict, only large ones are assigned: multi-crop.
flow      views: 2 large (B, 3, S, S) and small (B, 3, s, s) -> backbone, projector -> unit z (views, B, out)
          -> scores z C^T (views, B, prototypes) -> codes of large views -> Σ H(code of one, softmax(another / τ))
differs   The queue of earlier features is the loss's argument `earlier`, which the recipe does not use: it needs
          many epochs before it helps.  The optimizer is the recipe's, not LARS.
recipe    recipes/swav.py
"""

from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.objectives.across import processes, summed
from sightline.systems.backbones import Backbone, backbone_of, encode_views, projector, unit, width_of

LARGE = 2


@torch.no_grad()
def sinkhorn(
    scores: Float[Tensor, "batch prototypes"], *, smoothness: float = 0.05, rounds: int = 3
) -> Float[Tensor, "batch prototypes"]:
    """Computes codes of cosines: exp(scores / ε), scaled in turn to equal sums of prototypes and of pictures.

    Rows sum to 1.  On several processes the pictures of all of them share the prototypes.
    """
    codes = torch.exp(scores.float() / smoothness)
    count = len(codes) * processes()
    codes = codes / summed(codes.sum())
    for _ in range(rounds):
        codes = codes / (summed(codes.sum(dim=0, keepdim=True)) * codes.shape[1])
        codes = codes / (codes.sum(dim=1, keepdim=True) * count)
    return codes * count


def swapped(
    large: Float[Tensor, "large batch prototypes"],
    small: Float[Tensor, "small batch prototypes"],
    *,
    earlier: Float[Tensor, "large entries prototypes"] | None = None,
    temperature: float = 0.1,
    smoothness: float = 0.05,
) -> Float[Tensor, ""]:
    """Computes the mean of H(code of a large view, softmax(scores of another view / τ)) over all such pairs.

    `earlier` are scores of pictures of former batches, which take part in the assignment.
    """
    views = torch.cat([large, small])
    said = F.log_softmax(views.float() / temperature, dim=2)
    total = said.new_zeros(())
    for number, scores in enumerate(large):
        known = scores if earlier is None else torch.cat([scores, earlier[number].to(scores)])
        codes = sinkhorn(known.detach(), smoothness=smoothness)[: len(scores)]
        others = torch.arange(len(views), device=views.device) != number
        total = total - (codes * said[others]).sum(dim=2).mean()
    return total / len(large)


class SwAV(nn.Module, PyTorchModelHubMixin):
    """Computes features of images with a backbone that learns by predicting the assignments of other views.

    `hidden` and `out` are the projector's widths.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        prototypes: int = 3000,
        hidden: int = 2048,
        out: int = 128,
        temperature: float = 0.1,
        smoothness: float = 0.05,
    ) -> None:
        super().__init__()
        self.backbone = backbone_of(backbone)
        self.projector = projector((width_of(self.backbone), hidden, out))
        self.prototypes = nn.Linear(out, prototypes, bias=False)
        self.temperature, self.smoothness = temperature, smoothness
        self.follow()

    @property
    def learned(self) -> nn.Module:
        """The network that is used afterwards."""
        return self.get_submodule("backbone")

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Gives the backbone's features."""
        return self.backbone(images)

    def loss(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Computes the loss of swapped assignments; the first two of `batch["views"]` are the large ones."""
        views = encode_views(self.backbone, batch["views"])
        z = unit(self.projector(views.flatten(0, 1)))
        with torch.autocast(z.device.type, enabled=False):  # codes take exp(scores / 0.05)
            scores = self.prototypes(z).unflatten(0, views.shape[:2])
        loss = swapped(scores[:LARGE], scores[LARGE:], temperature=self.temperature, smoothness=self.smoothness)
        return {"loss": loss}

    @torch.no_grad()
    def follow(self) -> None:
        """Brings the prototypes back to length 1.  Comes after each step."""
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
