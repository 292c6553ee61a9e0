"""timm's names, DeiT's and DINOv2's official ones, against a plain ViT of a few lines over the same state dict."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from sightline.checkpoints import dino, dinov2, load_checkpoint, timm_vit
from sightline.systems.dinov2 import DINOv2

State = dict[str, Tensor]


def random_state(
    *, dim: int = 24, depth: int = 2, hidden: int = 40, patch: int = 8, positions: int = 17, classes: int = 5
) -> State:
    torch.manual_seed(0)
    shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, positions, dim), "norm.weight": (dim,), "norm.bias": (dim,)}
    shapes |= {"patch_embed.proj.weight": (dim, 3, patch, patch), "patch_embed.proj.bias": (dim,)}
    for i in range(depth):
        shapes |= {f"blocks.{i}.norm{n}.{kind}": (dim,) for n in (1, 2) for kind in ("weight", "bias")}
        for name, rows, columns in (
            ("attn.qkv", 3 * dim, dim),
            ("attn.proj", dim, dim),
            ("mlp.fc1", hidden, dim),
            ("mlp.fc2", dim, hidden),
        ):
            shapes |= {f"blocks.{i}.{name}.weight": (rows, columns), f"blocks.{i}.{name}.bias": (rows,)}
    if classes:
        shapes |= {"head.weight": (classes, dim), "head.bias": (classes,)}
    return {name: torch.randn(shape) * 0.2 for name, shape in shapes.items()}


def plain_tokens(state: State, images: Tensor, heads: int, before: list[Tensor], place: Tensor) -> Tensor:
    """A ViT by its formulas: `before` are the tokens before the patches, `place` is added to all of them."""
    kernel = state["patch_embed.proj.weight"]
    patches = F.conv2d(images, kernel, state["patch_embed.proj.bias"], stride=kernel.shape[-1])
    first = torch.cat(before, dim=1).expand(len(images), -1, -1)
    x = torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1) + place

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))

    block = 0
    while f"blocks.{block}.norm1.weight" in state:
        name = f"blocks.{block}"
        q, k, v = (
            linear(f"{name}.attn.qkv", norm(f"{name}.norm1", x)).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        )
        mixed = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(dim=-1) @ v
        x = x + linear(f"{name}.attn.proj", mixed.transpose(1, 2).flatten(2)) * state.get(f"{name}.ls1.gamma", 1.0)
        inner = norm(f"{name}.norm2", x)
        if f"{name}.mlp.w12.weight" in state:
            gate, value = linear(f"{name}.mlp.w12", inner).chunk(2, dim=-1)
            inner = linear(f"{name}.mlp.w3", gate * gate.sigmoid() * value)
        else:
            inner = linear(f"{name}.mlp.fc1", inner)
            inner = linear(f"{name}.mlp.fc2", inner * 0.5 * (1 + torch.erf(inner / 2**0.5)))
        x = x + inner * state.get(f"{name}.ls2.gamma", 1.0)
        block += 1
    return norm("norm", x)


def load(tmp_path: Path, state: State, **how: Any) -> torch.nn.Module:
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "weights.safetensors")
    return load_checkpoint(tmp_path / "weights.safetensors", **how)


def close(mine: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)


@settings(deadline=None, max_examples=15)
@given(
    heads=st.sampled_from([1, 2, 4]),
    width=st.sampled_from([3, 6]),
    depth=st.integers(1, 3),
    hidden=st.integers(1, 50),
    patch=st.integers(2, 9),
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    classes=st.integers(1, 6),
)
def test_every_size_is_read_from_the_weights(
    heads: int, width: int, depth: int, hidden: int, patch: int, grid: tuple[int, int], classes: int
) -> None:
    dim, size = heads * width, (grid[0] * patch, grid[1] * patch)
    state = random_state(
        dim=dim, depth=depth, hidden=hidden, patch=patch, positions=1 + grid[0] * grid[1], classes=classes
    )
    assert timm_vit.matches(state.keys(), {})
    model = timm_vit.convert(state, {}, heads=heads, image_size=size).build()
    images = torch.randn(2, 3, *size)
    expected = plain_tokens(state, images, heads, [state["cls_token"]], state["pos_embed"])
    close(model.tokens(images), expected)
    close(model(images), F.linear(expected[:, 0], state["head.weight"], state["head.bias"]))


@pytest.mark.parametrize("extra", ["dist", "registers", "neither"])
@pytest.mark.parametrize("positioned", [True, False])
def test_tokens_before_the_patches(tmp_path: Path, extra: str, positioned: bool) -> None:
    state = random_state()
    before, name = [state["cls_token"]], {"dist": "dist_token", "registers": "reg_token"}.get(extra)
    if name:
        state[name] = torch.randn(1, 1 if extra == "dist" else 4, 24)
        before.append(state[name])
    count = sum(token.shape[1] for token in before)
    place = torch.randn(1, 16 + count, 24)
    if not positioned:  # timm's no_embed_class
        place[:, :count] = 0
    state["pos_embed"] = place if positioned else place[:, count:]
    if extra == "dist":
        state |= {"head_dist.weight": torch.randn(5, 24), "head_dist.bias": torch.randn(5)}
    # 16 patches and 5 tokens: only 16 of 21 is a square
    model = load(tmp_path, state, heads=3)
    images = torch.randn(2, 3, 32, 32)
    expected = plain_tokens(state, images, 3, before, place)
    close(model.tokens(images), expected)
    logits = F.linear(expected[:, 0], state["head.weight"], state["head.bias"])
    if extra == "dist":
        logits = (logits + F.linear(expected[:, 1], state["head_dist.weight"], state["head_dist.bias"])) / 2
    close(model(images), logits)


def test_a_position_table_that_can_be_read_two_ways_asks(tmp_path: Path) -> None:
    state = random_state(positions=9)
    state["reg_token"] = torch.randn(1, 4, 24)  # 9 = 3 x 3, or 5 tokens and 2 x 2
    with pytest.raises(ValueError, match="image_size="):
        load(tmp_path, state, heads=3)
    assert load(tmp_path, state, heads=3, image_size=(24, 24)).positions.grid == (3, 3)
    assert load(tmp_path, state, heads=3, image_size=(16, 16)).positions.grid == (2, 2)


def test_the_pretraining_head(tmp_path: Path) -> None:
    state = random_state()
    state |= {"pre_logits.fc.weight": torch.randn(24, 24), "pre_logits.fc.bias": torch.randn(24)}
    model = load(tmp_path, state, heads=3)
    images = torch.randn(2, 3, 32, 32)
    first = plain_tokens(state, images, 3, [state["cls_token"]], state["pos_embed"])[:, 0]
    inner = F.linear(first, state["pre_logits.fc.weight"], state["pre_logits.fc.bias"]).tanh()
    close(model(images), F.linear(inner, state["head.weight"], state["head.bias"]))


def test_resized_positions_follow_the_source(tmp_path: Path) -> None:
    state, images = random_state(classes=0), torch.randn(1, 3, 24, 48)
    table = state["pos_embed"][:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    for source, how in (
        ("timm-vit", {"size": (3, 6), "antialias": True}),
        ("dino", {"scale_factor": (3.1 / 4, 6.1 / 4)}),
    ):
        resized = F.interpolate(table, mode="bicubic", **how).flatten(2).transpose(1, 2)
        place = torch.cat([state["pos_embed"][:, :1], resized], dim=1)
        expected = plain_tokens(state, images, 3, [state["cls_token"]], place)
        close(load(tmp_path, state, source=source, heads=3).tokens(images), expected)


def dinov2_state(registers: int, swiglu: bool) -> State:
    state = random_state(classes=0, hidden=24)
    for i in range(2):
        state |= {f"blocks.{i}.ls{n}.gamma": torch.randn(24) for n in (1, 2)}
        if swiglu:
            for kind in ("weight", "bias"):
                state[f"blocks.{i}.mlp.w3.{kind}"] = state.pop(f"blocks.{i}.mlp.fc2.{kind}")
                fc1 = state.pop(f"blocks.{i}.mlp.fc1.{kind}")
                state[f"blocks.{i}.mlp.w12.{kind}"] = torch.cat([fc1, torch.randn_like(fc1)])
    state["mask_token"] = torch.randn(1, 24)
    if registers:
        state["register_tokens"] = torch.randn(1, registers, 24)
    return state


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("chunks", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (24, 48)])
def test_dinov2_as_its_authors_name_it(
    tmp_path: Path, registers: int, swiglu: bool, chunks: bool, size: tuple[int, int]
) -> None:
    state, images = dinov2_state(registers, swiglu), torch.randn(2, 3, *size)
    rows, columns = size[0] // 8, size[1] // 8
    table = state["pos_embed"][:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    how = {"size": (rows, columns), "antialias": True}
    if not registers:
        how = {"scale_factor": ((rows + 0.1) / 4, (columns + 0.1) / 4)}
    resized = table if size == (32, 32) else F.interpolate(table, mode="bicubic", **how)
    place = torch.cat(
        [state["pos_embed"][:, :1], torch.zeros(1, registers, 24), resized.flatten(2).transpose(1, 2)], dim=1
    )
    before = [state["cls_token"]] + ([state["register_tokens"]] if registers else [])
    expected = plain_tokens(state, images, 3, before, place)
    if chunks:
        state = {name.replace("blocks.", "blocks.0.", 1): value for name, value in state.items()}
    assert dinov2.matches(state.keys(), {})
    model = load(tmp_path, state, heads=3)
    assert isinstance(model, DINOv2)
    close(model.tokens(images), expected)


def test_layer_scale_in_timms_names_is_resized_as_timm_does(tmp_path: Path) -> None:
    state = dinov2_state(0, False)
    del state["mask_token"]
    model = load(tmp_path, state, heads=3)
    assert isinstance(model, DINOv2)
    assert model.positions.rule == "timm"
    state |= {"head.weight": torch.randn(5, 24), "head.bias": torch.randn(5)}
    with pytest.raises(ValueError, match=r"remove head\.weight"):
        load(tmp_path, state, heads=3)


def test_bare_weights_are_dinos_unless_a_timm_config_lies_beside_them() -> None:
    keys = random_state(classes=0).keys()
    assert dino.matches(keys, {})
    assert not dino.matches(keys, {"architecture": "vit_small_patch16_224"})
    assert not dino.matches(random_state().keys(), {})


def test_query_key_value_without_bias(tmp_path: Path) -> None:
    state = {name: value for name, value in random_state().items() if "qkv.bias" not in name}
    model, images = load(tmp_path, state, heads=3), torch.randn(1, 3, 32, 32)
    close(model.tokens(images), plain_tokens(state, images, 3, [state["cls_token"]], state["pos_embed"]))
    state["blocks.0.attn.qkv.bias"] = torch.randn(72)
    with pytest.raises(ValueError, match=r"missing: blocks\.1\.attn\.qkv\.bias"):
        load(tmp_path, state, heads=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update({"fc_norm.weight": torch.ones(24)}), r"left over: fc_norm\.weight"),
        (lambda s: s.update({"blocks.1.attn.q_norm.weight": torch.ones(8)}), r"blocks\.1\.attn\.q_norm\.weight"),
        (lambda s: s.pop("norm.bias"), r"missing: norm\.bias"),
        (lambda s: s.pop("blocks.1.mlp.fc2.weight"), r"missing: blocks\.1\.mlp\.fc2\.weight"),
        (lambda s: s.update({"blocks.0.attn.qkv.bias": torch.ones(71)}), "do not split into 3"),
        (lambda s: s.update({"blocks.0.mlp.fc2.bias": torch.ones(23)}), r"contract\.bias is \(23,\), expected \(24,\)"),
        (lambda s: s.update({"pos_embed": torch.ones(1, 12, 24)}), r"image_size=\(height, width\), one of \(8, 88\)"),
        (lambda s: s.update({"pos_embed": torch.ones(17, 24)}), "pos_embed must have 3 axes"),
        (lambda s: s.update({"patch_embed.proj.weight": torch.ones(24, 3, 8, 4)}), "square patches"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path: Path, change: Any, message: str) -> None:
    state = random_state()
    change(state)
    with pytest.raises(ValueError, match=message):
        load(tmp_path, state, heads=3)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({}, "give heads="),
        ({"heads": 5}, "heads must divide the width 24"),
        ({"heads": 3, "dim": 12}, "the weights show dim=24, but dim=12"),
        ({"heads": 3, "colour": 1}, "no keyword 'colour'"),
        ({"heads": 3, "image_size": (16, 32)}, "makes 2 x 4 patches, but the weights hold 16"),
        ({"heads": 3, "source": "keras"}, "source must be one of"),
        ({"source": "jax-vit"}, "no 'embedding/kernel'"),
        ({"heads": 3, "source": "transformers-vit"}, "projection.weight"),
    ],
)
def test_wrong_words_are_refused(tmp_path: Path, how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(tmp_path, random_state(), **how)


def test_heads_default_to_64_channels_each_but_for_the_huge_one() -> None:
    for dim, heads in ((192, 3), (768, 12), (1280, 16)):
        state = random_state(dim=dim, depth=1, hidden=8)
        assert timm_vit.convert(state, {}).arguments["heads"] == heads


def test_loading_leaves_the_random_numbers_alone(tmp_path: Path) -> None:
    state = random_state()
    before = torch.get_rng_state()
    model = load(tmp_path, state, heads=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert not model.training
    assert all(one.requires_grad and not one.is_meta for one in model.parameters())
