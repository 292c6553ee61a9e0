"""Rollout and gradient relevance against a few lines of eager matrices and autograd, in float64."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import sightline
from sightline.lens.combine import (
    mean_row,
    merge_tokens,
    relative,
    sink_keys,
    without_sinks,
    word_groups,
    word_groups_from_offsets,
)
from sightline.lens.gradients import grad_cross_rollout, grad_rollout, grad_weighted, raw_gradient
from sightline.lens.rollout import cross_rollout, drop_lowest, rollout

torch.set_num_threads(1)


@dataclass
class FakeSite:
    """The shape of a Site that combining needs: rows by blocks, and the output kept in the graph."""

    path: str
    index: int
    weights: Tensor
    kind: str = "self"
    output: Tensor | None = None
    value: Tensor | None = None
    query_index: Tensor | None = None
    queries: int = 0
    windows: object = None
    step: int = 3
    largest: int = 0

    def __post_init__(self) -> None:
        self.name, self.layer = self.path, self.index
        self.batch, self.heads, self.rows, self.keys = self.weights.shape
        self.queries = self.queries or self.rows
        if self.query_index is None:
            self.query_index = torch.arange(self.rows)

    def blocks(self, size: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(0, self.rows, min(size, self.step)):
            numbers = torch.arange(first, min(first + min(size, self.step), self.rows))
            self.largest = max(self.largest, len(numbers))
            yield numbers, self.weights[:, :, numbers].detach()

    def gradient_blocks(self, score: Tensor, size: int = 256) -> Iterator[tuple[Tensor, Tensor]]:
        if self.output is None or self.value is None:
            raise ValueError("needs gradients=True")
        (slope,) = torch.autograd.grad(score, self.output, retain_graph=True)
        for numbers, _ in self.blocks(size):
            yield numbers, slope[:, :, numbers] @ self.value.transpose(-1, -2)


def random_sites(layers: int, batch: int, heads: int, tokens: int, seed: int = 0) -> list[FakeSite]:
    draw = torch.Generator().manual_seed(seed)
    maps = torch.randn(layers, batch, heads, tokens, tokens, generator=draw, dtype=torch.float64).mul(2).softmax(-1)
    return [FakeSite(f"encoder.layer.{layer}.attention", layer, maps[layer]) for layer in range(layers)]


class Attention(torch.nn.Module):
    """Explicit softmax attention that keeps its matrix, so that autograd gives dL/dA itself."""

    def __init__(self, path: str, dim: int, heads: int, kind: str = "self") -> None:
        super().__init__()
        self.path, self.heads, self.kind = path, heads, kind
        self.q, self.k, self.v, self.out = (torch.nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, source: Tensor, seen: list[FakeSite], dense: list[Tensor]) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q(x), self.k(source), self.v(source))
        )
        weights = (q @ k.transpose(-1, -2) * 1.5).softmax(-1)
        dense.append(weights)
        output = weights @ v
        seen.append(FakeSite(self.path, len(seen), weights.detach(), self.kind, output, v.detach()))
        return self.out(output.transpose(1, 2).flatten(-2))


def run_encoder(layers: int, batch: int, heads: int, tokens: int) -> tuple[list[FakeSite], list[Tensor], Tensor]:
    torch.manual_seed(layers * 100 + tokens)
    stack = [Attention(f"blocks.{layer}.attn", 8, heads).double() for layer in range(layers)]
    x = torch.randn(batch, tokens, 8, dtype=torch.float64)
    seen: list[FakeSite] = []
    dense: list[Tensor] = []
    for layer in stack:
        x = x + layer(x, x, seen, dense)
        x = x + x.tanh()  # something other than attention between the layers
    return seen, dense, x[:, 0].square().sum(-1)


def run_pair(layers: int = 3, batch: int = 2, source: int = 7, target: int = 5):
    torch.manual_seed(5)
    seen: list[FakeSite] = []
    dense: list[Tensor] = []
    s, t = torch.randn(batch, source, 8).double(), torch.randn(batch, target, 8).double()
    for layer in range(layers):
        s = s + Attention(f"encoder.{layer}.self", 8, 2).double()(s, s, seen, dense)
    for layer in range(layers):
        t = t + Attention(f"decoder.{layer}.self", 8, 2).double()(t, t, seen, dense)
        t = t + Attention(f"decoder.{layer}.cross", 8, 2, "cross").double()(t, s, seen, dense)
    groups = seen[:layers], seen[layers::2], seen[layers + 1 :: 2]
    return groups, (dense[:layers], dense[layers::2], dense[layers + 1 :: 2]), t[:, -1].sin().sum(-1)


def eager_rollout(maps: list[Tensor], residual: float = 0.5) -> Tensor:
    result = torch.eye(maps[0].shape[-1], dtype=torch.float64)
    for fused in maps:
        result = (residual * torch.eye(fused.shape[-1]).double() + (1 - residual) * fused) @ result
    return result


# ---------------------------------------------------------------------------------------------------- rollout


@pytest.mark.parametrize("residual", [0.0, 0.5, 0.9])
def test_rollout_equals_matrices(residual: float) -> None:
    sites = random_sites(layers=4, batch=3, heads=2, tokens=10)
    expected = eager_rollout([site.weights.mean(1) for site in sites], residual)
    assert torch.allclose(rollout(sites, residual=residual), expected, atol=1e-12, rtol=0)
    assert torch.allclose(rollout(sites, rows=0, residual=residual), expected[:, :1], atol=1e-12, rtol=0)
    assert torch.allclose(rollout(sites, rows=[-1, 2], residual=residual), expected[:, [-1, 2]], atol=1e-12, rtol=0)


@pytest.mark.parametrize("fusion", ["max", "min"])
def test_other_fusions_divide_by_the_row_sum(fusion: str) -> None:
    sites = random_sites(3, 2, 4, 6)
    fused = [getattr(site.weights, f"a{fusion}")(1) for site in sites]
    expected = eager_rollout([rows / rows.sum(-1, keepdim=True) for rows in fused])
    assert torch.allclose(rollout(sites, fusion=fusion), expected, atol=1e-12, rtol=0)


def test_discard_drops_the_lowest_of_each_row() -> None:
    sites = random_sites(3, 2, 2, 10)
    cut = []
    for site in sites:
        rows = site.weights.mean(1).clone()
        for row in rows.flatten(0, 1):  # a view: written in place
            row[row.argsort()[:7]] = 0
            row /= row.sum()
        cut.append(rows)
    assert torch.allclose(rollout(sites, discard=0.7), eager_rollout(cut), atol=1e-12, rtol=0)


def test_discard_counts_only_keys_a_row_can_see_and_keeps_one() -> None:
    row = torch.tensor([[0.0, 0.0, 0.1, 0.6, 0.3], [0.0, 1.0, 0.0, 0.0, 0.0]])
    assert torch.equal(drop_lowest(row, 0.5), torch.tensor([[0, 0, 0, 0.6, 0.3], [0, 1, 0, 0, 0]]))
    assert torch.equal(drop_lowest(row, 0.99), torch.tensor([[0, 0, 0, 0.6, 0], [0, 1, 0, 0, 0]]))


@settings(max_examples=40, deadline=None)
@given(
    layers=st.integers(1, 4),
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    tokens=st.integers(1, 9),
    fusion=st.sampled_from(["mean", "max", "min"]),
    discard=st.floats(0, 0.95),
    residual=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_rows_are_distributions(layers, batch, heads, tokens, fusion, discard, residual, seed) -> None:
    sites = random_sites(layers, batch, heads, tokens, seed)
    result = rollout(sites, fusion=fusion, discard=discard, residual=residual)
    assert result.shape == (batch, tokens, tokens)
    assert bool((result >= 0).all())
    assert torch.allclose(result.sum(-1), torch.ones(batch, tokens).double(), atol=1e-9)


def test_causal_rollout_never_looks_ahead() -> None:
    sites = random_sites(3, 1, 2, 6)
    for site in sites:
        site.weights = site.weights.tril() / site.weights.tril().sum(-1, keepdim=True)
    assert bool((rollout(sites, discard=0.4).triu(1) == 0).all())


def test_a_fully_masked_row_keeps_its_own_token() -> None:
    sites = random_sites(3, 2, 2, 5)
    for site in sites:
        site.weights[:, :, 3] = 0
        site.weights[:, :, :, 3] = 0
    result = rollout(sites)
    assert torch.equal(result[:, 3], torch.eye(5).double()[3].expand(2, 5))
    assert torch.allclose(result.sum(-1), torch.ones(2, 5).double())


def test_order_is_the_order_of_running_and_it_matters() -> None:
    sites = random_sites(3, 1, 1, 5)
    forward = eager_rollout([site.weights.mean(1) for site in sites])
    backward = eager_rollout([site.weights.mean(1) for site in sites[::-1]])
    assert not torch.allclose(forward, backward, atol=1e-3)
    assert torch.allclose(rollout(sites[::-1]), forward)


def test_start_leaves_out_the_first_layers() -> None:
    sites = random_sites(4, 2, 2, 5)
    assert torch.allclose(rollout(sites, start=2), eager_rollout([s.weights.mean(1) for s in sites[2:]]))
    with pytest.raises(ValueError, match="start=4"):
        rollout(sites, start=4)


def test_kept_rows_may_come_in_any_order() -> None:
    sites = random_sites(2, 1, 2, 6)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    shuffled = [replace(site, weights=site.weights[:, :, order], query_index=order) for site in sites]
    assert torch.allclose(rollout(shuffled), rollout(sites))


def test_never_more_than_a_block_is_read() -> None:
    sites = random_sites(2, 1, 2, 50)
    rollout(sites, rows=0)
    assert max(site.largest for site in sites) == 3


def test_refusals_name_the_site_and_the_remedy() -> None:
    sites = random_sites(2, 1, 2, 6)
    some = FakeSite("a.1.attn", 0, sites[0].weights[:, :, :1], queries=6)
    with pytest.raises(ValueError, match=r"a\.1\.attn kept 1 of 6 rows.*queries=None"):
        rollout([some])
    small = FakeSite("stages.1.blocks.2.attn", 5, random_sites(1, 1, 2, 4)[0].weights)
    with pytest.raises(
        ValueError, match=r'6 tokens.*stages\.1\.blocks\.2\.attn: 4 tok.*sites="stages\.1\.blocks\.\*\.attn"'
    ):
        rollout([*sites, small])
    with pytest.raises(ValueError, match=r"those of encoder\.layer\.9\.attention\."):
        rollout([*sites, replace(small, path="encoder.layer.9.attention")])
    cross = FakeSite("x.cross", 2, sites[0].weights, kind="cross")
    with pytest.raises(ValueError, match=r"x\.cross is cross attention.*cross_rollout"):
        rollout([*sites, cross])
    with pytest.raises(ValueError, match="No site"):
        rollout([])
    with pytest.raises(IndexError, match="6 tokens"):
        rollout(sites, rows=6)
    for bad in ({"residual": 1.2}, {"discard": 1.0}, {"fusion": "median"}):
        with pytest.raises((ValueError, TypeError)):  # beartype may refuse the word first
            rollout(sites, **bad)


# -------------------------------------------------------------------- encoder, decoder


@pytest.mark.parametrize("residual", [0.3, 0.5])
def test_cross_rollout_equals_block_matrix(residual: float) -> None:
    (encoder, decoder, cross), _, _ = run_pair()
    own = eager_rollout([site.weights.mean(1) for site in encoder], residual)
    tt, ts = torch.eye(5).double().expand(2, 5, 5), torch.zeros(2, 5, 7).double()
    for inner, outer in zip(decoder, cross, strict=True):
        mixed = residual * torch.eye(5).double() + (1 - residual) * inner.weights.mean(1)
        tt, ts = mixed @ tt, mixed @ ts
        tt, ts = residual * tt, residual * ts + (1 - residual) * outer.weights.mean(1) @ own
    found = cross_rollout(encoder, decoder, cross, residual=residual)
    assert torch.allclose(found.source, ts, atol=1e-12)
    assert torch.allclose(found.target, tt, atol=1e-12)
    one = cross_rollout(encoder, decoder, cross, residual=residual, rows=-1)
    assert torch.allclose(one.source, ts[:, -1:], atol=1e-12)
    assert torch.allclose(one.source.sum(-1) + one.target.sum(-1), torch.ones(2, 1).double())


def test_cross_rollout_without_encoder_or_self_attention() -> None:
    (encoder, _, cross), _, _ = run_pair(layers=1)
    bare = cross_rollout([], [], cross)
    assert torch.allclose(bare.source, 0.5 * cross[0].weights.mean(1))
    assert torch.allclose(bare.target, 0.5 * torch.eye(5).double().expand(2, 5, 5))
    with pytest.raises(ValueError, match="do not belong together"):
        cross_rollout(
            [replace(encoder[0], weights=encoder[0].weights[:, :, :6, :6], query_index=None, queries=6)],
            [],
            cross,
        )
    with pytest.raises(ValueError, match="No cross-attention"):
        cross_rollout(encoder, [], [])


# ------------------------------------------------------------------------------------------------- gradients


def positive(weights: Tensor, score: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(score.sum(), weights, retain_graph=True)
    return (slope * weights).clamp(min=0).mean(1).detach()


@pytest.mark.parametrize("batch", [1, 3])
def test_single_site_equals_autograd_on_the_matrix(batch: int) -> None:
    seen, dense, score = run_encoder(3, batch, 2, 6)
    for site, weights in zip(seen, dense, strict=True):
        (slope,) = torch.autograd.grad(score.sum(), weights, retain_graph=True)
        assert torch.allclose(raw_gradient(site, score), slope.mean(1), atol=1e-12, rtol=0)
        assert torch.allclose(grad_weighted(site, score), positive(weights, score), atol=1e-12, rtol=0)
    last = grad_weighted(seen[-1], score)
    assert bool((last[:, 0] > 0).any())
    assert bool((last[:, 1:] == 0).all())


@pytest.mark.parametrize("batch", [1, 3])
def test_grad_rollout_pairs_each_layer_with_its_own_gradient(batch: int) -> None:
    seen, dense, score = run_encoder(4, batch, 2, 6)
    expected = torch.eye(6).double().expand(batch, 6, 6)
    wrong = expected
    slopes = torch.autograd.grad(score.sum(), dense, retain_graph=True)
    for layer, weights in enumerate(dense):
        expected = expected + positive(weights, score) @ expected
        wrong = wrong + (slopes[-1 - layer] * weights).clamp(min=0).mean(1).detach() @ wrong  # the reported bug
    assert torch.allclose(grad_rollout(seen, score), expected, rtol=1e-12)
    assert torch.allclose(grad_rollout(seen[::-1], score, rows=0), expected[:, :1], rtol=1e-12)
    assert not torch.allclose(wrong[:, :1], expected[:, :1], atol=1e-6)
    without = grad_rollout(seen, score, rows=[0, 2], identity=False)
    assert torch.allclose(without, (expected - torch.eye(6).double())[:, [0, 2]], rtol=1e-12)


def test_one_image_does_not_see_another() -> None:
    seen, _, score = run_encoder(3, 3, 2, 6)
    alone = grad_rollout(seen, score[1], rows=0)
    assert torch.allclose(alone[1], grad_rollout(seen, score, rows=0)[1])
    assert torch.equal(alone[0], torch.eye(6).double()[:1])


def test_encoder_decoder_rules_five_to_ten() -> None:
    groups, dense, score = run_pair()
    relevance = [[positive(weights, score) for weights in group] for group in dense]
    ss, tt, ts = torch.eye(7).double(), torch.eye(5).double(), torch.zeros(2, 5, 7).double()
    for bar in relevance[0]:
        ss = ss + bar @ ss

    def hat(relevance: Tensor) -> Tensor:
        gained = relevance - torch.eye(relevance.shape[-1]).double()
        total = gained.sum(-1, keepdim=True)
        return torch.eye(relevance.shape[-1]).double() + torch.where(total > 1e-12, gained / total, 0.0)

    for inner, outer in zip(relevance[1], relevance[2], strict=True):
        ts = ts + inner @ ts
        tt = tt + inner @ tt
        ts = ts + hat(tt).mT @ outer @ hat(ss)
    found = grad_cross_rollout(*groups, score)
    assert torch.allclose(found.target, tt, atol=1e-10)
    assert torch.allclose(found.source, ts, atol=1e-10)
    row = grad_cross_rollout(*groups, score, rows=-1)
    assert torch.allclose(row.source, ts[:, -1:], atol=1e-10)
    assert torch.allclose(row.target, tt[:, -1:], atol=1e-10)


def test_gradient_refusals() -> None:
    seen, _, score = run_encoder(2, 1, 2, 5)
    with pytest.raises(ValueError, match="gradients=True"):
        grad_rollout(random_sites(2, 1, 2, 5), score)
    with pytest.raises(ValueError, match="one number per image"):
        grad_weighted(seen[0], score[:, None].expand(1, 4))
    with pytest.raises(ValueError, match="detach"):
        grad_weighted(seen[0], score.detach())


# ------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["[CLS]", "a", "zebra", "##s", "graz", "##ing", ".", "[SEP]"], "[CLS] a zebras grazing . [SEP]"),
        (["A", "Ġz", "ebra", ",", "Ġdon", "'t", "Ġrun", "ĊĊ", "Now"], "A zebra , don't run _ Now"),
        (["<s>", "▁The", "▁z", "ebra", ".", "▁", ",", "▁x", "</s>"], "<s> The zebra . , x </s>"),
        (["<|startoftext|>", "a", "ze", "bra</w>", "runs</w>", "!</w>", "<|endoftext|>"],
         "<|startoftext|> azebra runs ! <|endoftext|>"),
        (["Ġcaf", "Ã", "©", "Ġà¸", "Ń"], "café อ"),
        (["▁caf", "<0xC3>", "<0xA9>", "▁noir"], "café noir"),
    ],
)  # fmt: skip
def test_words_of_each_tokenizer(pieces: list[str], expected: str) -> None:
    words = word_groups(pieces)
    assert " ".join(word.text or "_" for word in words) == expected
    assert [i for word in words for i in word.tokens] == list(range(len(pieces)))


def test_words_from_offsets() -> None:
    text = "The zebra's café."
    offsets = [(0, 0), (0, 3), (3, 6), (6, 9), (9, 11), (11, 15), (15, 16), (16, 17), (0, 0)]
    words = word_groups_from_offsets(offsets, text)
    assert [tuple(word) for word in words] == [
        ("The", (1,)), ("zebra's", (2, 3, 4)), ("café", (5, 6)), (".", (7,)),
    ]  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["▁a", "b", "▁", ",", "▁the", "<s>", "<0xC3>", "-"]), min_size=1, max_size=12))
def test_every_token_is_in_one_word(pieces: list[str]) -> None:
    words = word_groups(pieces, style="sentencepiece")
    assert [i for word in words for i in word.tokens] == list(range(len(pieces)))
    weights = torch.rand(2, 3, len(pieces), len(pieces), dtype=torch.float64).softmax(-1)
    merged = merge_tokens(merge_tokens(weights, words, -1, "sum"), words, -2, "mean")
    assert merged.shape == (2, 3, len(words), len(words))
    assert torch.allclose(merged.sum(-1), torch.ones(2, 3, len(words), dtype=torch.float64))


def test_merging_by_hand() -> None:
    weights = torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
    assert torch.allclose(merge_tokens(weights, [(0, 2), (3,)]), torch.tensor([[0.4, 0.4], [0.6, 0.1]]))
    assert torch.allclose(merge_tokens(weights, [(0, 1)], 0, "mean"), torch.full((1, 4), 0.25))
    assert torch.equal(merge_tokens(weights, [(0, 3)], how="max"), torch.tensor([[0.4], [0.4]]))
    assert merge_tokens(weights, []).shape == (2, 0)
    with pytest.raises(IndexError, match="4 tokens"):
        merge_tokens(weights, [(4,)])
    with pytest.raises(ValueError, match="no token"):
        merge_tokens(weights, [()])
    with pytest.raises(ValueError, match="how="):
        merge_tokens(weights, [(0,)], how="median")


# --------------------------------------------------------------------------------- relative, sinks


def test_relative_attention() -> None:
    site = random_sites(1, 2, 3, 7)[0]
    mean = site.weights.mean(2)
    assert torch.allclose(mean_row(site), mean)
    assert torch.allclose(relative(site.weights), site.weights / mean[:, :, None])
    one = relative(site.weights[:, :, :1], mean_row(site)[:, :, None])
    assert torch.allclose(one, site.weights[:, :, :1] / mean[:, :, None])
    assert torch.allclose(relative(site.weights, site.weights, floor=1e-9), torch.ones_like(site.weights))
    bounded = relative(torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]]), floor=0.3)
    assert torch.allclose(bounded, torch.tensor([[0.5, 5.0, 0.0]]))
    with pytest.raises(ValueError, match="its own mean"):
        relative(site.weights[:, :, :1])
    with pytest.raises(ValueError, match="3 keys"):
        relative(site.weights, torch.ones(3, dtype=torch.float64))


def test_sinks_are_found_and_dropped() -> None:
    site = random_sites(1, 2, 2, 40)[0]
    site.weights = torch.full_like(site.weights, 0.5 / 39)
    site.weights[0, :, :, 5] = 0.5
    site.weights[1, :, :, 0] = 0.5
    found = sink_keys(site)
    assert found.nonzero().tolist() == [[0, 5], [1, 0]]
    left = without_sinks(site.weights, prefix=1, sinks=found)
    assert bool((left[0, :, :, [0, 5]] == 0).all())
    assert bool((left[..., 0] == 0).all())
    assert bool((left[1, :, :, 5] > 0).all())
    assert torch.allclose(left.sum(-1), torch.ones(2, 2, 40).double())
    with pytest.raises(ValueError, match="queries=None"):
        sink_keys(FakeSite("a", 0, site.weights[:, :, :1], queries=40))


def test_even_causal_rows_have_no_sink() -> None:
    site = random_sites(1, 1, 1, 64)[0]
    site.weights = torch.ones(64, 64).tril().double()[None, None]
    site.weights /= site.weights.sum(-1, keepdim=True)
    assert site.weights.mean((0, 1, 2))[0] > 4 / 64  # by plain column means the first key would look special
    assert not sink_keys(site, factor=2.0).any()


def test_dropping_by_position_and_rows_with_nothing_left() -> None:
    row = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.0, 0.5]])
    assert torch.equal(without_sinks(row, sinks=[0, -1]), torch.tensor([[0, 1.0, 0], [0, 0, 0]]))
    with pytest.raises(ValueError, match="prefix=4"):
        without_sinks(row, 4)
    with pytest.raises(ValueError, match="does not fit"):
        without_sinks(row, sinks=torch.zeros(5, dtype=torch.bool))


# ------------------------------------------------------------------------------- on recorded models


def tiny_vit(kind: str) -> torch.nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8
    )
    config._attn_implementation = kind
    return ViTForImageClassification(config).eval()


def test_recorded_vit_equals_eager_maps() -> None:
    fused, eager = tiny_vit("sdpa"), tiny_vit("eager")
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with sightline.record(fused, queries=None, gradients=True) as seen:
        logits = fused(pixels).logits
    out = eager(pixels, output_attentions=True)
    slopes = torch.autograd.grad(out.logits[:, 1].sum(), out.attentions)
    gained = torch.zeros(3, 17, 17)
    for weights, slope in zip(out.attentions, slopes, strict=True):
        bar = (weights * slope).clamp(min=0).mean(1).detach()
        gained = gained + bar + bar @ gained
    maps = [weights.mean(1).detach().double() for weights in out.attentions]
    assert torch.allclose(rollout(seen, rows=0).double(), eager_rollout(maps)[:, :1], atol=1e-6, rtol=0)
    found = grad_rollout(seen, logits[:, 1], rows=0, identity=False)
    assert torch.allclose(found, gained[:, :1], atol=1e-8, rtol=1e-4)
    assert torch.allclose(raw_gradient(seen[1], logits[:, 1]), slopes[1].mean(1), atol=1e-7, rtol=1e-4)
    with sightline.record(fused, queries=None) as twice:
        fused(pixels)
        fused(pixels)
    with pytest.raises(ValueError, match=r"2 runs.*seen\.passes\[0\]"):
        rollout(twice)
    assert torch.allclose(rollout(twice.passes[1], rows=0), rollout(seen, rows=0), atol=1e-6)


def test_recorded_swin_stage_by_stage() -> None:
    from transformers import SwinConfig, SwinModel

    torch.manual_seed(0)
    model = SwinModel(
        SwinConfig(image_size=32, patch_size=4, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4)
    ).eval()
    with sightline.record(model, queries=None) as seen:
        model(torch.randn(2, 3, 32, 32))
    with pytest.raises(ValueError, match=r'sites="encoder\.layers\.1\.blocks\.\*\.attention"'):
        rollout(seen)
    stage = [site for site in seen if site.path.startswith("encoder.layers.0")]
    found = rollout(stage)
    assert torch.allclose(found, eager_rollout([s.weights.mean(1).double() for s in stage]).float(), atol=1e-6)
    assert bool((found[:, 0].view(2, 8, 8)[:, :4, :4] > 0).all())
    assert bool((found[:, 0].view(2, 8, 8)[:, 6:, 6:] < 1e-30).all())  # windows of 4, shifted by 2, end before


def test_both_towers_of_clip_are_advised_and_each_advice_works() -> None:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    layers = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    words = {**layers, "vocab_size": 40, "max_position_embeddings": 16, "eos_token_id": 39}
    config = CLIPConfig(text_config=words, vision_config={**layers, "image_size": 32, "patch_size": 8})
    model = CLIPModel(config).eval()
    given = {"pixel_values": torch.rand(1, 3, 32, 32), "input_ids": torch.ones(1, 9, dtype=torch.long)}
    with sightline.record(model) as seen:
        model(**given)
    with pytest.raises(ValueError, match="two towers") as refused:
        seen.rollout()
    advised = re.findall(r'sites="([^"]+)" \((\d+) tokens\)', str(refused.value))
    assert [int(tokens) for _, tokens in advised] == [17, 9]
    for sites, tokens in advised:
        with sightline.record(model, sites=sites) as one:
            model(**given)
        assert one.rollout().shape == (1, int(tokens), int(tokens))


def test_recorded_encoder_decoder() -> None:
    from transformers import BartConfig, BartModel

    torch.manual_seed(0)
    config = BartConfig(
        d_model=32, encoder_layers=2, decoder_layers=3, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=50, max_position_embeddings=32,
    )  # fmt: skip
    model = BartModel(config).eval()
    source, target = torch.arange(3, 21).view(2, 9), torch.arange(5, 15).view(2, 5)
    with sightline.record(model, queries=None, gradients=True) as seen:
        out = model(input_ids=source, decoder_input_ids=target)
    groups = [
        [site for site in seen if site.path.startswith("encoder")],
        [site for site in seen if site.path.startswith("decoder") and site.kind == "self"],
        [site for site in seen if site.kind == "cross"],
    ]
    assert [len(group) for group in groups] == [2, 3, 3]
    plain = cross_rollout(*groups, rows=2)
    assert torch.allclose(plain.source.sum(-1) + plain.target.sum(-1), torch.ones(2, 1), atol=1e-5)
    assert bool((plain.target[:, 0, 3:] == 0).all())  # the decoder is causal
    relevance = grad_cross_rollout(*groups, out.last_hidden_state[:, 2].sin().sum(-1), rows=2)
    assert relevance.source.shape == (2, 1, 9)
    assert bool((relevance.source > 0).all())
    assert bool((relevance.target[:, 0, 3:] == 0).all())
