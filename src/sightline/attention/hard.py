"""Hard attention: one place is looked at, and which one is drawn by lot.

Xu et al. 2015 (arXiv 1502.03044), section 4.1: s ~ Multinoulli(weights), context = the memory at s.  No gradient goes
through the draw; the weights learn by REINFORCE from how well the rest went (equation 11).
"""

import torch
from jaxtyping import Float
from torch import Tensor


def draw(weights: Float[Tensor, "*lead keys"]) -> Float[Tensor, "*lead keys"]:
    """Draws one key of each row by its weight: one-hot rows, without gradient."""
    drawn = torch.multinomial(weights.detach().flatten(0, -2), 1).view(*weights.shape[:-1], 1)
    return torch.zeros_like(weights).scatter(-1, drawn, 1.0)


def likeliest(weights: Float[Tensor, "*lead keys"]) -> Float[Tensor, "*lead keys"]:
    """Takes the heaviest key of each row: one-hot rows, the use after training."""
    return torch.zeros_like(weights).scatter(-1, weights.argmax(dim=-1, keepdim=True), 1.0)


def log_chance(weights: Float[Tensor, "*lead keys"], chosen: Float[Tensor, "*lead keys"]) -> Float[Tensor, "*lead"]:
    """Computes the log-probability of the chosen keys; 0 for rows without a choice (all zero)."""
    chance = (weights * chosen).sum(dim=-1)
    return chance.masked_fill(chosen.sum(dim=-1) == 0, 1.0).clamp_min(1e-8).log()


def entropy(weights: Float[Tensor, "*lead keys"]) -> Float[Tensor, "*lead"]:
    """Computes -sum_i w_i log w_i of each row, in nats."""
    return -torch.special.xlogy(weights, weights.clamp_min(1e-30)).sum(dim=-1)
