"""Layers against torch's own, feed-forward parts against their formulas, stochastic depth."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sightline.attention import MultiHeadAttention, masks
from sightline.blocks.transformer import (
    DropPath,
    FeedForward,
    LayerScale,
    PostNormLayer,
    PreNormLayer,
    SwiGLU,
    spread_drop_path,
)


def copy_attention(mine: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    weights, biases = theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3)
    for part, weight, bias in zip((mine.query, mine.key, mine.value), weights, biases, strict=True):
        part.weight.data, part.bias.data = weight.data.clone(), bias.data.clone()
    mine.output.load_state_dict(theirs.out_proj.state_dict())


def randomise(module: nn.Module) -> None:
    torch.manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_layer_equals_torch(norm_first: bool) -> None:
    theirs = nn.TransformerEncoderLayer(16, 4, 24, 0.0, F.gelu, 1e-6, batch_first=True, norm_first=norm_first)
    randomise(theirs)
    layer = PreNormLayer if norm_first else PostNormLayer
    mine = layer(dim=16, attention=MultiHeadAttention(dim=16, heads=4), feedforward=FeedForward(dim=16, hidden=24))
    copy_attention(mine.attention, theirs.self_attn)
    mine.attention_norm.load_state_dict(theirs.norm1.state_dict())
    mine.feedforward_norm.load_state_dict(theirs.norm2.state_dict())
    mine.feedforward.expand.load_state_dict(theirs.linear1.state_dict())
    mine.feedforward.contract.load_state_dict(theirs.linear2.state_dict())
    tokens = torch.randn(2, 7, 16)
    expected = theirs(tokens, src_mask=~masks.causal(7)[0, 0])
    torch.testing.assert_close(mine(tokens, causal=True), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("norm_first", [True, False])
def test_decoder_layer_equals_torch(norm_first: bool) -> None:
    theirs = nn.TransformerDecoderLayer(16, 4, 24, 0.0, F.relu, 1e-6, batch_first=True, norm_first=norm_first)
    randomise(theirs)
    layer = PreNormLayer if norm_first else PostNormLayer
    mine = layer(
        dim=16,
        attention=MultiHeadAttention(dim=16, heads=4),
        feedforward=FeedForward(dim=16, hidden=24, activation=F.relu),
        cross=MultiHeadAttention(dim=16, heads=4),
    )
    copy_attention(mine.attention, theirs.self_attn)
    copy_attention(mine.cross, theirs.multihead_attn)
    for norm, other in (("attention_norm", "norm1"), ("cross_norm", "norm2"), ("feedforward_norm", "norm3")):
        getattr(mine, norm).load_state_dict(getattr(theirs, other).state_dict())
    mine.feedforward.expand.load_state_dict(theirs.linear1.state_dict())
    mine.feedforward.contract.load_state_dict(theirs.linear2.state_dict())
    tokens, memory = torch.randn(2, 5, 16), torch.randn(2, 6, 16)
    lengths = masks.padding(torch.tensor([4, 6]))
    expected = theirs(tokens, memory, tgt_mask=~masks.causal(5)[0, 0], memory_key_padding_mask=~lengths[:, 0, 0])
    result = mine(tokens, memory, memory_mask=lengths, causal=True)
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)


def test_a_memory_needs_cross_attention_and_the_reverse() -> None:
    parts = {"dim": 8, "feedforward": FeedForward(dim=8, hidden=8)}
    tokens = torch.randn(1, 2, 8)
    with pytest.raises(ValueError, match="no cross attention"):
        PreNormLayer(attention=MultiHeadAttention(dim=8, heads=2), **parts)(tokens, tokens)
    crossing = PostNormLayer(
        attention=MultiHeadAttention(dim=8, heads=2), cross=MultiHeadAttention(dim=8, heads=2), **parts
    )
    with pytest.raises(ValueError, match="needs `memory`"):
        crossing(tokens)


def test_layer_scale_of_zero_leaves_tokens_alone() -> None:
    layer = PreNormLayer(
        dim=8,
        attention=MultiHeadAttention(dim=8, heads=2),
        feedforward=SwiGLU(dim=8, hidden=12),
        layer_scale=0.0,
    )
    tokens = torch.randn(2, 3, 8)
    assert torch.equal(layer(tokens), tokens)
    assert isinstance(layer.attention_scale, LayerScale)


def test_feed_forward_formulas() -> None:
    tokens = torch.randn(4, 8)
    mlp = FeedForward(dim=8, hidden=20)
    inner = tokens @ mlp.expand.weight.T + mlp.expand.bias
    exact = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    torch.testing.assert_close(mlp(tokens), exact @ mlp.contract.weight.T + mlp.contract.bias)
    glu = SwiGLU(dim=8, hidden=20)
    inner = tokens @ glu.expand.weight.T + glu.expand.bias
    gated = inner[:, :20] * inner[:, :20].sigmoid() * inner[:, 20:]
    torch.testing.assert_close(glu(tokens), gated @ glu.contract.weight.T + glu.contract.bias)


def test_drop_path_drops_whole_examples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25)
    result = drop(torch.ones(4000, 2, 3))
    kinds = result.flatten(1).unique(dim=0)
    torch.testing.assert_close(kinds, torch.tensor([[0.0] * 6, [4 / 3] * 6]))
    assert result.mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(drop.eval()(torch.ones(5, 2)), torch.ones(5, 2))
    with pytest.raises(ValueError, match="given 1"):
        DropPath(1.0)


def test_spread_drop_path_grows_linearly() -> None:
    layers = [
        PreNormLayer(dim=8, attention=MultiHeadAttention(dim=8, heads=2), feedforward=FeedForward(dim=8, hidden=8))
        for _ in range(5)
    ]
    spread_drop_path(layers, 0.2)
    assert [layer.drop_path.rate for layer in layers] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
