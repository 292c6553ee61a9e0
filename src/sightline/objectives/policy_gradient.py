"""Learning choices from a reward: REINFORCE with a baseline, Williams 1992 (doi 10.1007/BF00992696)."""

import math

from jaxtyping import Float
from torch import Tensor


def normal_log_density(
    draws: Float[Tensor, "*lead axes"], mean: Float[Tensor, "*lead axes"], deviation: float
) -> Float[Tensor, "*lead"]:
    """Computes log N(draws; mean, deviation² I), summed over the last axis; the draws count as given (no gradient)."""
    distance = (draws.detach() - mean) / deviation
    axes = mean.shape[-1]
    return -0.5 * distance.square().sum(dim=-1) - axes * (math.log(deviation) + 0.5 * math.log(2 * math.pi))


def reinforce(
    log_probs: Float[Tensor, "batch choices"],
    rewards: Float[Tensor, "batch choices"],
    baselines: Float[Tensor, "batch choices"],
) -> Float[Tensor, ""]:
    """Computes -mean_b sum_t log p(choice_t) (R_t - b_t), whose gradient estimates that of the expected reward.

    Neither rewards nor baselines receive a gradient: a baseline that predicts the reward lowers the variance and
    does not move the mean.
    """
    return -(log_probs * (rewards - baselines).detach()).sum(dim=1).mean()
