"""OBoW: predict, from crops of a picture, the bag of visual words that a slow teacher finds in the whole of it.

paper     OBoW: Online Bag-of-Visual-Words Generation for Self-Supervised Learning, Gidaris et al., CVPR 2021
          (arXiv 2012.11552)
idea      A teacher, the student's moving average, describes each place of a picture by words of a vocabulary.
          The vocabulary is a queue of its own recent local features, so it follows what the teacher learns.
          The student predicts the picture's histogram of words from crops; the weights of that prediction are made
          from the words themselves by a small network.
flow      the picture (B, 3, S, S) -> teacher's feature map (B, D, h, w) -> soft words (B, K, h, w)
          -> largest over all places, sums to 1 = target (B, K)
          crops (B, 3, s, s) -> student f (B, D) -> κ f · w / |w|, w = G(words) -> softmax (B, K)
          -> cross-entropy of target and prediction, mean over crops
          -> each picture gives a word, the mean over 3 x 3 places around a random one; the oldest leave the queue
differs   Words of the last feature map alone (the paper adds those of the map before it), and of all its places: the
          published code first cuts a border of one off the map, and means over 3 x 3 only where they fit within, which
          leaves nothing of the maps of small pictures.  The vocabulary starts as the first batch's own words beside
          small noise, and the mean distance as theirs (published: positive noise, and 0.5).  All crops weigh alike
          (published: the means over large and over small ones are added); the paper's small ones are patches of 96
          pixels at jittered places of a picture of 256, here crops like everybody's.  Bias of G's first map, before
          a batch norm, which takes it away again.
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


def squared_distances(
    grid: Float[Tensor, "batch dim rows columns"], words: Float[Tensor, "entries dim"]
) -> Float[Tensor, "batch places entries"]:
    """Computes |feature - word|² of each place of a feature map and each word."""
    places = grid.flatten(2).transpose(1, 2).float()  # (batch, places, dim)
    with torch.autocast(grid.device.type, enabled=False):
        return torch.cdist(places.flatten(0, 1), words.float()).square().unflatten(0, places.shape[:2])


def bag_of_words(
    apart: Float[Tensor, "batch places entries"], sharpness: Tensor | float
) -> Float[Tensor, "batch entries"]:
    """Computes each picture's histogram of soft words from its places' squared distances to the words.

    A place's word is softmax(-sharpness · |feature - word|²) (equation 3); a picture's histogram takes the largest over
    its places and is brought to sum 1 (equation 4).
    """
    bag = F.softmax(-sharpness * apart, dim=2).amax(dim=1)
    return bag / bag.sum(dim=1, keepdim=True)


def local_words(grid: Float[Tensor, "batch dim rows columns"]) -> Float[Tensor, "batch dim"]:
    """Draws one place of each picture, and takes the mean over the 3 x 3 places around it, of those within the map."""
    local = F.avg_pool2d(grid, 3, stride=1, padding=1, count_include_pad=False).flatten(2)
    drawn = torch.randint(local.shape[2], (len(local),), device=local.device)
    return local[torch.arange(len(local), device=local.device), :, drawn]


class OBoW(nn.Module, PyTorchModelHubMixin):
    """Computes features of images with the student's backbone, which learns to predict bags of the teacher's words.

    `entries` is the size of the vocabulary, `sharpness` (δ⁻¹) is divided by the running mean of the squared distance to
    the nearest word, `scale` is κ.  The vocabulary is saved with the module.
    """

    words: Tensor
    place: Tensor
    distance: Tensor

    def __init__(self, *, backbone: Backbone, entries: int = 8192, sharpness: float = 15.0, scale: float = 8.0) -> None:
        super().__init__()
        self.student = backbone_of(backbone)
        self.teacher = teacher_of(self.student)
        dim = width_of(self.student)
        # G: what a word's feature becomes as the weight that recognises it
        self.weights = projector((dim, 2 * dim, dim))
        self.scale, self.sharpness = scale, sharpness
        self.register_buffer("words", F.normalize(torch.randn(entries, dim), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))
        self.register_buffer("distance", torch.zeros(()))
        self.begun = False  # whether this process knows that `distance` is set: to look at it waits for the GPU

    @property
    def learned(self) -> nn.Module:
        """The network that is used afterwards: the student's."""
        return self.get_submodule("student")

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Gives the student's features."""
        return self.learned(images)

    def loss(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Computes how well crops predict the bag of words of the first of `batch["views"]`, which the teacher sees.

        Target and prediction read the vocabulary as it is; in training it then takes in a word of each picture.
        """
        whole, crops = batch["views"][0], batch["views"][1:]
        with torch.no_grad():
            grid = grid_of(self.teacher, whole).float()
            if self.training and not self.begun:
                self.begin(grid)
            apart = squared_distances(grid, self.words)
            if self.training:
                self.distance.lerp_(gathered(apart.amin(dim=2).mean()[None]).mean(), 0.01)
            target = bag_of_words(apart, self.sharpness / self.distance.clamp_min(1e-6))
        weights = unit(self.weights(unit(self.words.clone())))
        said = encode_views(self.student, crops).float()  # (crops, batch, dim)
        with torch.autocast(said.device.type, enabled=False):
            logits = self.scale * said @ weights.T
        if self.training:
            self.remember(local_words(grid))
        return {"loss": -(target * F.log_softmax(logits, dim=2)).sum(dim=2).mean()}

    @torch.no_grad()
    def begin(self, grid: Float[Tensor, "batch dim rows columns"]) -> None:
        """Makes the first vocabulary of a batch's words, unless there is one: noise would be of another size."""
        self.begun = True
        if self.distance:
            return
        fresh = gathered(local_words(grid))
        self.words.copy_(fresh[torch.arange(len(self.words), device=fresh.device) % len(fresh)])
        self.words.add_(0.01 * fresh.std() * torch.randn_like(self.words))
        nearest = squared_distances(grid, self.words).amin(dim=2).mean()
        self.distance.copy_(gathered(nearest[None]).mean().clamp_min(1e-6))

    @torch.no_grad()
    def remember(self, words: Float[Tensor, "batch dim"]) -> None:
        """Writes the words of all processes over the oldest ones."""
        fresh = gathered(words)
        places = (self.place + torch.arange(len(fresh), device=fresh.device)) % len(self.words)
        self.words[places] = fresh.to(self.words.dtype)
        self.place.copy_((self.place + len(fresh)) % len(self.words))

    def follow(self, momentum: float) -> None:
        """Moves the teacher towards the student: momentum of it stays."""
        follow(self.teacher, self.student, momentum)
