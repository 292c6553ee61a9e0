"""Multiplicative attention: the two scores written out, masks, what the lens sees."""

import pytest
import torch
from torch import nn

import sightline
from sightline.attention import masks
from sightline.attention.multiplicative import MultiplicativeAttention


@pytest.mark.parametrize("learned", [True, False])
def test_it_is_the_equation_of_the_paper(learned: bool) -> None:
    torch.manual_seed(0)
    layer = MultiplicativeAttention(query_dim=5, memory_dim=7 if learned else 5, learned=learned)
    queries, memory = torch.randn(2, 3, 5), torch.randn(2, 4, 7 if learned else 5)
    mixed = layer(queries, memory)
    for b in range(2):
        for q in range(3):
            keys = memory[b] @ layer.key.weight.T if learned else memory[b]
            wanted = (keys @ queries[b, q]).softmax(dim=0) @ memory[b]
            torch.testing.assert_close(mixed[b, q], wanted)


def test_values_may_be_any_function_of_the_memory() -> None:
    torch.manual_seed(0)
    layer, change = MultiplicativeAttention(query_dim=5, memory_dim=7), nn.Linear(7, 3, bias=False)
    queries, memory = torch.randn(2, 3, 5), torch.randn(2, 4, 7)
    mapped = layer(queries, change(memory), keys=layer.project(memory))
    torch.testing.assert_close(mapped, change(layer(queries, memory)))


def test_what_the_mask_hides_has_no_influence() -> None:
    torch.manual_seed(0)
    layer = MultiplicativeAttention(query_dim=5, memory_dim=7)
    queries, memory = torch.randn(2, 3, 5), torch.randn(2, 6, 7)
    mask = masks.padding(torch.tensor([4, 6]))
    changed = memory.clone()
    changed[0, 4:] = 100.0
    assert torch.equal(layer(queries, memory, mask=mask), layer(queries, changed, mask=mask))
    assert not torch.equal(layer(queries, memory), layer(queries, changed))


def test_the_lens_sees_its_weights() -> None:
    torch.manual_seed(0)
    layer = MultiplicativeAttention(query_dim=5, memory_dim=7)
    queries, memory = torch.randn(2, 3, 5), torch.randn(2, 4, 7)
    with sightline.record(layer) as seen:
        mixed = layer(queries, memory)
    torch.testing.assert_close(seen[0].weights[:, 0] @ memory, mixed)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="widths must be 1 or more"):
        MultiplicativeAttention(query_dim=0, memory_dim=3)
    with pytest.raises(ValueError, match="or a learned map between them"):
        MultiplicativeAttention(query_dim=4, memory_dim=3, learned=False)
