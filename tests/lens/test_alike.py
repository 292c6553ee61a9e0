"""Calls like one before are kept at once, and come out as if each had been looked at."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import sightline
from sightline.lens import bundle, capture, deferred, dispatch
from sightline.lens.alike import Alike
from sightline.lens.site import Site


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
        patch.setattr(Alike, "again", lambda *_: False)
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


@pytest.fixture
def repeated(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each call, whether it was kept as one that its module made before."""
    answers: list[bool] = []
    again = Alike.again
    monkeypatch.setattr(Alike, "again", lambda *given: answers.append(again(*given)) or answers[-1])
    monkeypatch.setattr(dispatch, "MODE_ALWAYS", False)
    monkeypatch.setattr(deferred, "EVERYWHERE", False)
    return answers


@pytest.mark.parametrize("queries", [None, sightline.CLS, sightline.LAST])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("causal", [False, True])
def test_a_recording_made_again_is_the_same(queries, batch: int, causal: bool, repeated, monkeypatch) -> None:
    torch.manual_seed(5)
    model, tokens = Layers(*(Layer(causal=causal) for _ in range(3))), torch.randn(batch, 6, 16)
    for _ in range(2):
        recorded(model, tokens, queries=queries)
    repeated.clear()
    with torch.no_grad(), sightline.record(model, queries=queries) as seen:
        model(tokens)
        model(-tokens)
    assert repeated == [True] * 6
    expected = [
        w for given in (tokens, -tokens) for w in looked_at(model, given, monkeypatch=monkeypatch, queries=queries)
    ]
    assert [len(sites) for sites in seen.passes] == [3, 3]
    assert [site.layer for site in seen] == [0, 1, 2] * 2
    for site, weights in zip(seen, expected, strict=True):
        torch.testing.assert_close(site.weights, weights)


class Attention(nn.Module):
    """Attends from tokens to themselves or to others; by `parts` queries, one after the other, where there are.

    `how` is what happens to query, key and value within, and `named` goes with the call: nobody outside sees either.
    """

    def __init__(self) -> None:
        super().__init__()
        self.parts: int | None = None
        self.how = lambda query, key, value: (query, key, value)
        self.named: dict[str, object] = {}

    def forward(self, tokens: Tensor, mask: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        keys = tokens if context is None else context
        if self.parts is None:
            return F.scaled_dot_product_attention(*self.how(tokens, keys, keys), mask, **self.named)
        return torch.cat([F.scaled_dot_product_attention(q, q, q) for q in tokens.split(self.parts, dim=-2)], dim=-2)


def _shapes(made: list[tuple[str, Tensor]]) -> list[tuple[int, ...]]:
    return [tuple(weights.shape) for _, weights in made]


def test_what_a_module_is_given_otherwise_is_looked_at(repeated) -> None:
    """Each of these differs from the call before in one thing; that very call is then looked at."""
    model = Named(attention=Attention())
    model.forward = lambda *given, **named: model.attention(*given, **named)
    tokens, blind = torch.randn(1, 2, 5, 4), torch.ones(5, 5).tril().bool()

    def record(*given: Tensor, gradients: bool = False, queries=sightline.CLS, **named: Tensor) -> Site:
        with torch.set_grad_enabled(gradients), sightline.record(model, queries=queries) as seen:
            model(*given, **named)
        (site,) = seen
        return site

    changes = {
        "more tokens": lambda: record(torch.randn(1, 2, 6, 4)),
        "a batch": lambda: record(torch.randn(2, 2, 5, 4)),
        "another precision": lambda: record(tokens.double()),
        "a mask": lambda: record(tokens, blind),
        "a context": lambda: record(tokens, context=torch.randn(1, 2, 5, 4)),
        "a longer context": lambda: record(tokens, context=torch.randn(1, 2, 9, 4)),
        "a graph": lambda: record(tokens.clone().requires_grad_(), gradients=True),
        "other rows": lambda: record(tokens, queries=sightline.LAST),
    }
    for change, make in changes.items():
        for _ in range(3):
            site = record(tokens)
        assert repeated[-1], change
        assert site.kind == "self"
        changed = make()
        assert not repeated[-1], change
        assert changed.kind == ("cross" if "context" in change else "self")
        keys = changed.calls[0].keys
        assert changed.weights.shape == (2 if change == "a batch" else 1, 2, 1, keys)
        assert changed.weights.requires_grad is False
        if change == "a mask":
            assert changed.weights[..., 1:].count_nonzero() == 0
        if change == "other rows":
            torch.testing.assert_close(changed.weights[:, :, 0], (tokens @ tokens.mT / 2).softmax(-1)[:, :, -1])


@pytest.mark.parametrize(
    ("how", "named"),
    [
        (lambda q, k, v: [torch.cat([t, t], 1) for t in (q, k, v)], {}),
        (lambda q, k, v: [q[:, :, :3], k, v], {}),
        (lambda q, k, v: [q, k[:, :, :3], v[:, :, :3]], {}),
        (lambda q, k, v: [q, k, torch.cat([v, v])], {}),
        (lambda q, k, v: [q.double(), k.double(), v.double()], {}),
        (lambda q, k, v: [nn.Parameter(q), k, v], {}),
        (lambda q, k, v: [q, nn.Parameter(k), v], {}),
        (lambda q, k, v: [q.detach().requires_grad_(), k, v], {}),
        (lambda q, k, v: [q, k.detach().requires_grad_(), v], {}),
        (lambda q, k, v: [q, k[:, :1], v[:, :1]], {"enable_gqa": True}),
        (lambda q, k, v: [q, k, v], {"scale": 3.0}),
        (lambda q, k, v: [q, k, v], {"is_causal": True}),
        (lambda q, k, v: [q, k, v], {"dropout_p": 0.5}),
    ],
)
def test_what_a_module_does_otherwise_with_the_same_input_is_looked_at(how, named, repeated, monkeypatch) -> None:
    model, tokens = Named(attention=Attention()), torch.randn(1, 2, 5, 4)
    usual = model.attention.how
    for _ in range(3):
        recorded(model, tokens, queries=sightline.LAST)
    assert repeated[-1]
    for _ in range(3):
        model.attention.how, model.attention.named = how, named
        with torch.enable_grad(), sightline.record(model, queries=sightline.LAST) as seen:
            model(tokens)
        assert not repeated[-1]
        expected = looked_at(model, tokens, monkeypatch=monkeypatch, queries=sightline.LAST)
        torch.testing.assert_close(seen[0].weights, expected[0])
        assert seen[0].calls[0].dropout == named.get("dropout_p", 0.0)
        model.attention.how, model.attention.named = usual, {}
        ((_, weights),) = recorded(model, tokens, queries=sightline.LAST)
        torch.testing.assert_close(weights[:, :, 0], (tokens @ tokens.mT / 2).softmax(-1)[:, :, -1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("queries", [None, sightline.CLS])
def test_any_precision_and_grouped_heads_made_again(dtype, key_heads: int, queries, repeated, monkeypatch) -> None:
    torch.manual_seed(6)
    model, tokens = Named(attention=Attention()), torch.randn(1, 4, 40, 8, dtype=dtype)
    model.attention.how = lambda q, k, v: (q, k[:, :key_heads], v[:, :key_heads])
    model.attention.named = {"enable_gqa": True}
    for _ in range(3):
        ((_, weights),) = recorded(model, tokens, queries=queries)
    assert repeated[-1]
    (expected,) = looked_at(model, tokens, monkeypatch=monkeypatch, queries=queries)
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "choices", [{"queries": slice(1, 3)}, {"queries": [1, 3]}, {"queries": 2}, {"heads": [1]}, {"gradients": True}]
)
def test_other_choices_are_not_taken_for_all_rows(choices, repeated, monkeypatch) -> None:
    model, tokens = Layers(Layer(), Layer()), torch.randn(1, 6, 16)
    for _ in range(3):
        recorded(model, tokens)
    repeated.clear()
    for _ in range(2):
        found = recorded(model, tokens, **choices)
        expected = looked_at(model, tokens, monkeypatch=monkeypatch, **choices)
        for (_, weights), right in zip(found, expected, strict=True):
            torch.testing.assert_close(weights, right)
    assert True not in repeated


def test_a_cross_call_made_again_is_cross_and_each_call_has_its_own_number(repeated) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Attention(), Attention()

        def forward(self, tokens: Tensor, others: Tensor) -> Tensor:
            return self.second(self.first(tokens), encoder_hidden_states=others)

    model, tokens, others = Two(), torch.randn(1, 2, 5, 4), torch.randn(1, 2, 5, 4)
    plain = model.second.forward
    model.second.forward = lambda tokens, encoder_hidden_states: plain(tokens, None, encoder_hidden_states)
    for _ in range(3):
        with torch.no_grad(), sightline.record(model, queries=sightline.CLS) as seen:
            model(tokens, others)
            model(tokens, others)
        assert [site.kind for site in seen] == ["self", "cross"] * 2
        assert len({site.calls[0].frame for site in seen}) == 4
    assert repeated[-4:] == [True] * 4
    model.second.forward = lambda tokens, aside: plain(tokens, None, aside)
    model.forward = lambda tokens, others: model.second(tokens, aside=others)  # another name for the same tensors
    with torch.no_grad(), sightline.record(model, queries=sightline.CLS) as seen:
        model(tokens, others)
    assert not repeated[-1]
    assert seen[0].kind == "self"


def test_items_of_a_batch_one_by_one_are_no_windows_when_made_again(repeated) -> None:
    class OneByOne(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            heads = tokens.unflatten(-1, (2, 4)).transpose(1, 2)
            return torch.cat([F.scaled_dot_product_attention(x, x, x) for x in heads.split(1)])

    model, tokens = Named(attention=OneByOne()), torch.randn(3, 5, 8)
    for _ in range(3):
        repeated.clear()
        assert _shapes(recorded(model, tokens)) == [(1, 2, 5, 5)] * 3
    assert repeated[0]


class Shared(nn.MultiheadAttention):
    """Its own attention, below a name that tells self from cross by whether query and key are one tensor."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in (query, key, value))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def test_one_attention_for_self_and_cross_is_told_each_time() -> None:
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = Shared(8, 2)

        def forward(self, tokens: Tensor, others: Tensor) -> Tensor:
            tokens = self.shared(tokens, tokens, tokens)
            return self.shared(tokens, others, others)

    model, tokens, others = Decoder(), torch.randn(1, 5, 8), torch.randn(1, 5, 8)
    for _ in range(3):
        with torch.no_grad(), sightline.record(model, queries=sightline.CLS) as seen:
            model(tokens, others)
        assert [site.kind for site in seen] == ["self", "cross"]


def test_a_leaf_that_an_attention_has_replaced_is_found() -> None:
    """Python may give the new module the address of the old one."""
    model, tokens = Named(inner=Named(first=Layer(), pool=nn.Identity())), torch.randn(1, 5, 16)
    for _ in range(2):
        assert [path for path, _ in recorded(model, tokens)] == ["inner.first"]
    del model.inner.pool
    model.inner.pool = Layer()
    assert [path for path, _ in recorded(model, tokens)] == ["inner.first", "inner.pool"]


def test_heads_that_a_module_groups_otherwise_later(repeated) -> None:
    model, tokens = Named(attention=Attention()), torch.randn(1, 2, 2, 8)
    for _ in range(3):
        assert _shapes(recorded(model, tokens)) == [(1, 2, 2, 2)]
    assert repeated[-1]
    model.attention.num_key_value_groups, model.attention.num_heads = 2, 4
    assert _shapes(recorded(model, tokens)) == [(1, 4, 1, 2)]


def test_a_product_that_fails_leaves_no_call_behind(repeated, monkeypatch) -> None:
    model, tokens = Layers(Layer(), Layer()), torch.randn(1, 5, 16)
    for _ in range(3):
        expected = recorded(model, tokens, queries=sightline.CLS)
    original, made = bundle.products_directly, []

    def fails_once(*given):
        made.append(1)
        if len(made) == 1:
            raise torch.OutOfMemoryError("no memory")
        return original(*given)

    monkeypatch.setattr(bundle, "products_directly", fails_once)
    with torch.no_grad(), sightline.record(model, queries=sightline.CLS) as seen:
        with pytest.raises(torch.OutOfMemoryError):
            model(tokens)
        model(tokens)
    assert repeated[-2:] == [True, True]
    for site, (_, weights) in zip(seen, expected, strict=True):
        torch.testing.assert_close(site.weights, weights)


def test_rows_at_any_offset_of_a_fused_projection_are_the_right_ones(repeated) -> None:
    """Query and key lie interleaved in one tensor, and the batch item begins somewhere in it."""

    class Fused(nn.Module):
        def forward(self, packed: Tensor) -> Tensor:
            query, key, value = packed[1:2].unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)
            return F.scaled_dot_product_attention(query, key, value)

    model, packed = Named(attention=Fused()), torch.randn(3, 7, 48)
    for queries, row in ((sightline.CLS, 0), (sightline.LAST, -1)):
        for _ in range(3):
            ((_, weights),) = recorded(model, packed, queries=queries)
        assert repeated[-1]
        query, key, _ = packed[1:2].unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)
        torch.testing.assert_close(weights[:, :, 0], (query @ key.mT / 2).softmax(-1)[:, :, row])


def test_windows_that_begin_like_a_call_before_are_joined(repeated) -> None:
    model, tokens = Named(attention=Attention()), torch.randn(1, 2, 12, 4)
    model.attention.parts = 4
    for _ in range(3):
        short = recorded(model, tokens[:, :, :4].contiguous(), queries=sightline.CLS)
    assert repeated[-1]
    assert _shapes(short) == [(1, 2, 1, 4)]
    windows = recorded(model, tokens, queries=None)
    torch.testing.assert_close(recorded(model, tokens, queries=None)[0][1], windows[0][1])
    repeated.clear()
    for _ in range(3):
        ((_, joined),) = recorded(model, tokens, queries=None)
        torch.testing.assert_close(joined, windows[0][1])
    assert True in repeated  # the first window of each


def test_a_part_called_on_its_own_begins_as_before(repeated) -> None:
    model, tokens = Layers(Layer(), Layer()), torch.randn(1, 5, 16)
    for _ in range(3):
        with torch.no_grad(), sightline.record(model, queries=sightline.CLS) as seen:
            model.layers[1](tokens)
            model(tokens)
        assert [site.path for site in seen] == ["layers.1", "layers.0", "layers.1"]
        assert [len(sites) for sites in seen.passes] == [3]
    assert repeated[-2:] == [True, True]


def test_fewer_sites_and_a_smaller_limit_hold_for_calls_made_before(repeated) -> None:
    model, tokens = Layers(Layer(), Layer()), torch.randn(1, 8, 16)
    for _ in range(3):
        recorded(model, tokens, queries=sightline.CLS)
    assert all(repeated[-2:])
    assert [path for path, _ in recorded(model, tokens, queries=sightline.CLS, sites="layers.1")] == ["layers.1"]
    with pytest.raises(ValueError, match="limit=200"):
        recorded(model, tokens, queries=sightline.CLS, limit=200)


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
