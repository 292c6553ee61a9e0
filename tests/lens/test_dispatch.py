"""Calls seen in the dispatcher: however they are made, as the mode sees them, and nothing is left behind."""

import functools
import subprocess
import sys
import threading
import types
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import scaled_dot_product_attention as imported_early
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

import sightline
from sightline.lens import dispatch
from sightline.lens.intercept import Interceptor
from sightline.lens.key import KEY

HEADS, WIDTH = 4, 8


@pytest.fixture
def torch_calls(monkeypatch):
    """Names of the torch functions that the mode was handed."""
    names, plain = [], Interceptor.__torch_function__

    def counted(self, func, types, args=(), kwargs=None):
        names.append(func.__name__)
        return plain(self, func, types, args, kwargs)

    monkeypatch.setattr(Interceptor, "__torch_function__", counted)
    return names


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    assert not torch._C._dispatch_tls_is_dispatch_key_included(KEY)
    assert not torch.overrides._get_current_function_mode_stack()
    assert not dispatch._recording


class Attend(nn.Module):
    """Whatever function of (query, key, value) the test gives."""

    def __init__(self, call):
        super().__init__()
        self.call, self.named = call, nn.ModuleDict()

    def forward(self, query, key, value):
        return self.call(query, key, value)


class Wrapped(nn.Module):
    def __init__(self, part, deep=True):
        super().__init__()
        self.attn = part

    def forward(self, *inputs):
        return self.attn(*inputs) + 0


def operands(queries=5, keys=7):
    return [torch.randn(2, HEADS, n, WIDTH) for n in (queries, keys, keys)]


def recorded(model, *inputs, call=None, **choices):
    with sightline.record(model, **choices) as seen:
        output = model(*inputs, **(call or {}))
    return seen, output


def reference(query, key):
    return (query @ key.transpose(-2, -1) * WIDTH**-0.5).softmax(-1)


def imported_while_running(query, key, value):
    module = types.ModuleType("made_while_running")
    exec("from torch.nn.functional import scaled_dot_product_attention as sdpa", module.__dict__)
    return module.sdpa(query, key, value)


def closure(held):
    return lambda query, key, value: held(query, key, value)


def defaulted(query, key, value, held=F.scaled_dot_product_attention):
    return held(query, key, value)


@torch.jit.script
def scripted(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(query, key, value)


FUSED = {
    "attribute": lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
    "imported early": imported_early,
    "imported while running": imported_while_running,
    "closure": closure(F.scaled_dot_product_attention),
    "default argument": defaulted,
    "partial": functools.partial(F.scaled_dot_product_attention, is_causal=False),
    "below F": torch._C._nn.scaled_dot_product_attention,
    "operator": torch.ops.aten.scaled_dot_product_attention,
    "overload": torch.ops.aten.scaled_dot_product_attention.default,
    "script": scripted,
    "torch functions switched off": lambda *qkv: switched_off(*qkv),
}


def switched_off(query, key, value):
    with torch._C.DisableTorchFunction():
        return F.scaled_dot_product_attention(query, key, value)


@pytest.mark.parametrize("form", FUSED)
def test_fused_attention_is_seen_however_it_is_called(form, torch_calls):
    query, key, value = operands()
    plain = FUSED[form](query, key, value)
    seen, output = recorded(Attend(FUSED[form]), query, key, value)
    torch.testing.assert_close(seen[0].weights, reference(query, key), atol=1e-6, rtol=0)
    assert torch.equal(output, plain)
    assert not torch_calls


SOFTMAX = {
    "torch": torch.softmax,
    "F": F.softmax,
    "method": lambda s, dim: s.softmax(dim),
    "method of the class": torch.Tensor.softmax,
    "method of the base": torch._C.TensorBase.softmax,
    "module": lambda s, dim: nn.Softmax(dim)(s),
    "partial": functools.partial(torch.softmax, dim=-1),
    "below": lambda s, dim: torch._softmax(s, dim, False),
    "overload": torch.ops.aten.softmax.int,
    "into": lambda s, dim: torch.softmax(s, dim, out=torch.empty_like(s)),
    "last axis counted from the front": lambda s, dim: torch.softmax(s, 3),
}


@pytest.mark.parametrize("form", SOFTMAX)
def test_softmax_is_followed_to_its_product_however_it_is_called(form, torch_calls):
    ups = []

    def written(query, key, value):
        scores = query @ key.transpose(-2, -1) * WIDTH**-0.5
        weights = SOFTMAX[form](scores, **({} if form == "partial" else {"dim": -1}))
        ups.append(len(torch.overrides._get_current_function_mode_stack()))
        return F.dropout(weights, 0.0) @ value

    inputs = operands()
    plain = written(*inputs)
    model = Wrapped(Attend(written))
    seen, output = recorded(model, *inputs)
    assert [(s.path, s.source) for s in seen] == [("attn", "softmax")]
    torch.testing.assert_close(seen[0].weights, reference(*inputs[:2]), atol=1e-6, rtol=0)
    assert torch.equal(output, plain + 0)
    assert ups == [0, 1]
    assert torch_calls == ["dropout", "matmul"], "not the scores before, nor what follows the module"


def test_a_softmax_within_a_function_of_torch_is_its_own_affair():
    class Choice(nn.Module):
        def __init__(self):
            super().__init__()
            self.attn = Attend(lambda q, k, v: F.gumbel_softmax(q @ k.transpose(-2, -1)) @ v)
            self.then = Attend(F.scaled_dot_product_attention)

        def forward(self, *inputs):
            return self.attn(*inputs) + self.then(*inputs)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen, _ = recorded(Choice(), *operands())
    assert [s.path for s in seen] == ["then"]


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("single", [False, True])
def test_functional_multihead_attention_tells_self_from_cross(need_weights, single, torch_calls):
    full = nn.MultiheadAttention(32, HEADS).eval()

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.full = full

        def forward(self, x, y):
            return F.multi_head_attention_forward(
                x, y, y, 32, HEADS, full.in_proj_weight, full.in_proj_bias, None, None, False, 0.0,
                full.out_proj.weight, full.out_proj.bias, training=False, need_weights=need_weights,
            )[0]  # fmt: skip

    shape = (6, 32) if single else (6, 2, 32)
    x, y = torch.randn(shape), torch.randn(shape)
    for other, kind in ((x, "self"), (y, "cross")):
        plain, weights = full(x, other, other, average_attn_weights=False)
        seen, output = recorded(Pooled(), x, other)
        assert [s.kind for s in seen] == [kind]
        assert seen[0].weights.shape == (1 if single else 2, HEADS, 6, 6)
        torch.testing.assert_close(seen[0].weights, weights[None] if single else weights, atol=1e-6, rtol=0)
        torch.testing.assert_close(output, plain, atol=1e-6, rtol=0)
    assert not torch_calls


# -- fast paths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padded", [False, True])
def test_fast_paths_are_seen_and_only_their_modules_are_below_the_mode(padded, torch_calls):
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(32, HEADS, 64, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2)
            self.single = nn.MultiheadAttention(32, HEADS, batch_first=True)
            self.plain = nn.Linear(32, 32)

        def forward(self, x, padding):
            x = torch.sin(self.plain(x))
            x = self.encoder(x, src_key_padding_mask=padding)
            x = torch.cos(x)
            return x + self.single(x, x, x, need_weights=False)[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, x, padding = Pair().eval(), torch.randn(2, 6, 32), torch.zeros(2, 6, dtype=torch.bool)
        padding[1, 4:] = padded
        with torch.no_grad():
            plain = model(x, padding)
            seen, output = recorded(model, x, padding)
    assert [s.path for s in seen] == ["encoder.layers.0.self_attn", "encoder.layers.1.self_attn", "single"]
    torch.testing.assert_close(output, plain, atol=1e-6, rtol=0)
    assert not {"sin", "cos"} & set(torch_calls)
    assert torch_calls.count("multi_head_attention_forward") == 3
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_fast_path_past_the_hooks_is_told():
    class Past(Wrapped):
        def forward(self, x):
            return self.attn.forward(x, x, x, need_weights=False)[0]

    model = Past(nn.MultiheadAttention(32, HEADS, batch_first=True)).eval()
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"_native_multi_head_attention.*hides its operands"):
        recorded(model, torch.randn(2, 6, 32))


# -- other modes, devices, threads, exceptions -------------------------------------------------------------------------


class Counting(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_modes_and_devices_come_and_go_while_ours_is_up():
    counting, devices = Counting(), []

    def written(query, key, value):
        with counting, torch.device("meta"):
            weights = torch.softmax(query @ key.transpose(-2, -1), -1)
            devices.append(torch.empty(1).device.type)
        devices.append(torch.empty(1).device.type)
        with torch.device("meta"):
            devices.append(torch.empty(1).device.type)
            output = weights @ value
        return output, torch.overrides._get_current_function_mode_stack()

    seen, (_, stack) = recorded(Attend(written), *operands())
    assert [s.source for s in seen] == ["softmax"]
    assert devices == ["meta", "cpu", "meta"]
    assert [type(mode) for mode in stack] == [Interceptor]
    assert "softmax" in counting.names


def test_a_default_device_needs_no_mode(torch_calls):
    with torch.device("cpu"):
        seen, _ = recorded(Attend(F.scaled_dot_product_attention), *operands())
        assert [type(mode).__name__ for mode in torch.overrides._get_current_function_mode_stack()] == ["DeviceContext"]
    assert len(seen) == 1
    assert not torch_calls


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["softmax", "fused", "fast path"])
def test_exceptions_leave_nothing_behind_and_the_next_recording_sees(error, where):
    def broken(query, key, value):
        if where == "softmax":
            torch.softmax(query, -1)
        elif where == "fused":
            F.scaled_dot_product_attention(query, key, value)
        raise error("stop")

    class Holder(nn.MultiheadAttention):
        def forward(self, *inputs):
            return broken(*inputs)

    model = Wrapped(Holder(32, HEADS, batch_first=True) if where == "fast path" else Attend(broken)).eval()
    with pytest.raises(error, match="stop"):
        recorded(model, *operands())
    seen, _ = recorded(Attend(F.scaled_dot_product_attention), *operands())
    assert len(seen) == 1


def test_a_pass_that_failed_does_not_keep_the_mode_up(torch_calls):
    class Fails(nn.MultiheadAttention):
        def forward(self, *inputs):
            raise ValueError("stop")

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.bad, self.good = Fails(32, HEADS, batch_first=True), Attend(F.scaled_dot_product_attention)

        def forward(self, bad, *inputs):
            return self.bad(*inputs) if bad else self.good(*inputs)

    model, inputs = Twice().eval(), operands()
    with sightline.record(model) as seen:
        with pytest.raises(ValueError, match="stop"):
            model(True, *inputs)
        model(False, *inputs)
    assert [s.path for s in seen] == ["good"]
    assert not torch_calls


def test_an_error_of_the_lens_is_what_it_is():
    with pytest.raises(ValueError, match="limit"):
        recorded(Attend(F.scaled_dot_product_attention), *operands(), limit=8)


def test_a_recording_in_a_generator_ends_with_it():
    model, inputs = Attend(F.scaled_dot_product_attention), operands()

    def steps():
        with sightline.record(model) as seen:
            while True:
                yield model(*inputs), seen

    running = steps()
    next(running)
    _, seen = next(running)
    running.close()
    assert len(seen) == 0  # GeneratorExit is an exception: a recording that was left so is not filled
    assert not torch._C._dispatch_tls_is_dispatch_key_included(KEY)


def test_a_generator_closed_in_another_thread_leaves_this_one_usable():
    model, inputs = Attend(F.scaled_dot_product_attention), operands()

    def steps():
        with sightline.record(model):
            yield model(*inputs)

    running = steps()
    next(running)
    worker = threading.Thread(target=running.close)
    worker.start()
    worker.join()
    assert torch.equal(model(*inputs), F.scaled_dot_product_attention(*inputs))
    seen, _ = recorded(model, *inputs)
    assert len(seen) == 1


def test_two_threads_record_at_once_and_a_third_is_left_alone():
    barrier, lengths, modes = threading.Barrier(3, timeout=60), {}, []

    def run(name, depth, record):
        model = nn.Sequential(*[Wrapped(Attend(lambda q, k, v: F.scaled_dot_product_attention(q, k, v)))])
        inputs = operands()

        def work():
            for _ in range(depth):
                barrier.wait()
                model[0](*inputs)
            modes.append(torch._C._dispatch_tls_is_dispatch_key_included(KEY))

        if not record:
            work()
            return
        with sightline.record(model) as seen:
            work()
        lengths[name] = len(seen)

    threads = [threading.Thread(target=run, args=a) for a in (("one", 3, True), ("two", 3, True), ("three", 3, False))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == {"one": 3, "two": 3}
    assert sorted(modes) == [False, True, True]


# -- what lies beside a pass -------------------------------------------------------------------------------------------


def test_the_lens_does_not_see_itself():
    model, inputs = Attend(F.scaled_dot_product_attention), operands(60, 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with sightline.record(model) as outer:
            with sightline.record(model) as inner:
                model(*inputs)
            made = inner[0].weights  # a softmax over the last of four axes, with products around
            _ = made @ inputs[2]
    assert [len(outer), len(inner)] == [1, 1]
    torch.testing.assert_close(outer[0].weights, made, atol=0, rtol=0)


def test_operations_are_counted_as_without_recording():
    model, inputs = (
        Attend(lambda q, k, v: F.scaled_dot_product_attention(q @ q.transpose(-2, -1) @ q, k, v)),
        operands(),
    )
    with FlopCounterMode(display=False) as plain:
        model(*inputs)
    with FlopCounterMode(display=False) as counted:
        seen, _ = recorded(model, *inputs, queries=slice(0, 0))
    assert counted.get_total_flops() == plain.get_total_flops() > 0
    assert len(seen) == 1


@pytest.mark.parametrize("name", ["plain_operator", "flash_attn_toy"])
def test_operators_made_meanwhile_run_and_are_told_where_they_might_be_attention(name):
    def make(query, key, value):
        @torch.library.custom_op(f"sightline_dispatch::{name}", mutates_args=())
        def operator(q: torch.Tensor) -> torch.Tensor:
            return q * 2

        return F.scaled_dot_product_attention(operator(query), key, value)

    inputs = operands()
    try:
        if "flash" in name:
            with pytest.warns(UserWarning, match=r"flash_attn_toy \(defined during the recording\)"):
                seen, _ = recorded(Attend(make), *inputs)
        else:
            seen, _ = recorded(Attend(make), *inputs)
        torch.testing.assert_close(seen[0].weights, reference(inputs[0] * 2, inputs[1]), atol=1e-6, rtol=0)
    finally:
        delattr(torch.ops.sightline_dispatch, name)


def test_operators_of_other_people_are_told_without_the_mode(torch_calls):
    @torch.library.custom_op("sightline_dispatch::flash_attn_other", mutates_args=())
    def operator(q: torch.Tensor) -> torch.Tensor:
        return q * 2

    def call(query, key, value):
        return F.scaled_dot_product_attention(torch.ops.sightline_dispatch.flash_attn_other(query), key, value)

    inputs = operands()
    torch.ops.sightline_dispatch.flash_attn_other(inputs[0])  # Python has reached it
    torch_calls.clear()
    with pytest.warns(UserWarning, match=r"hides its operands: flash_attn_other"):
        seen, _ = recorded(Attend(call), *inputs)
    torch.testing.assert_close(seen[0].weights, reference(inputs[0] * 2, inputs[1]), atol=1e-6, rtol=0)
    assert not torch_calls
    with pytest.raises(RuntimeError, match="flash_attn_other"):
        recorded(Attend(lambda query, key, value: operator(query)), *inputs)


@pytest.mark.filterwarnings("ignore")
def test_what_is_compiled_meanwhile_is_told_and_seen_the_next_time():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.attn, self.made = Attend(imported_early), Attend(imported_early), None

        def forward(self, *inputs):
            self.made = torch.compile(self.attn, backend="aot_eager") if self.made is None else self.made
            return self.first(*inputs) + self.made(*inputs)

    torch._dynamo.reset()
    model, inputs = Lazy(), operands()
    with pytest.warns(UserWarning, match="compiled during the recording"):
        seen, output = recorded(model, *inputs)
    torch.testing.assert_close(output, 2 * F.scaled_dot_product_attention(*inputs))
    assert seen[0].path == "first"
    seen, _ = recorded(model, *inputs)
    assert [s.path.removesuffix("._orig_mod") for s in seen] in (["first", "attn"], ["first", "made"])


# -- the mode where the dispatcher is not enough -----------------------------------------------------------------------


def test_the_mode_serves_what_the_dispatcher_would_not_show(torch_calls, monkeypatch):
    model, inputs = Attend(F.scaled_dot_product_attention), operands()

    def by_the_mode():
        torch_calls.clear()
        seen, _ = recorded(model, *inputs)
        torch.testing.assert_close(seen[0].weights, reference(*inputs[:2]), atol=1e-6, rtol=0)
        return "scaled_dot_product_attention" in torch_calls

    assert not by_the_mode()
    with Counting():
        assert by_the_mode()
    with sightline.record(model) as outer:
        assert by_the_mode()
    assert len(outer) == 1
    assert not by_the_mode()
    with monkeypatch.context() as patch:
        patch.setattr(dispatch, "MODE_ALWAYS", True)
        assert by_the_mode()
    torch.compile(lambda x: x, backend="eager")
    assert by_the_mode()


def test_another_owner_of_the_key_is_respected(monkeypatch):
    monkeypatch.setattr(dispatch, "_kernels", [])  # this process's own kernels are the other owner's
    assert not dispatch._prepare()
    seen, _ = recorded(Attend(F.scaled_dot_product_attention), *operands())
    assert len(seen) == 1


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_generation_with_a_cache_is_the_same_both_ways(attention, monkeypatch):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation=attention,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    words = torch.randint(0, 50, (2, 6))
    both = []
    for always in (False, True):
        monkeypatch.setattr(dispatch, "MODE_ALWAYS", always)
        with sightline.record(model) as seen:
            written = model.generate(words, max_new_tokens=4, do_sample=False, pad_token_id=0)
        both.append((seen, written))
    (below, first), (above, second) = both
    assert torch.equal(first, second)
    assert [s.name for s in below] == [s.name for s in above]
    for one, other in zip(below, above, strict=True):
        torch.testing.assert_close(one.weights, other.weights, atol=0, rtol=0)


ABSENT = """
import sys, torch
import {where}
del {where}.{name}
import sightline
from sightline.lens import dispatch
assert not dispatch.KNOWN_TORCH
layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
with torch.inference_mode(), sightline.record(layer) as seen:
    layer(torch.randn(1, 3, 8))
print(tuple(seen[0].weights.shape))
"""


@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("torch._ops", "_HIGHER_ORDER_OP_DEFAULT_FALLTHROUGH_DISPATCH_KEYS"),
        ("torch._C", "_dispatch_key_parse"),
    ],
)
def test_a_torch_without_a_private_name_is_recorded_by_the_mode(where, name):
    done = subprocess.run(
        [sys.executable, "-c", ABSENT.format(where=where, name=name)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "(1, 2, 3, 3)\n", done.stderr
