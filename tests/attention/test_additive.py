"""Additive attention: the equation written out, masks, what the lens sees."""

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor

from sightline.attention import masks, observe
from sightline.attention.additive import AdditiveAttention


def attention(**more: object) -> AdditiveAttention:
    torch.manual_seed(0)
    return AdditiveAttention(query_dim=5, memory_dim=7, dim=6, **more)


def test_it_is_the_equation_of_the_paper() -> None:
    layer = attention()
    queries, memory = torch.randn(2, 3, 5), torch.randn(2, 4, 7)
    mixed, weights = layer(queries, memory)
    for b in range(2):
        for q in range(3):
            scores = [
                layer.score.weight[0]
                @ torch.tanh(layer.query.weight @ queries[b, q] + layer.key.weight @ memory[b, k] + layer.key.bias)
                for k in range(4)
            ]
            wanted = torch.stack(scores).softmax(dim=0)
            assert torch.allclose(weights[b, q], wanted, atol=1e-6)
            assert torch.allclose(mixed[b, q], wanted @ memory[b], atol=1e-6)


def test_the_activation_may_be_another() -> None:
    queries, memory = torch.randn(2, 3, 5), torch.randn(2, 4, 7)
    assert not torch.allclose(attention()(queries, memory)[1], attention(activation=torch.relu)(queries, memory)[1])


def test_keys_computed_once_change_nothing() -> None:
    layer = attention()
    queries, memory = torch.randn(2, 3, 5), torch.randn(2, 4, 7)
    keys = layer.project(memory)
    assert torch.equal(layer(queries, memory)[0], layer(queries, memory, keys=keys)[0])


def test_what_the_mask_hides_has_no_weight_and_no_influence() -> None:
    layer = attention()
    queries, memory = torch.randn(2, 3, 5), torch.randn(2, 6, 7)
    mask = masks.padding(torch.tensor([4, 6]))
    mixed, weights = layer(queries, memory, mask=mask)
    assert (weights[0, :, 4:] == 0).all()
    assert (weights[1] > 0).all()
    changed = memory.clone()
    changed[0, 4:] = 100.0
    assert torch.equal(layer(queries, changed, mask=mask)[0], mixed)
    alone, _ = layer(queries[:1], memory[:1, :4])
    assert torch.allclose(alone, mixed[:1], atol=1e-6)


def test_its_weights_are_reported() -> None:
    heard: list[tuple[Tensor, str]] = []
    layer = attention()
    with observe.listen(lambda weights, kind, name: heard.append((weights, kind))):
        _, weights = layer(torch.randn(2, 3, 5), torch.randn(2, 4, 7))
    assert len(heard) == 1
    assert heard[0][1] == "cross"
    assert heard[0][0].shape == (2, 1, 3, 4)
    assert torch.equal(heard[0][0][:, 0], weights)


def test_every_parameter_gets_a_gradient() -> None:
    layer = attention()
    layer(torch.randn(2, 3, 5), torch.randn(2, 4, 7))[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


def test_wrong_sizes_and_masks_are_refused() -> None:
    with pytest.raises(ValueError, match="widths must be 1 or more"):
        AdditiveAttention(query_dim=0, memory_dim=7, dim=6)
    layer, queries, keys = attention(), torch.randn(2, 3, 5), torch.randn(2, 4, 6)
    with pytest.raises((ValueError, TypeCheckError)):  # here the checks of shapes come first
        layer.weigh(queries, keys, torch.ones(2, 1, 1, 5, dtype=torch.bool))
    with pytest.raises((ValueError, TypeCheckError)):
        layer.weigh(queries, keys, torch.ones(2, 1, 1, 4))
