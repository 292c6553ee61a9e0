"""BYOL: predict what a slow copy of oneself says of another view; no negatives.

paper     Bootstrap Your Own Latent, Grill et al., NeurIPS 2020 (arXiv 2006.07733)
idea      An online network predicts a target network's projection of another view of the picture.
          The target is the moving average of the online one, and gets no gradient.
          The predictor, which the target lacks, keeps all from becoming the same.
flow      views (2, B, 3, S, S) -> online backbone, projector, predictor (2, B, out)
          -> 2 - 2 cos(prediction of one view, target's projection of the other), both ways, summed
differs   The optimizer is the recipe's, not LARS.
recipe    recipes/byol.py
"""

from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.blocks.momentum import follow, teacher_of
from sightline.systems.backbones import Backbone, backbone_of, encode_views, projector, width_of


def regression(predicted: Float[Tensor, "batch dim"], target: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """Computes the mean of |p / |p| - t / |t||² = 2 - 2 cos(p, t) (equation 2); no gradient reaches the target."""
    return (2 - 2 * F.cosine_similarity(predicted.float(), target.detach().float(), dim=1)).mean()


class BYOL(nn.Module, PyTorchModelHubMixin):
    """Computes features of images with the online backbone, which learns to predict its own moving average.

    `hidden` and `out` are the widths of projector and predictor.
    """

    def __init__(self, *, backbone: Backbone, hidden: int = 4096, out: int = 256) -> None:
        super().__init__()
        network = backbone_of(backbone)
        top = projector((width_of(network), hidden, out))
        self.online = nn.ModuleDict({"backbone": network, "projector": top})
        self.target = teacher_of(self.online)
        self.predictor = projector((out, hidden, out))

    @property
    def learned(self) -> nn.Module:
        """The network that is used afterwards: the online one."""
        return self.online.get_submodule("backbone")

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Gives the features of the online backbone."""
        return self.learned(images)

    def loss(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Computes the regression of both `batch["views"]`, each predicting the other's target."""
        views = batch["views"][:2]
        said = encode_views(self.online["backbone"], views).flatten(0, 1)
        first, second = self.predictor(self.online["projector"](said)).chunk(2)
        with torch.no_grad():
            seen = encode_views(self.target["backbone"], views).flatten(0, 1)
            one, other = self.target["projector"](seen).chunk(2)
        return {"loss": regression(first, other) + regression(second, one)}

    def follow(self, momentum: float) -> None:
        """Moves the target towards the online network: momentum of it stays."""
        follow(self.target, self.online, momentum)
