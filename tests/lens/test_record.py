"""The recorder: what it sees, that it is exact, bounded, and leaves the model as it was."""

import gc
import threading
import warnings
import weakref

import pytest
import torch
import torch.nn.functional as F
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention.flex_attention import flex_attention
from torch.utils.checkpoint import checkpoint

import sightline
from sightline.attention import observe
from sightline.lens import deferred

HEADS, WIDTH = 4, 8


def eager(query, key, value, mask=None, causal=False, scale=None):
    """Softmax attention written out: the reference of this file.  A row that may attend nowhere is zero."""
    group = query.shape[-3] // key.shape[-3]
    key, value = key.repeat_interleave(group, -3), value.repeat_interleave(group, -3)
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    weights = scores.softmax(-1).nan_to_num(0.0)
    return weights, weights @ value


class Attend(nn.Module):
    """One attention call with whatever arguments the test gives."""

    def __init__(self, call=F.scaled_dot_product_attention, **fixed):
        super().__init__()
        self.call, self.fixed = call, fixed

    def forward(self, query, key, value, **named):
        return self.call(query, key, value, **self.fixed, **named)


class Block(nn.Module):
    def __init__(self, dim=32, eager_mode=False):
        super().__init__()
        self.qkv, self.out, self.eager_mode = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), eager_mode

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, WIDTH)).permute(2, 0, 3, 1, 4)
        if self.eager_mode:
            attended = F.dropout(torch.softmax(q @ k.transpose(-2, -1) * WIDTH**-0.5, -1), 0.0) @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(attended.transpose(1, 2).flatten(2))


class Stack(nn.Module):
    def __init__(self, depth=3, **options):
        super().__init__()
        self.layers = nn.ModuleList([Block(**options) for _ in range(depth)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def operands(batch=2, heads=HEADS, key_heads=None, queries=5, keys=7, dtype=torch.float32):
    shapes = [(batch, heads, queries, WIDTH)] + [(batch, key_heads or heads, keys, WIDTH)] * 2
    return [torch.randn(shape, dtype=dtype) for shape in shapes]


def recorded(model, *inputs, **choices):
    call = choices.pop("call", {})
    with sightline.record(model, **choices) as seen:
        output = model(*inputs, **call)
    return seen, output


FORMS = {
    "F": F.scaled_dot_product_attention,
    "torch._C._nn": torch._C._nn.scaled_dot_product_attention,
    "aten packet": torch.ops.aten.scaled_dot_product_attention,
    "aten default": torch.ops.aten.scaled_dot_product_attention.default,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_call_form_is_seen(form):
    inputs = operands()
    seen, output = recorded(Attend(FORMS[form]), *inputs)
    weights, reference = eager(*inputs)
    torch.testing.assert_close(seen[0].weights, weights, atol=1e-6, rtol=0)
    torch.testing.assert_close(output, reference, atol=1e-6, rtol=0)


def test_exported_program_is_seen():
    model, x = Stack(2), torch.randn(2, 5, 32)
    seen, _ = recorded(torch.export.export(model, (x,)).module(), x)
    direct, _ = recorded(model, x)
    for a, b in zip(seen, direct, strict=True):
        torch.testing.assert_close(a.weights, b.weights, atol=1e-6, rtol=0)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3), queries=st.integers(1, 9), keys=st.integers(1, 9), group=st.sampled_from([1, 2, 4]),
    kind=st.sampled_from(["none", "bool", "bool row", "float", "causal", "blind row"]),
    scale=st.sampled_from([None, 0.3]), seed=st.integers(0, 99),
)  # fmt: skip
def test_rows_equal_eager_for_any_shape_and_mask(batch, queries, keys, group, kind, scale, seed):
    torch.manual_seed(seed)
    inputs = operands(batch, HEADS, HEADS // group, queries, keys)
    mask, causal = None, kind == "causal"
    if kind == "bool":
        mask = torch.rand(batch, 1, queries, keys) > 0.4
    elif kind == "bool row":
        mask = torch.rand(batch, 1, 1, keys) > 0.4
    elif kind == "float":
        mask = torch.randn(HEADS, queries, keys)
    elif kind == "blind row":
        mask = torch.ones(queries, keys, dtype=torch.bool)
        mask[0] = False
    model = Attend(attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=group > 1)
    weights, _ = eager(*inputs, mask=mask, causal=causal, scale=scale)
    seen, _ = recorded(model, *inputs)
    torch.testing.assert_close(seen[0].weights, weights, atol=2e-6, rtol=0)
    last, _ = recorded(model, *inputs, queries=sightline.LAST, heads=[0, HEADS - 1])
    torch.testing.assert_close(last[0].weights, weights[:, [0, -1], -1:], atol=2e-6, rtol=0)


@pytest.mark.parametrize("lead", [(), (6,), (2, 3, HEADS)])
def test_fewer_and_more_axes_than_four(lead):
    query, key, value = (torch.randn(*lead, n, WIDTH) for n in (5, 7, 7))
    mask = torch.rand(5, 7) > 0.2
    seen, _ = recorded(Attend(attn_mask=mask), query, key, value)
    if lead:
        weights, _ = (
            eager(query, key, value, mask=mask)
            if len(lead) > 1
            else eager(query[:, None], key[:, None], value[:, None], mask=mask)
        )
    else:
        weights, _ = eager(query[None, None], key[None, None], value[None, None], mask=mask)
    torch.testing.assert_close(seen[0].weights, weights.reshape(seen[0].weights.shape), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(dtype):
    inputs = operands(dtype=dtype)
    seen, _ = recorded(Attend(), *inputs)
    weights, _ = eager(*(t.float() for t in inputs))
    torch.testing.assert_close(seen[0].weights.float(), weights, atol=1e-5, rtol=0)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("extra", [{}, {"add_zero_attn": True}, {"add_bias_kv": True}, {"kdim": 12, "vdim": 12}])
def test_multihead_attention_is_exact_and_untouched(need_weights, batch_first, extra):
    module = nn.MultiheadAttention(32, HEADS, batch_first=batch_first, **extra).eval()
    query = torch.randn(2, 5, 32)
    key = torch.randn(2, 7, 12 if "kdim" in extra else 32)
    if not batch_first:
        query, key = query.transpose(0, 1), key.transpose(0, 1)
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[1, 4:] = True
    options = {"key_padding_mask": padding, "need_weights": need_weights, "average_attn_weights": False}
    with torch.no_grad():
        plain, _ = module(query, key, key, **options)
        _, weights = module(query, key, key, key_padding_mask=padding, average_attn_weights=False)
        with sightline.record(module) as seen:
            output, _ = module(query, key, key, **options)
    assert torch.equal(output, plain)
    assert seen[0].kind == "cross"
    torch.testing.assert_close(seen[0].weights, weights, atol=1e-6, rtol=0)


def test_fully_masked_multihead_attention_keeps_its_good_output():
    module = nn.MultiheadAttention(32, HEADS, batch_first=True).eval()
    x, padding = torch.randn(2, 5, 32), torch.zeros(2, 5, dtype=torch.bool)
    padding[1] = True
    with torch.no_grad():
        torch.backends.mha.set_fastpath_enabled(False)  # torch's fast path answers NaN here, its plain path 0
        try:
            plain, _ = module(x, x, x, key_padding_mask=padding, need_weights=False)
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
        with sightline.record(module) as seen:
            output, _ = module(x, x, x, key_padding_mask=padding, need_weights=False)
    assert torch.equal(output, plain)
    assert not output.isnan().any()
    assert seen[0].weights[1].abs().max() == 0


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_transformer_encoder_keeps_its_answer(padded, grad):
    layer = nn.TransformerEncoderLayer(32, HEADS, 64, batch_first=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoder = nn.TransformerEncoder(layer, 2).eval()
        x, padding = torch.randn(2, 6, 32), torch.zeros(2, 6, dtype=torch.bool)
        padding[1, 4:] = padded
        with torch.set_grad_enabled(grad):
            plain = encoder(x, src_key_padding_mask=padding)
            seen, output = recorded(encoder, x, call={"src_key_padding_mask": padding})
    torch.testing.assert_close(output, plain, atol=1e-6, rtol=0)
    assert [s.path for s in seen] == ["layers.0.self_attn", "layers.1.self_attn"]
    if padded:
        assert seen[0].weights[1, :, :, 4:].abs().max() == 0


def test_transformer_tells_cross_from_self():
    model = nn.Transformer(32, HEADS, 2, 2, 64, batch_first=True).eval()
    seen, _ = recorded(model, torch.randn(2, 6, 32), torch.randn(2, 6, 32))  # equal lengths: names and identity decide
    kinds = {s.path: s.kind for s in seen}
    assert kinds["decoder.layers.0.multihead_attn"] == "cross"
    assert kinds["decoder.layers.0.self_attn"] == kinds["encoder.layers.1.self_attn"] == "self"


def test_written_out_attention_is_seen():
    torch.manual_seed(0)
    fused = Stack().eval()
    written = Stack(eager_mode=True).eval()
    written.load_state_dict(fused.state_dict())
    x = torch.randn(2, 6, 32)
    a, _ = recorded(fused, x)
    b, _ = recorded(written, x)
    assert [s.source for s in b] == ["softmax"] * 3
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one.weights, other.weights, atol=1e-6, rtol=0)


def test_a_softmax_that_weighs_no_values_is_not_attention():
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.stack = Stack(1)

        def forward(self, x):
            return self.stack(x).softmax(-1)

    seen, _ = recorded(Classifier(), torch.randn(2, 6, 32))
    assert len(seen) == 1


@pytest.mark.slow
@pytest.mark.parametrize("queries", [sightline.CLS, sightline.LAST, None, [0, 3], slice(1, 4)], ids=str)
def test_compiled_model_is_recorded_in_one_graph(queries):
    torch._dynamo.reset()
    model, x = Stack().eval(), torch.randn(2, 6, 32)
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        plain = compiled(x)
        direct, _ = recorded(model, x, queries=queries)
        for _ in range(2):  # the second recording reuses the graph of the first
            torch._dynamo.utils.counters.clear()
            seen, output = recorded(compiled, x, queries=queries)
            assert not torch._dynamo.utils.counters["graph_break"]
            assert [s.name for s in seen] == [s.name for s in direct]
            for a, b in zip(seen, direct, strict=True):
                torch.testing.assert_close(a.weights, b.weights, atol=1e-5, rtol=0)
            torch.testing.assert_close(output, plain, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("padded", [False, True])
def test_compiled_multihead_attention_is_recorded(padded):
    torch._dynamo.reset()
    layer = nn.TransformerEncoderLayer(32, HEADS, 64, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x, padding = torch.randn(2, 6, 32), torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = padded
    compiled = torch.compile(encoder)
    with torch.no_grad():
        direct, plain = recorded(encoder, x, call={"src_key_padding_mask": padding})
        seen, output = recorded(compiled, x, call={"src_key_padding_mask": padding})
    assert [s.path for s in seen] == [s.path for s in direct]
    for a, b in zip(seen, direct, strict=True):
        torch.testing.assert_close(a.weights, b.weights, atol=1e-5, rtol=0)
    torch.testing.assert_close(output, plain, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_layers_compiled_one_by_one_keep_their_names():
    torch._dynamo.reset()
    model, x = Stack().eval(), torch.randn(2, 6, 32)
    with torch.no_grad():
        direct, _ = recorded(model, x)
        for layer in model.layers:
            layer.compile(fullgraph=True)
        model(x)
        seen, _ = recorded(model, x)
    assert [s.path for s in seen] == ["layers.0", "layers.1", "layers.2"]
    for a, b in zip(seen, direct, strict=True):
        torch.testing.assert_close(a.weights, b.weights, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_compiled_passes_are_kept_apart(how):
    torch._dynamo.reset()
    model = Stack(2).eval()
    compiled = torch.compile(model) if how == "wrapped" else model
    if how == "in place":
        model.compile()
    with torch.no_grad():
        compiled(torch.randn(2, 6, 32))
        with sightline.record(compiled) as seen:
            compiled(torch.randn(2, 6, 32))
            compiled(torch.randn(2, 6, 32))
    assert [[s.name for s in p] for p in seen.passes] == [["layers.0", "layers.1"]] * 2
    assert seen.inputs
    assert how == "wrapped" or model._compiled_call_impl.__name__ != "call"


@pytest.mark.slow
def test_layers_keep_their_order_when_only_the_first_is_compiled():
    torch._dynamo.reset()
    model, x = Stack(3).eval(), torch.randn(2, 6, 32)
    model.layers[0].compile()
    with torch.no_grad():
        seen, _ = recorded(model, x)
    assert [s.path for s in seen] == ["layers.0", "layers.1", "layers.2"]


@pytest.mark.slow
def test_debug_backend_counts_calls_once():
    torch._dynamo.reset()
    model, x = Stack(2).eval(), torch.randn(2, 6, 32)
    with torch.no_grad():
        seen, _ = recorded(torch.compile(model, backend="eager"), x)
    assert [s.path for s in seen] == ["layers.0", "layers.1"]


@pytest.mark.slow
def test_compiled_written_out_attention_is_refused_with_a_remedy():
    torch._dynamo.reset()
    model, x = Stack(2, eager_mode=True).eval(), torch.randn(2, 6, 32)
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"compiled|compile"):
        recorded(torch.compile(model), x)


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_contexts(context):
    model, x = Stack().eval(), torch.randn(2, 6, 32)
    with context():
        plain = model(x)
        seen, output = recorded(model, x)
        assert torch.equal(plain, output)
    assert seen[2].weights.sum(-1).allclose(torch.ones(()))


def test_autocast_weights_are_computed_in_full_precision():
    model, x = Stack().eval(), torch.randn(2, 6, 32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        plain = model(x)
        seen, output = recorded(model, x)
    assert torch.equal(plain, output)
    assert seen[0].weights.dtype == torch.float32
    torch.testing.assert_close(seen[0].weights.sum(-1), torch.ones(2, HEADS, 6), atol=1e-6, rtol=0)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_records_each_site_once(reentrant):
    class Saved(Stack):
        def forward(self, x):
            for layer in self.layers:
                x = checkpoint(layer, x, use_reentrant=reentrant)
            return x

    model, x = Saved(), torch.randn(2, 6, 32, requires_grad=True)
    with sightline.record(model) as seen:
        model(x).sum().backward()
    assert len(seen) == 3


def test_gradient_is_exact_and_one_backward_serves_all_sites():
    model = Stack().double()
    x = torch.randn(2, 6, 32, dtype=torch.float64)
    written = Stack(eager_mode=True).double()
    written.load_state_dict(model.state_dict())
    found = []
    for net in (model, written):
        seen, output = recorded(net, x, gradients=True)
        score = output[0, 0].sum()
        found.append([s.weight_gradient(score) for s in seen])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_gradients_need_to_be_asked_for_and_reachable():
    model, x = Stack(), torch.randn(2, 6, 32)
    seen, output = recorded(model, x)
    with pytest.raises(ValueError, match="gradients=True"):
        seen[0].weight_gradient(output.sum())
    with torch.no_grad():
        seen, _ = recorded(model, x, gradients=True)
    with pytest.raises(ValueError, match=r"no_grad|gradients on"):
        seen[0].weight_gradient(model(x).sum())


def test_rows_heads_and_sites_are_chosen():
    model, x = Stack().eval(), torch.randn(2, 6, 32)
    full, _ = recorded(model, x)
    w = full[1].weights
    for queries, rows in [(sightline.CLS, [0]), (sightline.LAST, [5]), (2, [2]), (-2, [4]), ([3, 1], [3, 1]),
                          (slice(0, 6, 2), [0, 2, 4]), (slice(4, 1, -1), [4, 3, 2]), (torch.tensor([1, 5]), [1, 5]),
                          (lambda site: [site.queries - 3], [3])]:  # fmt: skip
        seen, _ = recorded(model, x, queries=queries, sites="layers.[12]*", heads=[2, 0])
        assert [s.path for s in seen] == ["layers.1", "layers.2"]
        assert seen[0].query_index.tolist() == rows
        torch.testing.assert_close(seen[0].weights, w[:, [2, 0]][:, :, rows], atol=1e-6, rtol=0)
    seen, _ = recorded(model, x, sites=["*", "!layers.0"])
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("choice", "message"),
    [({"queries": 6}, "queries 0 to 5"), ({"queries": "cls"}, "a function of a site"), ({"heads": [4]}, "heads 0 to 3"),
     ({"limit": 0}, "above 0"), ({"limit": 100}, "limit=100 "), ({"limit": 1000, "queries": None}, "CLS"),
     ({"queries": []}, r"queries=\[\] names no row"), ({"queries": torch.tensor([])}, "names no row"),
     ({"queries": range(0)}, "names no row")],
)  # fmt: skip
def test_bad_choices_are_refused(choice, message):
    with pytest.raises(ValueError, match=message):
        recorded(Stack(), torch.randn(2, 6, 32), **choice)


def test_limit_counts_what_is_kept_and_weights_are_computed_on_access():
    model, x = Stack(1).eval(), torch.randn(1, 500, 32)
    seen, _ = recorded(model, x, limit=200_000)
    site = seen[0]
    assert site.bytes == 2 * 500 * 32 * 4  # query and key, not 4 x 500 x 500 weights
    with pytest.raises(ValueError, match="blocks"):
        _ = site.weights
    row = site.row(17)
    blocks = torch.cat([block for _, block in site.blocks(64)], 2)
    torch.testing.assert_close(blocks[:, :, 17], row, atol=1e-7, rtol=0)
    seen, _ = recorded(model, x, queries=sightline.CLS, limit=10_000)
    assert seen[0].bytes == 500 * 4 * HEADS
    torch.testing.assert_close(seen[0].weights[:, :, 0], blocks[:, :, 0], atol=1e-6, rtol=0)


def test_kept_operands_do_not_follow_a_cache_that_is_overwritten():
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.cache = torch.zeros(1, HEADS, 300, WIDTH)

        def forward(self, x):
            self.cache.copy_(x)
            return F.scaled_dot_product_attention(self.cache, self.cache, self.cache)

    model, x = Cached(), torch.randn(1, HEADS, 300, WIDTH)
    seen, _ = recorded(model, x)
    model(torch.zeros_like(x))
    torch.testing.assert_close(seen[0].weights, eager(x, x, x)[0], atol=1e-6, rtol=0)


class Reused(nn.Module):
    """Attends from buffers that it overwrites at once, as hand-written inference code does."""

    def __init__(self):
        super().__init__()
        self.keys = []

    def forward(self, query, key, value, mask):
        query, key, mask = query.clone(), key.clone(), mask.clone()
        self.keys.append(weakref.ref(key))
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=0.3)
        for buffer in (query, key, mask):
            buffer.zero_()
        return output


@pytest.mark.parametrize("queries", [0, None])
@pytest.mark.parametrize("inference", [False, True])
def test_what_is_overwritten_after_the_call_is_recorded_as_it_was(queries, inference, monkeypatch):
    monkeypatch.setattr(deferred, "EVERYWHERE", False)
    query, key, value = operands(queries=40, keys=40)
    mask = torch.where(torch.rand(40, 40) > 0.5, 0.0, -2.0)
    model = Reused()
    with torch.inference_mode(inference), sightline.record(model, queries=queries) as seen:
        for _ in range(2):
            model(query, key, value, mask)
        gc.collect()
        assert not any(key() is not None for key in model.keys)  # O(rows x keys): the keys themselves are let go
    weights, _ = eager(query, key, value, mask, scale=0.3)
    for site in seen:
        torch.testing.assert_close(site.weights, weights[:, :, :1] if queries == 0 else weights, atol=1e-6, rtol=0)
        assert site.calls[0].nbytes() == site.weights.numel() * 4 or queries is None


class FeedForward(nn.Module):
    """Named as something that never attends; it does."""

    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x)


def test_attention_in_a_part_of_another_name_belongs_to_the_module_around_it():
    inner = nn.ModuleDict({"layers": nn.ModuleList([nn.Sequential(FeedForward())])})
    model = nn.ModuleDict({"tower": inner})
    model.forward = lambda x: inner["layers"][0](x)
    x = torch.randn(2, HEADS, 5, WIDTH)
    seen, _ = recorded(model, x)
    assert [site.path for site in seen] == ["tower.layers.0"]
    torch.testing.assert_close(seen[0].weights, eager(x, x, x)[0], atol=1e-6, rtol=0)


def test_survey_tells_costs_and_holds_nothing():
    model, x = Stack().eval(), torch.randn(2, 300, 32)
    survey = sightline.survey(model, x)
    assert len(survey) == 3
    assert [s.path for s in survey] == ["layers.0", "layers.1", "layers.2"]
    assert survey.costs()["row"] == 3 * 2 * HEADS * 300 * 4
    assert survey.costs()["matrices"] == 3 * 2 * HEADS * 300 * 300 * 4
    assert sum(s.bytes for s in survey) == 0
    kept, _ = recorded(model, x)
    assert kept.bytes == survey.costs()["all rows"]
    assert "300 x 300" in str(survey)


def test_model_is_left_as_it_was():
    model, x = Stack().eval(), torch.randn(2, 6, 32)
    recorded(model, x)
    with pytest.raises(ZeroDivisionError), sightline.record(model):
        raise ZeroDivisionError
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert not observe._listeners


def test_nested_recordings_both_see():
    model, x = Stack(2).eval(), torch.randn(2, 6, 32)
    with sightline.record(model) as outer, sightline.record(model, queries=sightline.CLS) as inner:
        model(x)
    assert len(outer) == len(inner) == 2
    assert torch.allclose(outer[0].weights[:, :, :1], inner[0].weights, atol=1e-6)


def test_a_mechanism_of_ones_own_reports_itself():
    class Additive(nn.Module):
        def forward(self, x):
            weights = torch.rand(2, 1, 3, 5)
            observe.report(weights / weights.sum(-1, keepdim=True), kind="cross", name="align")
            return x

    seen, _ = recorded(Additive(), torch.randn(2, 5))
    assert (seen[0].source, seen[0].kind, seen[0].path) == ("observe", "cross", "align")
    assert seen[0].weights.shape == (2, 1, 3, 5)


def test_a_query_shared_by_two_attentions_is_not_two_windows():
    class Decoupled(nn.Module):  # as an image prompt beside a text prompt
        def forward(self, q, k, v):
            return F.scaled_dot_product_attention(q, k, v) + F.scaled_dot_product_attention(q, k[:, :, :3], v[:, :, :3])

    class Differential(nn.Module):  # two halves of the width
        def forward(self, q, k, v):
            halves = zip(q.chunk(2, -1), k.chunk(2, -1), strict=True)
            one, two = (F.scaled_dot_product_attention(a, b, v) for a, b in halves)
            return one - two

    for model, shapes in ((Decoupled(), [(9, 7), (9, 3)]), (Differential(), [(9, 7), (9, 7)])):
        seen, _ = recorded(model, *operands(queries=9, keys=7))
        assert [(s.queries, s.keys) for s in seen] == shapes


def test_queries_in_chunks_over_the_same_keys_are_not_windows():
    class Chunked(nn.Module):
        def forward(self, q, k, v):
            return torch.cat([F.scaled_dot_product_attention(part, k, v) for part in q.split(4, 2)], 2)

    q, k, v = operands(queries=12, keys=7)
    seen, _ = recorded(Chunked(), q, k, v)
    assert [(s.queries, s.keys) for s in seen] == [(4, 7)] * 3
    torch.testing.assert_close(torch.cat([s.weights for s in seen], 2), eager(q, k, v)[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("need_weights", [False, True])
def test_multihead_attention_below_other_modes(need_weights):
    module, x = nn.MultiheadAttention(32, HEADS, batch_first=True).eval(), torch.randn(2, 5, 32)
    with torch.no_grad():
        _, weights = module(x, x, x, average_attn_weights=False)
        with torch.device("cpu"), sightline.record(module) as outer, sightline.record(module) as inner:
            module(x, x, x, need_weights=need_weights)
    for seen in (outer, inner):
        assert len(seen) == 1
        torch.testing.assert_close(seen[0].weights, weights, atol=1e-6, rtol=0)


def test_query_that_broadcasts_over_the_batch():
    query, key, value = operands(batch=3)
    seen, _ = recorded(Attend(), query[:1], key, value)
    torch.testing.assert_close(
        seen[0].weights, eager(query[:1].expand(3, -1, -1, -1), key, value)[0], atol=1e-6, rtol=0
    )


def test_masks_are_counted_copied_and_shared(monkeypatch):
    monkeypatch.setattr(deferred, "EVERYWHERE", False)

    class Biased(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.randn(1, HEADS, 300, 300)

        def forward(self, x):
            for _ in range(2):
                x = F.scaled_dot_product_attention(x, x, x, attn_mask=self.bias)
            self.bias.zero_()
            return x

    class Padded(nn.Module):
        def forward(self, x, mask):
            for _ in range(4):
                x = F.scaled_dot_product_attention(x, x, x, attn_mask=mask)
            return x

    model, x = Biased(), torch.randn(1, HEADS, 300, WIDTH)
    bias = model.bias.clone()
    seen, _ = recorded(model, x)
    torch.testing.assert_close(seen[0].weights, eager(x, x, x, mask=bias)[0], atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="limit"):
        recorded(Biased(), x, limit=200_000)
    seen, _ = recorded(Padded(), x, torch.ones(1, 1, 300, 300, dtype=torch.bool))
    operands_alone = 4 * 2 * HEADS * 300 * WIDTH * 4
    assert seen.bytes == operands_alone + 300 * 300  # one copy for four layers


def test_softmax_before_values_on_the_left():
    class ValueFirst(nn.Module):
        def forward(self, q, k, v):
            weights = (q @ k.transpose(1, 2)).softmax(-1)
            return torch.bmm(v.transpose(1, 2), weights.permute(0, 2, 1))

    q, k, v = (torch.randn(2, n, 8) for n in (5, 7, 7))
    seen, _ = recorded(ValueFirst(), q, k, v)
    torch.testing.assert_close(seen[0].weights[:, 0], (q @ k.transpose(1, 2)).softmax(-1), atol=1e-6, rtol=0)


def test_an_attention_softmax_that_is_not_followed_is_told():
    class OddAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.Sequential(Block(), Odd())

        def forward(self, x):
            return self.attention(x)

    class Odd(nn.Module):
        def forward(self, x):
            return (x.unsqueeze(1) * (x @ x.transpose(1, 2)).softmax(-1).unsqueeze(-1)).sum(2)

    with pytest.warns(UserWarning, match="not recognised"):
        recorded(OddAttention(), torch.randn(2, 6, 32))


def test_part_called_twice_is_two_passes():
    model = nn.ModuleDict({"body": Stack(2)})
    with sightline.record(model) as seen:
        model["body"](torch.randn(2, 6, 32))
        model["body"](torch.randn(2, 6, 32))
    assert [len(p) for p in seen.passes] == [2, 2]


def test_each_pass_is_placed_on_its_own_picture():
    model = transformers.ViTModel(
        transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                               image_size=32, patch_size=8)
    ).eval()  # fmt: skip
    with torch.no_grad(), sightline.record(model) as seen:
        model(torch.randn(1, 3, 32, 64), interpolate_pos_encoding=True)
        model(torch.randn(1, 3, 64, 32), interpolate_pos_encoding=True)
    assert [(s.grid.height, s.grid.width) for s in seen] == [(4, 8), (8, 4)]
    with pytest.raises(ValueError, match="ran 2 times"):
        seen.overlay()


def test_survey_and_recording_let_go_of_inputs_and_caches():
    config = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    model = transformers.GPT2LMHeadModel(config).eval()
    with sightline.record(model, queries=sightline.LAST) as seen:
        model.generate(torch.randint(0, 50, (1, 5)), max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert not any("past" in name for name in seen.inputs)
    x = torch.randn(2, 6, 32)
    still = weakref.ref(x)
    survey = sightline.survey(Stack(1), x)
    del x
    gc.collect()
    assert still() is None
    assert len(survey) == 1


def test_survey_leaves_statistics_and_modes_alone():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.block, self.frozen = nn.BatchNorm1d(6), Block(), nn.BatchNorm1d(6).eval()

        def forward(self, x):
            return self.block(self.frozen(self.norm(x)))

    model = Normed().train()
    model.frozen.eval()
    sightline.survey(model, torch.randn(2, 6, 32) + 3)
    assert model.norm.running_mean.abs().max() == 0
    assert (model.norm.training, model.frozen.training) == (True, False)


def test_beam_search_is_told():
    config = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    model = transformers.GPT2LMHeadModel(config).eval()
    ids = torch.randint(0, 50, (1, 5))
    with pytest.warns(UserWarning, match="beam search"), sightline.record(model) as seen:
        model.generate(ids, max_new_tokens=4, num_beams=3, do_sample=False, pad_token_id=0)
    assert len(seen) == 1


def test_rows_of_a_generation_count_through_the_whole_sequence():
    config = transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    model, ids = transformers.GPT2LMHeadModel(config).eval(), torch.randint(0, 50, (1, 5))
    for queries, rows in (([6], [6]), (slice(4, 7), [4, 5, 6]), (None, list(range(8)))):
        with sightline.record(model, queries=queries) as seen:
            model.generate(ids, min_new_tokens=4, max_new_tokens=4, do_sample=False, pad_token_id=0)
        assert seen[0].query_index.tolist() == rows


def test_limit_holds_with_gradients():
    with pytest.raises(ValueError, match="limit=5,000"):
        recorded(Stack(), torch.randn(2, 6, 32), queries=sightline.CLS, gradients=True, limit=5000)


def test_a_mechanism_that_reports_and_multiplies_is_one_site():
    class Additive(nn.Module):
        def __init__(self, late):
            super().__init__()
            self.late = late

        def forward(self, x):
            weights = (x @ x.transpose(1, 2)).softmax(-1)
            if not self.late:
                observe.report(weights[:, None])
            out = weights @ x
            if self.late:
                observe.report(weights[:, None])
            return out

    for late in (False, True):
        seen, _ = recorded(nn.Sequential(Additive(late)), torch.randn(2, 5, 8))
        assert [s.source for s in seen] == ["observe"]


def test_learned_sinks_and_soft_codebooks():
    class Sinks(nn.Module):
        def forward(self, q, k, v):
            scores = torch.cat([q @ k.transpose(-2, -1), torch.ones(*q.shape[:-1], 1)], -1)
            return scores.softmax(-1)[..., :-1] @ v

    seen, _ = recorded(Sinks(), *operands())
    assert seen[0].keys == 7
    assert seen[0].weights.sum(-1).max() < 1

    class Codebook(nn.Module):
        def __init__(self):
            super().__init__()
            self.block, self.codes = Block(), nn.Parameter(torch.randn(9, 32))

        def forward(self, x):
            return (self.block(x) @ self.codes.T).softmax(-1) @ self.codes

    seen, _ = recorded(Codebook(), torch.randn(2, 6, 32))
    assert [s.path for s in seen] == ["block"]


def test_another_thread_may_use_the_model_meanwhile():
    model, x, errors, done = Stack(2).eval(), torch.randn(2, 6, 32), [], threading.Event()

    def serve():
        while not done.is_set():
            try:
                model(x)
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
                errors.append(error)

    worker = threading.Thread(target=serve)
    worker.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(100):
            seen, _ = recorded(model, x)
            assert len(seen) == 2
    done.set()
    worker.join()
    assert not errors


def test_threads_that_each_record_the_same_model_are_not_warned_of_each_other():
    model, x = Stack(2).eval(), torch.randn(2, 6, 32)
    barrier, lengths, told = threading.Barrier(2, timeout=60), [], []

    def work():
        with sightline.record(model) as seen:
            barrier.wait()  # both recordings are under way
            model(x)
            barrier.wait()
        lengths.append(len(seen))
        told.append(seen.other_thread)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == [2, 2]
    assert told == [False, False]


def test_a_part_in_another_thread_is_told():
    class Threaded(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = Block(), Block()

        def forward(self, x):
            worker = threading.Thread(target=self.two, args=(x,))
            worker.start()
            worker.join()
            return self.one(x)

    with pytest.warns(UserWarning, match="other threads"):
        recorded(Threaded(), torch.randn(2, 6, 32))


def test_several_passes_are_kept_apart():
    model, x = Stack(2).eval(), torch.randn(2, 6, 32)
    with sightline.record(model) as seen:
        model(x)
        model(x[:, :4])
    assert [len(p) for p in seen.passes] == [2, 2]
    assert [s.keys for s in seen] == [6, 6, 4, 4]
    with pytest.raises(ValueError, match="ran 2 times"):
        seen.rollout()


def test_a_shared_module_called_twice_gives_two_sites():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def forward(self, x):
            return self.block(self.block(x))

    seen, _ = recorded(Shared(), torch.randn(2, 6, 32))
    assert [s.name for s in seen] == ["block", "block#2"]


def test_windows_cut_from_one_tensor_are_one_site():
    class Windowed(nn.Module):
        def forward(self, q, k, v):
            parts = zip(*(t.split([3, 4], dim=2) for t in (q, k, v)), strict=True)
            return torch.cat([F.scaled_dot_product_attention(*p) for p in parts], 2)

    q, k, v = operands(queries=7, keys=7)
    seen, _ = recorded(Windowed(), q, k, v)
    assert (len(seen), seen[0].queries, seen[0].keys) == (1, 7, 7)
    mask = torch.block_diag(torch.ones(3, 3), torch.ones(4, 4)).bool()
    torch.testing.assert_close(seen[0].weights, eager(q, k, v, mask=mask)[0], atol=1e-6, rtol=0)
    one, _ = recorded(Windowed(), q, k, v, queries=[1, 5])
    assert one[0].query_index.tolist() == [1, 5]
    torch.testing.assert_close(one[0].weights, seen[0].weights[:, :, [1, 5]], atol=1e-6, rtol=0)


def test_the_items_of_a_batch_one_by_one_are_not_windows():
    class OneByOne(Block):
        def forward(self, x):
            parts = []
            q, k, v = self.qkv(x).unflatten(-1, (3, HEADS, WIDTH)).unbind(2)
            for item in range(len(x)):  # each begins in memory where the one before ended
                one = (t[item].transpose(0, 1)[None] for t in (q, k, v))
                parts.append(F.scaled_dot_product_attention(*one).transpose(1, 2).flatten(2))
            return x + self.out(torch.cat(parts))

    looped, x = OneByOne(), torch.randn(3, 5, 32)
    whole = Block()
    whole.load_state_dict(looped.state_dict())
    seen, _ = recorded(looped, x, queries=[0, 4])
    at_once, _ = recorded(whole, x, queries=[0, 4])
    assert [(s.queries, s.keys, s.rows) for s in seen] == [(5, 5, 2)] * 3
    torch.testing.assert_close(torch.cat([s.weights for s in seen]), at_once[0].weights, atol=1e-6, rtol=0)


# -- nothing seen is an error that says why --------------------------------------------------------------------------


def test_no_attention_at_all():
    with pytest.raises(RuntimeError, match="made no scaled_dot_product_attention"):
        recorded(nn.Linear(4, 4), torch.randn(2, 4))


def test_model_not_called():
    with pytest.raises(RuntimeError, match="was not called inside"), sightline.record(Stack()):
        pass


def test_sites_match_nothing():
    with pytest.raises(RuntimeError, match=r"matches none of the 3 sites .* layers\.0"):
        recorded(Stack(), torch.randn(2, 6, 32), sites="blocks.*")


def test_another_thread_is_told():
    model, x = Stack(), torch.randn(2, 6, 32)
    worker = threading.Thread(target=model, args=(x,))

    def run():
        with sightline.record(model):
            worker.start()
            worker.join()

    with pytest.raises(RuntimeError, match="another thread"):
        run()


def test_torchscript_is_told():
    x = torch.randn(2, 6, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(Stack(2).eval(), x)
    with pytest.raises(RuntimeError, match="TorchScript"):
        recorded(traced, x)


def test_not_a_module():
    with pytest.raises(Exception, match=r"nn\.Module|torch\.nn\.modules"), sightline.record(lambda x: x):
        pass


def test_reading_too_early():
    model = Stack(1)
    with sightline.record(model) as seen:
        model(torch.randn(2, 6, 32))
        with pytest.raises(RuntimeError, match="read it after"):
            _ = seen[0]
    assert len(seen) == 1


def test_flash_attention_operator_is_refused_by_name():
    @torch.library.custom_op("sightline_test::flash_attn_forward", mutates_args=())
    def flash_attn_forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.softmax(q @ k.transpose(-2, -1), -1) @ v

    with pytest.raises(RuntimeError, match=r"flash_attn_forward.*sdpa"):
        recorded(Attend(torch.ops.sightline_test.flash_attn_forward), *operands())


@pytest.mark.filterwarnings("ignore")
def test_flex_attention_is_refused_by_name():
    class Flex(nn.Module):
        def forward(self, q, k, v):
            return flex_attention(q, k, v)

    with pytest.raises(RuntimeError, match=r"flex_attention hides its operands.*sdpa"):
        recorded(Flex(), *(torch.randn(1, 2, 16, 16) for _ in range(3)))


@pytest.mark.parametrize("choice", [{"sites": [0, -1]}, {"sites": 3}, {"queries": 1.5}, {"queries": ["cls"]}])
def test_choices_of_another_kind_are_refused_at_once(choice):
    told = "numbers choose afterwards" if "sites" in choice else "give sightline.CLS"
    with pytest.raises(ValueError, match=told), sightline.record(Stack(1).eval(), **choice):
        pass
