"""MoCo v2: a view is to find the other one, encoded by a slow copy of the network, among a queue of earlier ones.

paper     Momentum Contrast for Unsupervised Visual Representation Learning, He et al., CVPR 2020 (arXiv 1911.05722);
          Improved Baselines with Momentum Contrastive Learning, Chen et al. 2020 (arXiv 2003.04297)
idea      Negatives need not come from the batch: a queue keeps the keys of many earlier batches.
          That the queue is of one kind, the keys' network moves slowly, as a moving average.
          Version 2 takes SimCLR's projection and blur.
flow      view 1 (B, 3, S, S) -> query network -> q (B, out);  view 2 -> key network -> k (B, out)
          -> InfoNCE of q against k and the queue (out, entries) -> k joins the queue, the oldest leave it
differs   No shuffling of batch statistics across GPUs: on several, batch norms are synchronised by the trainer.  So the
          batch norms of a residual network, on one GPU or many, see queries and keys of the same pictures, and their
          statistics can give the right key away (what the paper shuffles against).  A transformer has none.
          InfoMin (Tian et al., NeurIPS 2020) is this method with stronger views: recipes/infomin.py.
recipe    recipes/moco.py
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
from sightline.objectives.contrastive import info_nce
from sightline.systems.backbones import Backbone, backbone_of, unit, width_of


class MoCo(nn.Module, PyTorchModelHubMixin):
    """Computes features of images with the query network's backbone, which learns against a queue of keys.

    `out` is the width of keys, `entries` the length of the queue.  The queue is saved with the module.
    """

    queue: Tensor
    place: Tensor

    def __init__(self, *, backbone: Backbone, out: int = 128, entries: int = 65536, temperature: float = 0.2) -> None:
        super().__init__()
        network = backbone_of(backbone)
        dim = width_of(network)
        head = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, out))
        self.query = nn.ModuleDict({"backbone": network, "head": head})
        self.key = teacher_of(self.query)
        self.temperature = temperature
        self.register_buffer("queue", F.normalize(torch.randn(out, entries), dim=0))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    @property
    def learned(self) -> nn.Module:
        """The network that is used afterwards: the queries'."""
        return self.query.get_submodule("backbone")

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Gives the features of the queries' backbone."""
        return self.learned(images)

    def loss(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Computes InfoNCE of the first of `batch["views"]` against the second; in training the keys join the queue."""
        first, second = batch["views"][:2]
        query = self.query["head"](self.query["backbone"](first))
        with torch.no_grad():
            key = unit(self.key["head"](self.key["backbone"](second)))
        earlier = self.queue.clone()  # the queue moves before the gradient is taken
        loss = info_nce(query, key, earlier, self.temperature)
        if self.training:
            self.remember(key)
        return {"loss": loss}

    @torch.no_grad()
    def remember(self, keys: Float[Tensor, "batch out"]) -> None:
        """Writes the keys of all processes over the oldest ones of the queue."""
        fresh, entries = gathered(keys), self.queue.shape[1]
        places = (self.place + torch.arange(len(fresh), device=fresh.device)) % entries
        self.queue[:, places] = fresh.T.to(self.queue.dtype)
        self.place.copy_((self.place + len(fresh)) % entries)

    def follow(self, momentum: float) -> None:
        """Moves the keys' network towards the queries': momentum of it stays."""
        follow(self.key, self.query, momentum)
