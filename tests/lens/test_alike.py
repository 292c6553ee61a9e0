"""Calls like one before are kept at once, and come out as if each had been looked at."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sightline
from sightline.lens import capture
from sightline.lens.alike import Alike


class Layer(nn.Module):
    """Attention over tokens (batch, length, 16) with four heads; `again` calls it twice in one module call."""

    def __init__(self, *, causal: bool = False, again: bool = False) -> None:
        super().__init__()
        self.project = nn.Linear(16, 48)
        self.causal, self.again = causal, again

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = self.project(tokens).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(query, key, value, mask, 0.0, self.causal, scale=0.4)
        if self.again:
            out = out + F.scaled_dot_product_attention(key, query, value, mask, 0.0, self.causal, scale=0.4)
        return tokens + out.transpose(1, 2).flatten(2)


class Layers(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        for number, layer in enumerate(self.layers):
            tokens = layer(tokens, mask if number == 1 else None)
        return tokens


def looked_at(model: nn.Module, *given: Tensor, monkeypatch: pytest.MonkeyPatch, **choices) -> list[Tensor]:
    """The same recording where every call is looked at."""
    with monkeypatch.context() as patch:
        patch.setattr(Alike, "keep", lambda *_: False)
        with torch.no_grad(), sightline.record(model, **choices) as seen:
            model(*given)
    return [site.weights for site in seen]


@pytest.mark.parametrize("queries", [None, sightline.CLS, sightline.LAST, slice(1, 4), [0, 2]])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("causal", [False, True])
def test_kept_at_once_or_looked_at_is_one(queries, batch: int, causal: bool, monkeypatch) -> None:
    torch.manual_seed(0)
    model = Layers(*(Layer(causal=causal) for _ in range(4)))
    tokens = torch.randn(batch, 6, 16)
    kept = []
    keep = Alike.keep
    with monkeypatch.context() as patch:
        patch.setattr(Alike, "keep", lambda *given: kept.append(keep(*given)) or kept[-1])
        with torch.no_grad(), sightline.record(model, queries=queries) as seen:
            model(tokens)
    expected = looked_at(model, tokens, monkeypatch=monkeypatch, queries=queries)
    assert [site.path for site in seen] == [f"layers.{number}" for number in range(4)]
    for site, weights in zip(seen, expected, strict=True):
        torch.testing.assert_close(site.weights, weights, rtol=0, atol=0)
    if queries is not None and not isinstance(queries, list):
        assert kept == [False, True, True, True]


def test_one_mask_among_layers_is_not_overlooked(monkeypatch) -> None:
    torch.manual_seed(1)
    model, tokens = Layers(*(Layer() for _ in range(4))), torch.randn(2, 5, 16)
    mask = torch.rand(5, 5) > 0.4
    mask[0, 3] = False
    with torch.no_grad(), sightline.record(model, queries=sightline.CLS) as seen:
        model(tokens, mask)
    expected = looked_at(model, tokens, mask, monkeypatch=monkeypatch, queries=sightline.CLS)
    assert (seen[1].weights[..., 3] == 0).all()
    assert (seen[2].weights[..., 3] > 0).all()
    for site, weights in zip(seen, expected, strict=True):
        torch.testing.assert_close(site.weights, weights)


def test_two_calls_in_one_module_call_are_two(monkeypatch) -> None:
    torch.manual_seed(2)
    model, tokens = Layers(*(Layer(again=True) for _ in range(3))), torch.randn(1, 5, 16)
    with torch.no_grad(), sightline.record(model, queries=sightline.CLS) as seen:
        model(tokens)
    expected = looked_at(model, tokens, monkeypatch=monkeypatch, queries=sightline.CLS)
    assert [site.name for site in seen] == [f"layers.{n}{again}" for n in range(3) for again in ("", "#2")]
    for site, weights in zip(seen, expected, strict=True):
        torch.testing.assert_close(site.weights, weights)


def test_the_limit_counts_calls_that_are_kept_at_once() -> None:
    model, tokens = Layers(*(Layer() for _ in range(6))), torch.randn(1, 8, 16)
    row = 4 * 8 * 4  # heads, keys, bytes
    with torch.no_grad(), sightline.record(model, queries=sightline.CLS, limit=6 * row) as seen:
        model(tokens)
    assert seen.bytes == 6 * row
    with (
        pytest.raises(ValueError, match=f"limit={5 * row}"),
        torch.no_grad(),
        sightline.record(model, queries=sightline.CLS, limit=5 * row),
    ):
        model(tokens)


def test_weights_are_made_once_whoever_reads_first() -> None:
    torch.manual_seed(3)
    model, tokens = Layers(*(Layer() for _ in range(4))), torch.randn(1, 7, 16)
    with torch.no_grad(), sightline.record(model, queries=sightline.CLS) as seen:
        model(tokens)
    last, again = seen[3].weights.clone(), seen[3].weights
    torch.testing.assert_close(last, again, rtol=0, atol=0)
    for site in seen:
        torch.testing.assert_close(site.weights.sum(-1), torch.ones(1, 4, 1))


def test_a_model_with_another_part_is_walked_anew() -> None:
    model, tokens = Layers(Layer(), Layer()), torch.randn(1, 5, 16)
    for layers in (2, 3, 2):
        while len(model.layers) < layers:
            model.layers.append(Layers(Layer()))
        del model.layers[layers:]
        with torch.no_grad(), sightline.record(model) as seen:
            model(tokens)
        assert [s.path for s in seen] == ["layers.0", "layers.1", "layers.2.layers.0"][:layers]


def recorded(model: nn.Module, *given: Tensor, **choices) -> list[tuple[str, Tensor]]:
    with torch.no_grad(), sightline.record(model, **choices) as seen:
        model(*given)
    return [(site.path, site.weights) for site in seen]


def test_a_reader_who_is_interrupted_spoils_nothing(monkeypatch) -> None:
    torch.manual_seed(4)
    model, tokens = Layers(*(Layer() for _ in range(3))), torch.randn(1, 6, 16)
    monkeypatch.setattr(capture, "_SMALL", 0)  # one after the other
    expected = recorded(model, tokens, queries=sightline.CLS)
    with torch.no_grad(), sightline.record(model, queries=sightline.CLS) as seen:
        model(tokens)
    original, calls = capture._weights, []

    def fails_once(*given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(capture, "_weights", fails_once)
    with pytest.raises(KeyboardInterrupt):
        _ = seen[0].weights
    for site, (_, weights) in zip(seen, expected, strict=True):
        torch.testing.assert_close(site.weights, weights)


def test_what_the_first_reader_is_about_is_not_burnt_in() -> None:
    model, tokens = Layers(*(Layer() for _ in range(3))), torch.randn(1, 6, 16)
    with torch.no_grad(), sightline.record(model, queries=sightline.CLS) as seen:
        model(tokens)
    with torch.inference_mode():
        _ = seen[0].weights
    factor = torch.ones(1, requires_grad=True)
    (seen[1].weights * factor).sum().backward()
    assert factor.grad is not None


def test_two_readers_at_once() -> None:
    model, tokens = Layers(*(Layer() for _ in range(6))), torch.randn(1, 6, 16)
    with torch.no_grad(), sightline.record(model, queries=sightline.CLS) as seen:
        model(tokens)
    sums: list[Tensor] = []
    readers = [threading.Thread(target=lambda n=n: sums.append(seen[n].weights.sum(-1))) for n in range(6)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    torch.testing.assert_close(torch.stack(sums), torch.ones(6, 1, 4, 1))


class Named(nn.Module):
    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, tokens: Tensor) -> Tensor:
        for part in self.children():
            tokens = part(tokens)
        return tokens


def test_parts_with_new_names_are_told_by_them() -> None:
    model, tokens = Named(vision=Layers(Layer())), torch.randn(1, 5, 16)
    for _ in range(2):
        assert [path for path, _ in recorded(model, tokens)] == ["vision.layers.0"]
    model.visual = model.vision
    del model.vision
    assert [path for path, _ in recorded(model, tokens, sites="visual*")] == ["visual.layers.0"]


def test_a_window_that_a_part_was_given_later_counts() -> None:
    model, tokens = Layers(Layer()), torch.randn(4, 5, 16)
    before = [recorded(model, tokens, queries=slice(1, 3)) for _ in range(2)][-1]
    model.layers[0].window_size = 2
    with pytest.warns(UserWarning, match="may attend in windows"):
        after = recorded(model, tokens, queries=slice(1, 3))
    torch.testing.assert_close(after[0][1], before[0][1])


def test_a_bare_module_or_a_leaf_with_a_part_hides_nothing() -> None:
    def holder() -> nn.Module:  # as latent diffusion's code builds its parts
        stage, linear = nn.Module(), nn.Linear(16, 16)
        stage.attn, linear.adapter = Layer(), Layer()
        stage.linear = linear
        stage.forward = lambda tokens: linear(linear.adapter(stage.attn(tokens)))
        return Named(stages=nn.Sequential(nn.Sequential(stage)))

    tokens = torch.randn(1, 5, 16)
    spare = holder()
    spare.stages[0].spare = nn.Module()
    spare.stages[0].spare.forward = lambda tokens: tokens
    paths = ["stages.0.0.attn", "stages.0.0.linear.adapter"]
    for model in (holder(), spare, spare, holder()):
        assert [path for path, _ in recorded(model, tokens)] == paths


def test_layers_of_grouped_heads_named_by_their_class_are_looked_at() -> None:
    class Heads(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(tokens, tokens, tokens)

    class Grouped(Heads):
        num_key_value_groups, num_heads = 2, 4

    tokens = torch.randn(1, 2, 2, 8)
    both = recorded(nn.Sequential(Heads(), Grouped()), tokens)
    alone = recorded(nn.Sequential(Grouped()), tokens)
    assert both[1][1].shape == alone[0][1].shape


def test_a_scale_that_changes_later_is_kept_as_it_was() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor(0.3))

        def forward(self, tokens: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(tokens, tokens, tokens, scale=self.scale)

    model, tokens = Scaled(), torch.randn(1, 2, 5, 8)
    with torch.no_grad(), sightline.record(model) as seen:
        model(tokens)
    model.scale.mul_(20)
    torch.testing.assert_close(seen[0].weights, (0.3 * tokens @ tokens.mT).softmax(-1))
