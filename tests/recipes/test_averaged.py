import torch
from torch import nn

from sightline.recipes.averaged import averaged


def test_the_average_follows_the_formula_and_counters_are_copied() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average, naive = averaged(network, 0.8), {}
    for count in range(60):
        network(torch.randn(5, 3))  # moves the running statistics
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update_parameters(network)
        keep = min(0.8, (1 + count) / (10 + count)) if count else 0.0
        for name, value in network.state_dict().items():
            counter = not value.is_floating_point()
            naive[name] = value.clone() if counter or not count else keep * naive[name] + (1 - keep) * value
    assert int(naive["1.num_batches_tracked"]) == 60
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, naive[name], rtol=1e-5, atol=1e-6)
    # what checkpoints of earlier runs hold
    assert set(average.state_dict()) == {"n_averaged", *(f"module.{name}" for name in naive)}
    assert not any(parameter.requires_grad for parameter in average.parameters())
