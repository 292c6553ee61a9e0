"""Barlow Twins: the channels of two views' embeddings should agree, each with itself and with no other.

paper     Barlow Twins: Self-Supervised Learning via Redundancy Reduction, Zbontar et al., ICML 2021 (arXiv 2103.03230)
idea      Take the correlation of each channel of one view with each of the other, over the batch.
          The diagonal should be one (views agree), the rest zero (channels do not repeat each other).
          No negatives, no second network, no stopped gradient.
flow      2 views (B, 3, S, S) -> backbone (2 B, D) -> projector (2 B, out) -> batch norm of each view
          -> correlations C (out, out) -> Σ (C_ii - 1)² + λ Σ_{i≠j} C_ij²
differs   The optimizer is the recipe's, not LARS, and the loss is not scaled by a constant.
recipe    recipes/barlow_twins.py
"""

from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn

from sightline.objectives.across import gathered
from sightline.systems.backbones import Backbone, backbone_of, encode_views, projector, width_of


def redundancy(
    first: Float[Tensor, "batch dim"], second: Float[Tensor, "batch dim"], weight: float = 0.0051
) -> Float[Tensor, ""]:
    """Computes Σ (C_ii - 1)² + weight Σ_{i≠j} C_ij² (equation 1), C the correlation of the batch's channels.

    Channels are brought to mean 0 and variance 1 (the biased one, plus 1e-5) over the batch, of all processes.
    """
    one, other = gathered(first.float()), gathered(second.float())
    one, other = ((z - z.mean(dim=0)) / torch.sqrt(z.var(dim=0, unbiased=False) + 1e-5) for z in (one, other))
    with torch.autocast(one.device.type, enabled=False):
        correlation = one.T @ other / len(one)
    itself = torch.eye(len(correlation), dtype=torch.bool, device=correlation.device)
    return (correlation[itself] - 1).square().sum() + weight * correlation[~itself].square().sum()


class BarlowTwins(nn.Module, PyTorchModelHubMixin):
    """Computes features of images with a backbone whose projected channels learn to agree and not to repeat.

    `hidden` and `out` are the widths of the three-layer projector, `weight` is λ.
    """

    def __init__(self, *, backbone: Backbone, hidden: int = 8192, out: int = 8192, weight: float = 0.0051) -> None:
        super().__init__()
        self.backbone = backbone_of(backbone)
        self.projector = projector((width_of(self.backbone), hidden, hidden, out), bias=False)
        self.weight = weight

    @property
    def learned(self) -> nn.Module:
        """The network that is used afterwards."""
        return self.get_submodule("backbone")

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Gives the backbone's features."""
        return self.backbone(images)

    def loss(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Computes the redundancy loss of the two `batch["views"]`."""
        views = encode_views(self.backbone, batch["views"][:2])
        first, second = self.projector(views.flatten(0, 1)).chunk(2)
        return {"loss": redundancy(first, second, self.weight)}
