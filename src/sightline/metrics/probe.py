"""What a linear classifier makes of features that stay as they are (the linear evaluation of self-supervision)."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def linear_accuracy(
    features: Float[Tensor, "images dim"],
    truth: Int[Tensor, " images"],
    known: Float[Tensor, "known dim"],
    labels: Int[Tensor, " labels"],
    *,
    epochs: int = 100,
    batch: int = 256,
    rates: Sequence[float] = (0.01, 0.1, 1.0),
    held: float = 0.1,
    seed: int = 0,
) -> float:
    """Computes the accuracy on `features` of softmax(W x + b) trained on the `known` ones.

    SGD with momentum 0.9, no decay, the rate falling along a cosine to zero, as DINO's evaluation.  Each channel is
    brought to mean 0 and deviation 1 of the known ones (as an affine-free batch norm would), and the first rate is
    chosen on a share `held` of them, never on `features`.  Unlike the published one there is no augmentation: features
    are computed once.  Raises ValueError where there are fewer than ten known features.
    """
    if len(known) < 10 or len(known) != len(labels):
        raise ValueError(f"{len(known)} known features with {len(labels)} labels: expected as many, at least ten")
    mean, deviation = known.float().mean(dim=0), known.float().std(dim=0).clamp_min(1e-6)
    known, features = (known.float() - mean) / deviation, (features.float() - mean) / deviation
    classes = int(max(truth.max(), labels.max())) + 1
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(known), generator=draw)
    apart, rest = order.tensor_split([max(1, round(held * len(known)))])

    def trained(places: Tensor, rate: float, length: int) -> Tensor:
        return _fit(known[places], labels[places], classes, rate, length, batch, draw)

    best = max(rates, key=lambda rate: _right(trained(rest, rate, math.ceil(epochs / 5)), known[apart], labels[apart]))
    return _right(trained(order, best, epochs), features, truth)


def _right(weights: Tensor, features: Tensor, truth: Tensor) -> float:
    return ((features @ weights[:-1] + weights[-1]).argmax(dim=1) == truth).double().mean().item()


def _fit(
    known: Tensor, labels: Tensor, classes: int, rate: float, epochs: int, batch: int, draw: torch.Generator
) -> Tensor:
    """Trains (dim + 1, classes) weights, the last row the bias; the gradient of cross-entropy written out."""
    weights = torch.zeros(known.shape[1] + 1, classes, device=known.device)
    speed = torch.zeros_like(weights)
    steps = epochs * math.ceil(len(known) / batch)
    step = 0
    for _ in range(epochs):
        for places in torch.randperm(len(known), generator=draw).to(known.device).split(batch):
            x, y = known[places], labels[places]
            slope = ((x @ weights[:-1] + weights[-1]).softmax(dim=1) - F.one_hot(y, classes)) / len(places)
            speed.mul_(0.9).add_(torch.cat([x.T @ slope, slope.sum(dim=0, keepdim=True)]))
            weights.sub_(speed, alpha=rate * 0.5 * (1 + math.cos(math.pi * step / steps)))
            step += 1
    return weights
