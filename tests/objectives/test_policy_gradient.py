"""REINFORCE estimates the gradient of the expected reward, with a baseline that changes its noise and not its mean."""

import pytest
import torch

from sightline.objectives.policy_gradient import normal_log_density, reinforce


def test_density_equals_torch_and_draws_get_no_gradient() -> None:
    draws, mean = torch.randn(5, 3, 2, requires_grad=True), torch.randn(5, 3, 2, requires_grad=True)
    found = normal_log_density(draws, mean, 0.17)
    wanted = torch.distributions.Normal(mean, 0.17).log_prob(draws).sum(dim=-1)
    torch.testing.assert_close(found, wanted)
    found.sum().backward()
    assert draws.grad is None
    assert mean.grad is not None


def test_the_value_is_the_sum_of_its_terms() -> None:
    log_probs, rewards, baselines = torch.randn(4, 3), torch.rand(4, 3), torch.rand(4, 3)
    wanted = 0.0
    for b in range(4):
        for t in range(3):
            wanted -= float(log_probs[b, t] * (rewards[b, t] - baselines[b, t])) / 4
    assert reinforce(log_probs, rewards, baselines).item() == pytest.approx(wanted, abs=1e-6)


def test_neither_rewards_nor_baselines_get_a_gradient() -> None:
    log_probs, rewards, baselines = (torch.rand(4, 3, requires_grad=True) for _ in range(3))
    reinforce(log_probs, rewards, baselines).backward()
    assert rewards.grad is None
    assert baselines.grad is None
    assert log_probs.grad is not None


@pytest.mark.parametrize("level", [0.0, 2.0])
def test_the_gradient_is_that_of_the_expected_reward(level: float) -> None:
    torch.manual_seed(0)
    mean = torch.tensor([[0.3, -0.2]], requires_grad=True)
    target, std, count = torch.tensor([0.5, 0.5]), 0.4, 400_000
    draws = (mean + std * torch.randn(count, 2)).detach()
    rewards = -(draws - target).square().sum(dim=1, keepdim=True)
    log_probs = normal_log_density(draws, mean.expand(count, 2), std)[:, None]
    reinforce(log_probs, rewards, torch.full((count, 1), level)).backward()
    assert mean.grad is not None
    # E[-|draw - target|²] has the gradient -2 (mean - target); a loss goes the other way
    torch.testing.assert_close(mean.grad[0], 2 * (mean[0].detach() - target), atol=0.03, rtol=0)
