"""Vision Transformers of google-research/vision_transformer: .npz files with flax names."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor

from sightline.checkpoints.convert import (
    Converted,
    choose_image_size,
    count_layers,
    patch_of,
    rename,
    require,
    settle,
)
from sightline.systems.vit import VisionTransformer

_BLOCK = "Transformer/encoderblock_"
_POSITIONS = "Transformer/posembed_input/pos_embedding"


def matches(keys: Collection[str], config: Mapping[str, Any]) -> bool:
    """Recognises flax names of the ViT, also under "opt/target/" or "params/"."""
    return any(key.endswith("Transformer/encoder_norm/scale") for key in keys)


def convert(state: Mapping[str, Tensor], config: Mapping[str, Any], **overrides: Any) -> Converted:
    """Converts the flax layout: kernels are (in, out), heads an axis of their own, images channels-last.

    The shapes show everything, heads included, but a grid that is not square (`image_size=`).
    """
    for prefix in ("opt/target/", "params/"):
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    kernel = require(state, "embedding/kernel", 4).permute(3, 2, 0, 1)
    dim, patch = len(kernel), patch_of(kernel, "embedding/kernel")
    query = require(state, f"{_BLOCK}0/MultiHeadDotProductAttention_1/query/kernel", 3)
    hidden = require(state, f"{_BLOCK}0/MlpBlock_3/Dense_0/kernel", 2)
    depth = count_layers(state, _BLOCK)
    shown = {
        "image_size": choose_image_size(require(state, _POSITIONS, 3).shape[1] - 1, patch, overrides, config),
        "patch": patch,
        "dim": dim,
        "depth": depth,
        "heads": query.shape[1],
        "hidden": hidden.shape[1],
        "classes": require(state, "head/kernel", 2).shape[1] if "head/kernel" in state else 0,
        "head": "tanh" if "pre_logits/kernel" in state else "class",
        "positions": "jax",
    }
    plan = _plan(depth, state)
    renamed = rename(state, {theirs: ours for theirs, (ours, _) in plan.items()})
    turned = {ours: turn(renamed[ours]).contiguous() for ours, turn in plan.values()}
    overrides["image_size"] = shown["image_size"]
    return Converted(VisionTransformer, settle(VisionTransformer, shown, overrides), turned)


Turn = Callable[[Tensor], Tensor]


def _plan(depth: int, state: Mapping[str, Tensor]) -> dict[str, tuple[str, Turn]]:
    """Gives for every flax name Sightline's name and how to turn the array."""

    def same(array: Tensor) -> Tensor:
        return array

    def linear(array: Tensor) -> Tensor:
        return array.T

    def split_out(array: Tensor) -> Tensor:  # (dim, heads, width) -> (heads width, dim)
        return array.flatten(1).T

    def merge_in(array: Tensor) -> Tensor:  # (heads, width, dim) -> (dim, heads width)
        return array.flatten(0, 1).T

    plan: dict[str, tuple[str, Turn]] = {
        "cls": ("class_token", same),
        _POSITIONS: ("positions.table", same),
        "embedding/kernel": ("patches.project.weight", lambda array: array.permute(3, 2, 0, 1)),
        "embedding/bias": ("patches.project.bias", same),
        "Transformer/encoder_norm/scale": ("norm.weight", same),
        "Transformer/encoder_norm/bias": ("norm.bias", same),
    }
    for theirs, ours in (("pre_logits", "before_head.0"), ("head", "head")):
        if f"{theirs}/kernel" in state:
            plan[f"{theirs}/kernel"] = (f"{ours}.weight", linear)
            plan[f"{theirs}/bias"] = (f"{ours}.bias", same)
    for i in range(depth):
        block, layer = f"{_BLOCK}{i}", f"layers.{i}"
        for theirs, ours in (("LayerNorm_0", "attention_norm"), ("LayerNorm_2", "feedforward_norm")):
            plan[f"{block}/{theirs}/scale"] = (f"{layer}.{ours}.weight", same)
            plan[f"{block}/{theirs}/bias"] = (f"{layer}.{ours}.bias", same)
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            plan[f"{attention}/{part}/kernel"] = (f"{layer}.attention.{part}.weight", split_out)
            plan[f"{attention}/{part}/bias"] = (
                f"{layer}.attention.{part}.bias",
                lambda array: array.flatten(),
            )
        plan[f"{attention}/out/kernel"] = (f"{layer}.attention.output.weight", merge_in)
        plan[f"{attention}/out/bias"] = (f"{layer}.attention.output.bias", same)
        for theirs, ours in (("Dense_0", "expand"), ("Dense_1", "contract")):
            plan[f"{block}/MlpBlock_3/{theirs}/kernel"] = (f"{layer}.feedforward.{ours}.weight", linear)
            plan[f"{block}/MlpBlock_3/{theirs}/bias"] = (f"{layer}.feedforward.{ours}.bias", same)
    return plan
