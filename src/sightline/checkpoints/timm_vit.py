"""Vision Transformers in timm's names: timm itself and DeiT; DINO and DINOv2 through their own modules."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from sightline.checkpoints.convert import (
    Converted,
    choose_heads,
    choose_image_size,
    count_layers,
    patch_of,
    rename,
    require,
    settle,
    without_biases,
)
from sightline.systems.dinov2 import DINOv2
from sightline.systems.vit import VisionTransformer


def matches(keys: Collection[str], config: Mapping[str, Any]) -> bool:
    """Recognises timm's ViT by its names."""
    return {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= set(keys)


def convert(state: Mapping[str, Tensor], config: Mapping[str, Any], rule: str = "timm", **overrides: Any) -> Converted:
    """Converts timm's VisionTransformer with class token; with layer scale (timm's DINOv2) to `DINOv2`.

    Equal to timm 1.0 with `dynamic_img_size=True` (rule "timm").  Raises ValueError for what has no place
    here, by name: mean pooling (fc_norm), query norms, a class head over layer scale.
    """
    state = dict(state)
    kernel = require(state, "patch_embed.proj.weight", 4)
    dim, patch = len(kernel), patch_of(kernel, "patch_embed.proj.weight")
    scaled, head = (
        "blocks.0.ls1.gamma" in state,
        require(state, "head.weight", 2) if "head.weight" in state else None,
    )
    image_size = _fold_tokens(state, patch, overrides, config)
    registers = state.get("register_tokens")
    swiglu = "blocks.0.mlp.w12.weight" in state
    hidden = require(state, "blocks.0.mlp.w3.weight" if swiglu else "blocks.0.mlp.fc1.weight", 2)
    shown: dict[str, Any] = {
        "image_size": image_size,
        "patch": patch,
        "dim": dim,
        "depth": count_layers(state, "blocks."),
        "heads": choose_heads(dim, overrides, config),
        "hidden": hidden.shape[1] if swiglu else len(hidden),
        "classes": 0 if head is None else len(head),
        "registers": 0 if registers is None else registers.shape[1],
        "positions": rule,
    }
    if scaled:
        if head is not None and head.shape[1] != 2 * dim:
            raise ValueError(
                "head.weight reads the class token of layer scale (blocks.0.ls1.gamma), which is "
                "not supported: remove head.weight and head.bias to load the features"
            )
        shown["swiglu"] = swiglu
    else:
        shown["head"] = "tanh" if "pre_logits.fc.weight" in state else "class"
        shown["head"] = "distilled" if "head_dist.weight" in state else shown["head"]
    names = layer_names(shown["depth"], scaled, swiglu) | _other_names(state)
    zeros = without_biases(names, state, dim)
    system = DINOv2 if scaled else VisionTransformer
    overrides["image_size"] = image_size
    return Converted(system, settle(system, shown, overrides), rename(state, names) | zeros)


def layer_names(depth: int, scaled: bool, swiglu: bool) -> dict[str, str | tuple[str, ...]]:
    """Gives timm's name of every tensor of `depth` layers, and Sightline's."""
    feedforward = (
        {"mlp.w12": "expand", "mlp.w3": "contract"} if swiglu else {"mlp.fc1": "expand", "mlp.fc2": "contract"}
    )
    names: dict[str, str | tuple[str, ...]] = {}
    for i in range(depth):
        theirs, ours = f"blocks.{i}", f"layers.{i}"
        for kind in ("weight", "bias"):
            names[f"{theirs}.norm1.{kind}"] = f"{ours}.attention_norm.{kind}"
            names[f"{theirs}.attn.qkv.{kind}"] = tuple(
                f"{ours}.attention.{part}.{kind}" for part in ("query", "key", "value")
            )
            names[f"{theirs}.attn.proj.{kind}"] = f"{ours}.attention.output.{kind}"
            names[f"{theirs}.norm2.{kind}"] = f"{ours}.feedforward_norm.{kind}"
            for part, target in feedforward.items():
                names[f"{theirs}.{part}.{kind}"] = f"{ours}.feedforward.{target}.{kind}"
        if scaled:
            names[f"{theirs}.ls1.gamma"] = f"{ours}.attention_scale.factor"
            names[f"{theirs}.ls2.gamma"] = f"{ours}.feedforward_scale.factor"
    return names


def _other_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    names = {
        "cls_token": "class_token",
        "pos_embed": "positions.table",
        "patch_embed.proj.weight": "patches.project.weight",
        "patch_embed.proj.bias": "patches.project.bias",
        "norm.weight": "norm.weight",
        "norm.bias": "norm.bias",
    }
    optional = {
        "register_tokens": "register_tokens",
        "pre_logits.fc": "before_head.0",
        "head": "head",
        "head_dist": "distilled_head",
    }
    for theirs, ours in optional.items():
        for kind in ("", ".weight", ".bias"):
            if theirs + kind in state:
                names[theirs + kind] = ours + kind
    return names


def _fold_tokens(
    state: dict[str, Tensor], patch: int, overrides: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[int, int]:
    """Brings distillation and register tokens to one tensor without positions; tells the image size.

    A token's own position is a constant: it is added to the token here.  A table without a class position
    gets a zero one.
    """
    positions = require(state, "pos_embed", 3)
    tokens = [state.pop(name) for name in ("dist_token", "reg_token") if name in state]
    extra = sum(token.shape[1] for token in tokens)
    # DINOv2's own registers never have positions
    sized = 1 if "register_tokens" in state else _positioned(positions.shape[1], 1 + extra, patch, overrides)
    size = choose_image_size(positions.shape[1] - sized, patch, overrides, config)
    if sized == 0:
        positions = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    if tokens:
        places = positions[:, 1:sized] if sized > 1 else 0.0
        state["register_tokens"] = torch.cat(tokens, dim=1) + places
        positions = torch.cat([positions[:, :1], positions[:, max(sized, 1) :]], dim=1)
    state["pos_embed"] = positions
    return size


def _positioned(length: int, prefix: int, patch: int, overrides: Mapping[str, Any]) -> int:
    """Tells how many of the tokens before the patches have positions: all or none (no_embed_class)."""
    fitting = [count for count in (prefix, 0) if _fits(length - count, patch, overrides)]
    if len(fitting) == 2:
        raise ValueError(
            f"pos_embed of length {length} may hold positions of the {prefix} tokens or not: "
            "give image_size=(height, width)"
        )
    return fitting[0] if fitting else prefix


def _fits(count: int, patch: int, overrides: Mapping[str, Any]) -> bool:
    given = overrides.get("image_size")
    if given is None:
        return count > 0 and round(count**0.5) ** 2 == count
    height, width = (given, given) if isinstance(given, int) else given
    return (height // patch) * (width // patch) == count
