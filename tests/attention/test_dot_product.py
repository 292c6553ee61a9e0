"""Multi-head attention against a plain reference, its masks, and its refusals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sightline.attention import MultiHeadAttention, masks


def plain(module: MultiHeadAttention, tokens: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
    """softmax(Q Kᵀ / sqrt(E)) V head by head, as the paper writes it."""
    width = tokens.shape[2] // module.heads
    query, key, value = module.query(tokens), module.key(memory), module.value(memory)
    outputs = []
    for head in range(module.heads):
        shared = head // (module.heads // module.key_heads)
        q = query[..., head * width : (head + 1) * width]
        k, v = (one[..., shared * width : (shared + 1) * width] for one in (key, value))
        scores = q @ k.transpose(1, 2) / width**0.5
        allowed = mask.expand(len(tokens), module.heads, *scores.shape[1:])[:, head]
        outputs.append(scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1) @ v)
    return module.output(torch.cat(outputs, dim=-1))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3), st.integers(1, 6), st.sampled_from([(4, 4), (4, 2), (4, 1), (3, 1)]), st.booleans())
def test_equals_the_plain_form(batch: int, length: int, heads: tuple[int, int], causal: bool) -> None:
    torch.manual_seed(0)
    module = MultiHeadAttention(dim=24, heads=heads[0], key_heads=heads[1])
    tokens = torch.randn(batch, length, 24)
    mask = masks.causal(length) if causal else torch.ones(1, 1, 1, 1, dtype=torch.bool)
    torch.testing.assert_close(module(tokens, causal=causal), plain(module, tokens, tokens, mask), atol=1e-5, rtol=0)


def test_cross_attention_with_lengths() -> None:
    torch.manual_seed(0)
    module = MultiHeadAttention(dim=16, heads=2, memory_dim=10, bias=False)
    tokens, memory = torch.randn(2, 3, 16), torch.randn(2, 5, 10)
    mask = masks.padding(torch.tensor([2, 5]))
    result = module(tokens, memory, mask=mask)
    torch.testing.assert_close(result, plain(module, tokens, memory, mask), atol=1e-5, rtol=0)
    changed = memory.clone()
    changed[0, 2:] = torch.randn(3, 10) * 100
    torch.testing.assert_close(module(tokens, changed, mask=mask), result, atol=0, rtol=0)


@pytest.mark.parametrize("padded", [False, True])
def test_the_future_does_not_change_the_past(padded: bool) -> None:
    torch.manual_seed(0)
    module = MultiHeadAttention(dim=16, heads=4)
    tokens = torch.randn(2, 6, 16)
    mask = masks.padding(torch.tensor([6, 5])) if padded else None
    before = module(tokens, mask=mask, causal=True)
    for cut in range(1, 6):
        changed = tokens.clone()
        changed[:, cut:] = torch.randn(2, 6 - cut, 16) * 10
        after = module(changed, mask=mask, causal=True)
        torch.testing.assert_close(after[:, :cut], before[:, :cut], atol=1e-6, rtol=0)
        assert (after[:, cut:] - before[:, cut:]).abs().max() > 1e-3


def test_dropout_only_while_training() -> None:
    torch.manual_seed(0)
    module = MultiHeadAttention(dim=8, heads=2, dropout=0.5)
    tokens = torch.randn(1, 9, 8)
    assert not torch.equal(module(tokens), module(tokens))
    module.eval()
    assert torch.equal(module(tokens), module(tokens))


def test_refusals_name_the_numbers() -> None:
    with pytest.raises(ValueError, match="dim=10, heads=3"):
        MultiHeadAttention(dim=10, heads=3)
    with pytest.raises(ValueError, match="heads=4, key_heads=3"):
        MultiHeadAttention(dim=8, heads=4, key_heads=3)
    module = MultiHeadAttention(dim=8, heads=2)
    tokens = torch.randn(1, 3, 8)
    with pytest.raises(ValueError, match="for a memory build a mask"):
        module(tokens, tokens, causal=True)
