"""Contrastive losses: the other view of a picture is to be found among those of other pictures."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

from sightline.objectives.across import gathered, processes


def nt_xent(
    first: Float[Tensor, "batch dim"], second: Float[Tensor, "batch dim"], temperature: float = 0.5
) -> Float[Tensor, ""]:
    """Computes NT-Xent over 2 B views (SimCLR, Chen et al. 2020, equation 1), both directions, their mean.

    l(i, j) = -log exp(sim(i, j) / τ) / Σ_{k ≠ i} exp(sim(i, k) / τ), sim the cosine.  The negatives are all other
    views, those of other processes too.
    """
    own = torch.cat([F.normalize(first.float(), dim=1), F.normalize(second.float(), dim=1)])
    everyone = gathered(own)
    with torch.autocast(own.device.type, enabled=False):
        logits = own @ everyone.T / temperature  # (2 B, 2 B processes)
    count, start = len(first), (dist.get_rank() * len(own) if processes() > 1 else 0)
    rows = torch.arange(2 * count, device=own.device)
    itself = F.one_hot(rows + start, logits.shape[1]).bool()
    return F.cross_entropy(logits.masked_fill(itself, -torch.inf), (rows + count) % (2 * count) + start)


def info_nce(
    query: Float[Tensor, "batch dim"],
    key: Float[Tensor, "batch dim"],
    queue: Float[Tensor, "dim entries"],
    temperature: float = 0.2,
) -> Float[Tensor, ""]:
    """Computes InfoNCE of each query against its key and a queue of other keys (MoCo, He et al. 2020, equation 1).

    -log exp(q·k / τ) / (exp(q·k / τ) + Σ exp(q·queue / τ)), q and k of unit length here, the queue's columns already.
    No gradient reaches keys or queue.
    """
    query, key = F.normalize(query.float(), dim=1), F.normalize(key.detach().float(), dim=1)
    right = (query * key).sum(dim=1, keepdim=True)
    with torch.autocast(query.device.type, enabled=False):
        logits = torch.cat([right, query @ queue.detach()], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long, device=query.device))
