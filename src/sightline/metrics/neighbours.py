"""What features are worth without any training: votes of nearest neighbours (Wu et al. 2018; Caron et al. 2021)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.07


def neighbour_votes(
    features: Float[Tensor, "images dim"],
    bank: Float[Tensor, "known dim"],
    labels: Int[Tensor, " labels"],
    *,
    classes: int,
    k: int = 20,
    temperature: float = TEMPERATURE,
) -> Float[Tensor, "images {classes}"]:
    """Computes, for each class, Σ exp(cosine / τ) over the k nearest of the bank's features that have this label.

    Rows are brought to length 1 here.  A bank smaller than k votes whole.  Raises ValueError for an empty bank, k below
    1, or as many labels as features are not there.
    """
    if not len(bank) or len(bank) != len(labels) or k < 1:
        raise ValueError(f"{len(bank)} features and {len(labels)} labels in the bank, {k=}: give as many, at least one")
    near, place = _nearest(features, bank, k)
    return _votes(near, labels[place], classes, temperature)


def _nearest(features: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Gives the k largest cosines of each row with the bank's, largest first, and where they are."""
    bank = F.normalize(bank.float(), dim=1)
    found = []
    for some in F.normalize(features.float(), dim=1).split(1000):  # (1000, known) similarities at once
        with torch.autocast(some.device.type, enabled=False):  # near ones differ by less than half precision tells
            found.append((some @ bank.T).topk(min(k, len(bank)), dim=1))
    return torch.cat([values for values, _ in found]), torch.cat([places for _, places in found])


def _votes(near: Tensor, labels: Tensor, classes: int, temperature: float) -> Tensor:
    return torch.zeros(len(near), classes, device=near.device).scatter_add_(1, labels, (near / temperature).exp())


def neighbour_accuracy(
    features: Float[Tensor, "images dim"],
    truth: Int[Tensor, " images"],
    bank: Float[Tensor, "known dim"],
    labels: Int[Tensor, " labels"],
    *,
    ks: Sequence[int] = (10, 20, 100, 200),
    temperature: float = TEMPERATURE,
) -> dict[int, float]:
    """Computes the share of images whose class has the most votes, for several k; the paper reports the best, 20."""
    classes = int(max(truth.max(), labels.max())) + 1
    near, place = _nearest(features, bank, max(ks))
    right = {}
    for k in ks:
        votes = _votes(near[:, :k], labels[place[:, :k]], classes, temperature)
        right[k] = (votes.argmax(dim=1) == truth).double().mean().item()
    return right
