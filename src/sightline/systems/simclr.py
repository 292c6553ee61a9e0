"""SimCLR: two views of a picture are to find each other among all views of a batch.

paper     A Simple Framework for Contrastive Learning of Visual Representations, Chen et al., ICML 2020
          (arXiv 2002.05709)
idea      Change a picture twice at random; features of the two should be near, and far from all other pictures'.
          A small projection takes the loss, so that the features below may keep what the loss would throw away.
          Many negatives, hence large batches.
flow      2 views (B, 3, S, S) -> backbone (2 B, D) -> projector (2 B, out) -> NT-Xent over 2 B views
differs   Batch norm in the projector's hidden layer, as in the authors' code; the optimizer is the recipe's, not LARS.
recipe    recipes/simclr.py
"""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn

from sightline.objectives.contrastive import nt_xent
from sightline.systems.backbones import Backbone, backbone_of, encode_views, projector, width_of


class SimCLR(nn.Module, PyTorchModelHubMixin):
    """Computes features of images with a backbone that learns by contrasting two views of each picture.

    `hidden` and `out` are the projector's widths, `temperature` that of NT-Xent.
    """

    def __init__(self, *, backbone: Backbone, hidden: int = 2048, out: int = 128, temperature: float = 0.5) -> None:
        super().__init__()
        self.backbone = backbone_of(backbone)
        self.projector = projector((width_of(self.backbone), hidden, out))
        self.temperature = temperature

    @property
    def learned(self) -> nn.Module:
        """The network that is used afterwards."""
        return self.get_submodule("backbone")

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Gives the backbone's features."""
        return self.backbone(images)

    def loss(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Computes NT-Xent of the two `batch["views"]`."""
        views = encode_views(self.backbone, batch["views"][:2])
        first, second = self.projector(views.flatten(0, 1)).chunk(2)
        return {"loss": nt_xent(first, second, self.temperature)}
