"""The lens on a GPU: rows of its fused kernels, compiled models, generation, and what is made of the rows.

Skipped, with a message, where there is no GPU.  References are computed on the CPU, in double precision or by the lens
there, which the other files of this folder compare with eager code.
"""

import copy
import gc
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import tiny_models as tiny
import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from torch import Tensor, nn

import sightline
from sightline.lens import deferred
from sightline.lens.combine import sink_keys, without_sinks
from sightline.lens.products import products, products_of_many

DEVICE = "cuda"
HEADS, WIDTH = 4, 64
TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 1e-3}
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")


@pytest.fixture(autouse=True)
def exact_convolutions() -> Iterator[None]:
    """Leaves TensorFloat-32 out, in which cuDNN computes convolutions unless told: 1e-3 off what the CPU has."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


class Attend(nn.Module):
    """One fused call."""

    def __init__(self, **fixed: Any) -> None:
        super().__init__()
        self.fixed = fixed

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, **self.fixed)


class Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(dim), nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        return x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Stack(nn.Module):
    def __init__(self, depth: int = 3, dim: int = HEADS * WIDTH) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Block(dim) for _ in range(depth)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def reference(query: Tensor, key: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(width)) of the operands as they are, in double precision on the CPU."""
    query, key = query.detach().double().cpu(), key.detach().double().cpu()
    scores = query @ key.repeat_interleave(query.shape[1] // key.shape[1], 1).mT * query.shape[-1] ** -0.5
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask.cpu(), -torch.inf)
    return scores.softmax(-1).float()


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(found.detach().float().cpu(), expected.detach().float().cpu(), atol=tolerance, rtol=0)


def there(value: Any) -> Any:
    """Tensors within inputs on the GPU."""
    if isinstance(value, dict):
        return {name: there(one) for name, one in value.items()}
    return value.to(DEVICE) if isinstance(value, Tensor) else value


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("kind", ["plain", "mask", "causal", "grouped"])
@pytest.mark.parametrize("tokens", [37, 901, 3601])  # the softmax of long rows is another kernel, and done in place
def test_rows_of_fused_kernels_equal_eager_ones(dtype: torch.dtype, kind: str, tokens: int) -> None:
    torch.manual_seed(0)
    key_heads = HEADS // 2 if kind == "grouped" else HEADS
    query, key, value = (
        torch.randn(1, heads, tokens, WIDTH, device=DEVICE, dtype=dtype) for heads in (HEADS, key_heads, key_heads)
    )
    mask = torch.rand(tokens, tokens, device=DEVICE) > 0.3 if kind == "mask" else None
    model = Attend(attn_mask=mask, is_causal=kind == "causal", enable_gqa=kind == "grouped")
    expected = reference(query, key, mask, kind == "causal")
    plain = model(query, key, value)
    some = [0, tokens // 2, tokens - 1]
    with sightline.record(model, queries=some) as few:
        watched = model(query, key, value)
    with sightline.record(model) as every:
        model(query, key, value)
    assert torch.equal(watched, plain)
    assert few[0].weights.device.type == DEVICE
    close(few[0].weights, expected[:, :, some], TOLERANCE[dtype])
    for numbers, block in every[0].blocks(size=1024):
        close(block, expected[:, :, numbers], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_a_model_in_this_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x = Stack().to(DEVICE, dtype).eval(), torch.randn(2, 197, HEADS * WIDTH, device=DEVICE, dtype=dtype)
    projected: list[Tensor] = []
    hooks = [b.qkv.register_forward_hook(lambda _m, _a, output: projected.append(output)) for b in model.layers]
    with torch.no_grad(), sightline.record(model) as seen:
        model(x)
    for hook in hooks:
        hook.remove()
    assert len(seen) == 3
    for site, qkv in zip(seen, projected, strict=True):
        query, key, _ = qkv.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        close(site.weights, reference(query, key), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("queries", [None, sightline.CLS, sightline.LAST, slice(1, 4)], ids=str)
@pytest.mark.parametrize(("batch", "tokens"), [(1, 50), (3, 197), (8, 2049)])
def test_noted_or_looked_at_during_each_call_is_one(
    dtype: torch.dtype, queries: Any, batch: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    x = torch.randn(batch, tokens, HEADS * WIDTH, device=DEVICE, dtype=dtype)
    model = Stack(6).to(DEVICE, dtype).eval()
    found: list[list[Tensor]] = []
    for limit in (deferred.LIMIT, 0):
        monkeypatch.setattr(deferred, "LIMIT", limit)
        with torch.no_grad(), sightline.record(model, queries=queries, limit=2**33) as seen:
            model(x)
        assert len(seen) == 6
        found.append([next(site.blocks(size=64))[1] for site in seen])
    with torch.inference_mode(), sightline.record(model, queries=queries, limit=2**33) as seen:
        model(x)
    found.append([next(site.blocks(size=64))[1] for site in seen])
    for one, other, third in zip(*found, strict=True):
        close(one, other, 1e-5)
        close(third, other, 1e-5)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("side_by_side", [False, True])
@pytest.mark.parametrize("keys", [50, 3_000, 30_000])  # copied together, each by itself, not at all
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_products_are_sums_in_float32(
    groups: int, side_by_side: bool, keys: int, count: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    query = [torch.randn(2, HEADS, 5, WIDTH, device=DEVICE, dtype=dtype) for _ in range(3)]
    key = [torch.randn(2, keys, HEADS // groups, WIDTH, device=DEVICE, dtype=dtype).transpose(1, 2) for _ in range(3)]
    key = key if side_by_side else [one.contiguous() for one in key]
    many = torch.cat(products_of_many(query, key, 1, count))
    for q, k, found in zip(query, key, many, strict=True):
        rows = q[:, :, 1 : 1 + count]
        expected = (rows.double() @ k.double().repeat_interleave(groups, 1).mT).float()
        close(found, expected, 2e-5)
        close(products(rows, k), expected, 2e-5)
        close(products(rows, k, 0.125), expected / 8, 2e-5)
    key[0][0, 1] = torch.inf  # of one head alone
    found = torch.cat(products_of_many(query, key, 1, count))[0]
    assert found[0, 0].isfinite().all()
    assert found[1].isfinite().all()


def test_layers_in_another_stream_wait_for_nothing_wrong() -> None:
    class Aside(Block):
        def forward(self, x: Tensor) -> Tensor:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(20):
                    x = x + 0.01 * torch.tanh(x @ x.mT @ x) / len(x)
                x = super().forward(x)
            torch.cuda.current_stream().wait_stream(stream)
            return x

    torch.manual_seed(0)
    stream = torch.cuda.Stream()
    model = nn.Sequential(Block(HEADS * WIDTH), Aside(HEADS * WIDTH), Aside(HEADS * WIDTH), Block(HEADS * WIDTH))
    model, x = model.to(DEVICE).eval(), torch.randn(1, 901, HEADS * WIDTH, device=DEVICE)
    kept = []
    for gradients in (False, True):
        with torch.set_grad_enabled(gradients), sightline.record(model, gradients=gradients) as seen:
            model(x)
        kept.append([site.row(0).detach() for site in seen])
    for one, other in zip(*kept, strict=True):
        close(one, other, 1e-5)


def test_autocast_weights_are_computed_in_full_precision() -> None:
    torch.manual_seed(0)
    model, x = Stack(1).to(DEVICE), torch.randn(2, 50, HEADS * WIDTH, device=DEVICE)
    kept: list[Tensor] = []
    model.layers[0].qkv.register_forward_hook(lambda _m, _a, output: kept.append(output))
    with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16), sightline.record(model, queries=[0, 7]) as seen:
        model(x)
    query, key, _ = kept[0].unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    assert query.dtype == torch.bfloat16
    assert seen[0].weights.dtype == torch.float32
    close(seen[0].weights, reference(query, key)[:, :, [0, 7]], 1e-5)


@pytest.mark.parametrize("queries", [sightline.CLS, None])
def test_compiled_model_is_recorded_in_one_graph(queries: Any) -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()
    model, x = Stack().to(DEVICE).eval(), torch.randn(2, 197, HEADS * WIDTH, device=DEVICE)
    backend = "inductor" if shutil.which("gcc") or shutil.which("cc") else "aot_eager"  # Triton's launcher is C
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    with torch.no_grad():
        plain = compiled(x)
        with sightline.record(compiled, queries=queries) as seen:
            output = compiled(x)
        with sightline.record(model, queries=queries) as direct:
            model(x)
    close(output, plain)
    assert [site.path for site in seen] == [f"layers.{i}" for i in range(3)]
    for a, b in zip(seen, direct, strict=True):
        close(a.weights, b.weights)


@pytest.mark.parametrize("need_weights", [False, True])
def test_multihead_attention_is_exact_and_untouched(need_weights: bool) -> None:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(32, HEADS, batch_first=True).to(DEVICE).eval()
    query, key = torch.randn(2, 5, 32, device=DEVICE), torch.randn(2, 7, 32, device=DEVICE)
    padding = torch.zeros(2, 7, dtype=torch.bool, device=DEVICE)
    padding[1, 4:] = True
    options = {"key_padding_mask": padding, "need_weights": need_weights, "average_attn_weights": False}
    with torch.no_grad():
        plain, _ = module(query, key, key, **options)
        _, weights = module(query, key, key, key_padding_mask=padding, average_attn_weights=False)
        with sightline.record(module) as seen:
            output, _ = module(query, key, key, **options)
    close(output, plain, 1e-6)
    close(seen[0].weights, weights, 1e-5)


@pytest.mark.filterwarnings("ignore")
def test_the_fast_path_of_a_transformer_keeps_its_answer() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, HEADS, 64, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).to(DEVICE).eval()
    x, padding = torch.randn(2, 6, 32, device=DEVICE), torch.zeros(2, 6, dtype=torch.bool, device=DEVICE)
    padding[1, 4:] = True
    with torch.no_grad():
        plain = encoder(x, src_key_padding_mask=padding)
        with sightline.record(encoder) as seen:
            output = encoder(x, src_key_padding_mask=padding)
    close(output, plain, 1e-5)
    assert len(seen) == 2
    assert seen[0].weights[1, :, :, 4:].abs().max() == 0


@pytest.mark.parametrize(
    "name", ["vit", "dinov2_registers", "swin", "segformer", "bert", "bart", "t5", "gemma2", "llava", "qwen2_5_vl"]
)
def test_a_model_shows_what_it_shows_on_the_cpu(name: str) -> None:
    model, inputs = getattr(tiny, name)()
    with torch.no_grad(), sightline.record(model) as here:
        model(**inputs)
    model.to(DEVICE)
    with torch.no_grad(), sightline.record(model) as seen:
        model(**there(inputs))
    assert [site.name for site in seen] == [site.name for site in here]
    for site, known in zip(seen, here, strict=True):
        close(site.weights, known.weights)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bart"])
def test_generation_with_a_cache(name: str) -> None:
    model, inputs = getattr(tiny, name)()
    given = {key: value for key, value in inputs.items() if key != "decoder_input_ids"}
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    with sightline.record(model) as here:
        known = model.generate(**given, **options)
    model.to(DEVICE)
    with sightline.record(model) as seen:
        told = model.generate(**there(given), **options)
    assert torch.equal(told.cpu(), known)
    assert [site.steps for site in seen] == [site.steps for site in here]
    for site, other in zip(seen, here, strict=True):
        close(site.weights, other.weights)


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return tiny.sharpen(transformers.ViTForImageClassification(transformers.ViTConfig(**tiny.VISION, num_labels=5)))


def test_maps_pictures_and_the_check(tmp_path: Any) -> None:
    model, pixels = classifier(), tiny.pixels(2, 3, 32, 32)
    image = Image.new("RGB", (32, 32), "gray")
    found: list[list[Tensor]] = []
    for device in ("cpu", DEVICE):
        net = copy.deepcopy(model).to(device)
        with sightline.record(net, gradients=True) as seen:
            score = net(pixels.to(device)).logits[:, 1].sum()
        maps = [seen.heat(method=way, score=score, item=1) for way in ("raw", "rollout", "gradient", "grad_rollout")]
        maps += [seen.rollout(fusion="max", discard=0.3), seen.grad_weighted(score), seen.rollout(rows=0)]
        maps.append(without_sinks(seen[-1].weights, prefix=1, sinks=sink_keys(seen[-1])))
        checked = seen.check(heat=maps[0], item=1, seeds=2, steps=3)
        maps += [checked.effect.drop, checked.effect.random_drop, checked.curves.deletion, checked.curves.insertion]
        found.append(maps)
    for here, known in zip(found[1], found[0], strict=True):
        scale = known.abs().max().clamp(min=0.1)
        close(here.cpu() / scale.cpu(), known / scale.cpu())
    assert seen.overlay(image, item=1).width > 32
    assert seen.montage(image).width > 32
    assert seen.to_html(tmp_path / "look.html", image, score=score).stat().st_size > 10_000
    assert sightline.survey(net, pixels.to(DEVICE)).costs()["row"] > 0


def test_rollout_through_an_encoder_and_a_decoder() -> None:
    model, inputs = tiny.bart()
    sources = []
    for device in ("cpu", DEVICE):
        model.to(device)
        with torch.no_grad(), sightline.record(model) as seen:
            model(**(inputs if device == "cpu" else there(inputs)))
        sources.append(seen.cross_rollout(rows=-1).source)
    close(sources[1], sources[0])


@pytest.mark.parametrize("holds", [False, True])
def test_the_class_row_needs_a_hundredth_of_the_maps(holds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(deferred, "LIMIT", deferred.LIMIT if holds else 0)
    model, x = Stack().to(DEVICE).eval(), torch.randn(4, 901, HEADS * WIDTH, device=DEVICE)
    maps = 3 * 4 * HEADS * 901 * 901 * 4

    def needed(**choices: Any) -> int:
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.no_grad():
            if choices:
                with sightline.record(model, **choices) as seen:
                    model(x)
                assert len(seen) == 3
            else:
                model(x)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before

    needed()  # what the first pass alone needs, such as the workspace of the products
    plain, row = needed(), needed(queries=sightline.CLS)
    # of each layer query, key, value and what it was given are kept alive, and copied for a while
    assert row - plain < maps / 100 + (2 * 3 * 4 * x.nbytes if holds else 0)
