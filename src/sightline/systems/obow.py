"""OBoW: predict, from crops of a picture, the bag of visual words that a slow teacher finds in the whole of it.

paper     OBoW: Online Bag-of-Visual-Words Generation for Self-Supervised Learning, Gidaris et al., CVPR 2021
          (arXiv 2012.11552)
idea      A teacher, the student's moving average, describes each place of a picture by words of a vocabulary.
          The vocabulary is a queue of its own recent local features, so it follows what the teacher learns.
          The student predicts the picture's histogram of words from crops; the weights of that prediction are made
          from the words themselves by a small network.
flow      the picture (B, 3, S, S) -> teacher's feature map (B, D, h, w) -> soft words (B, K, h, w)
          -> largest over all places, sums to 1 = target (B, K)
          crops (B, 3, s, s) -> student (B, D) -> unit -> κ cosine with G(words) -> softmax (B, K)
          -> cross-entropy of target and prediction, mean over crops
differs   Words of the last feature map alone (the paper adds those of the map before it).  Each picture gives one word
          a batch, the mean over 3 x 3 places around a random one, as published.
recipe    recipes/obow.py
"""

from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.blocks.momentum import follow, teacher_of
from sightline.objectives.across import gathered
from sightline.systems.backbones import Backbone, backbone_of, encode_views, grid_of, projector, unit, width_of


def bag_of_words(
    grid: Float[Tensor, "batch dim rows columns"], words: Float[Tensor, "entries dim"], sharpness: Tensor | float
) -> tuple[Float[Tensor, "batch entries"], Float[Tensor, ""]]:
    """Computes each picture's histogram of soft words, and the mean squared distance of places to their nearest word.

    A place's word is softmax(-sharpness · |feature - word|²) (equation 3); a picture's histogram takes the largest over
    its places and is brought to sum 1 (equation 4).
    """
    places = grid.flatten(2).transpose(1, 2).float()  # (batch, places, dim)
    with torch.autocast(grid.device.type, enabled=False):
        apart = torch.cdist(places.flatten(0, 1), words.float()).square().unflatten(0, places.shape[:2])
    soft = F.softmax(-sharpness * apart, dim=2)
    bag = soft.amax(dim=1)
    return bag / bag.sum(dim=1, keepdim=True), apart.amin(dim=2).mean()


class OBoW(nn.Module, PyTorchModelHubMixin):
    """Computes features of images with the student's backbone, which learns to predict bags of the teacher's words.

    `entries` is the size of the vocabulary, `sharpness` divides by the mean distance to the nearest word.
    """

    words: Tensor
    place: Tensor
    distance: Tensor

    def __init__(self, *, backbone: Backbone, entries: int = 8192, sharpness: float = 10.0, scale: float = 5.0) -> None:
        super().__init__()
        self.student = backbone_of(backbone)
        self.teacher = teacher_of(self.student)
        dim = width_of(self.student)
        # G: what a word's feature becomes as the weight that recognises it
        self.weights = projector((dim, 2 * dim, dim))
        self.scale, self.sharpness = nn.Parameter(torch.tensor([scale])), sharpness
        self.register_buffer("words", F.normalize(torch.randn(entries, dim), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))
        self.register_buffer("distance", torch.zeros(()))

    @property
    def learned(self) -> nn.Module:
        """The network that is used afterwards: the student's."""
        return self.get_submodule("student")

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Gives the student's features."""
        return self.learned(images)

    def loss(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Computes how well crops predict the bag of words of the first of `batch["views"]`, which the teacher sees.

        In training the vocabulary takes in a local feature of each picture, before it is used.
        """
        whole, crops = batch["views"][0], batch["views"][1:]
        with torch.no_grad():
            grid = grid_of(self.teacher, whole).float()
            if self.training:
                self.remember(grid)
            target, distance = bag_of_words(grid, self.words, self.sharpness / self.distance.clamp_min(1e-6))
            if self.training:
                self.distance.lerp_(distance, 0.01)
        weights = unit(self.weights(unit(self.words.clone())))
        said = unit(encode_views(self.student, crops))  # (crops, batch, dim)
        with torch.autocast(said.device.type, enabled=False):
            logits = self.scale * (said @ weights.T)
        return {"loss": -(target * F.log_softmax(logits, dim=2)).sum(dim=2).mean()}

    @torch.no_grad()
    def remember(self, grid: Float[Tensor, "batch dim rows columns"]) -> None:
        """Writes one local feature of each picture, of all processes, over the oldest words."""
        local = F.avg_pool2d(grid, 3, stride=1, padding=1, count_include_pad=False).flatten(2)
        drawn = torch.randint(local.shape[2], (len(local),), device=local.device)
        fresh = gathered(local[torch.arange(len(local), device=local.device), :, drawn])
        if not self.distance:  # before the first batch: no words yet but noise of another size
            self.words.copy_(fresh[torch.arange(len(self.words), device=fresh.device) % len(fresh)])
            self.words.add_(0.01 * fresh.std() * torch.randn_like(self.words))
            apart = torch.cdist(grid.flatten(2).transpose(1, 2).flatten(0, 1), self.words).square()
            self.distance.copy_(apart.amin(dim=1).mean().clamp_min(1e-6))
        places = (self.place + torch.arange(len(fresh), device=fresh.device)) % len(self.words)
        self.words[places] = fresh.to(self.words.dtype)
        self.place.copy_((self.place + len(fresh)) % len(self.words))

    def follow(self, momentum: float) -> None:
        """Moves the teacher towards the student: momentum of it stays."""
        follow(self.teacher, self.student, momentum)
