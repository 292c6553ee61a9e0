"""ViT and DeiT of transformers, in the names of its files (4.x, and 5.x on disk) and of its 5.x modules."""

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
from sightline.systems.vit import VisionTransformer

# on disk (left) and in the modules of transformers 5 (right)
_ON_DISK = {
    "attention.attention.query": "attention.query",
    "attention.attention.key": "attention.key",
    "attention.attention.value": "attention.value",
    "attention.output.dense": "attention.output",
    "layernorm_before": "attention_norm",
    "layernorm_after": "feedforward_norm",
    "intermediate.dense": "feedforward.expand",
    "output.dense": "feedforward.contract",
}
_IN_MODULES = {
    "attention.q_proj": "attention.query",
    "attention.k_proj": "attention.key",
    "attention.v_proj": "attention.value",
    "attention.o_proj": "attention.output",
    "layernorm_before": "attention_norm",
    "layernorm_after": "feedforward_norm",
    "mlp.fc1": "feedforward.expand",
    "mlp.fc2": "feedforward.contract",
}
_TOPS = {
    "classifier": "head",
    "cls_classifier": "head",
    "distillation_classifier": "distilled_head",
    "pooler.dense": "before_head.0",
}


def matches(keys: Collection[str], config: Mapping[str, Any]) -> bool:
    """Recognises the names of transformers' ViT and DeiT."""
    return any(key.endswith("embeddings.patch_embeddings.projection.weight") for key in keys) and any(
        key.endswith(".0.layernorm_before.weight") for key in keys
    )


def convert(state: Mapping[str, Tensor], config: Mapping[str, Any], **overrides: Any) -> Converted:
    """Converts ViT and DeiT: bare (with or without pooler), with a class head, with DeiT's two heads.

    Equal to transformers 5 with `interpolate_pos_encoding=True`.  Raises ValueError for another activation.
    """
    check_config(config)
    stem = next((stem for stem in ("vit.", "deit.") if f"{stem}embeddings.cls_token" in state), "")
    state = {name: value for name, value in state.items() if name != f"{stem}embeddings.mask_token"}
    patches = f"{stem}embeddings.patch_embeddings.projection"
    kernel = require(state, f"{patches}.weight", 4)
    dim, patch = len(kernel), patch_of(kernel, f"{patches}.weight")
    layers, parts = f"{stem}encoder.layer.", _ON_DISK
    if f"{stem}layers.0.layernorm_before.weight" in state:
        layers, parts = f"{stem}layers.", _IN_MODULES
    depth = count_layers(state, layers)
    expand = next(name for name, ours in parts.items() if ours == "feedforward.expand")

    names: dict[str, Any] = {
        f"{stem}embeddings.cls_token": "class_token",
        f"{stem}embeddings.position_embeddings": "positions.table",
    }
    _fold_distillation(state, names, f"{stem}embeddings.")
    tops = {theirs: ours for top, ours in _TOPS.items() for theirs in (top, stem + top) if f"{theirs}.weight" in state}
    pairs = {patches: "patches.project", f"{stem}layernorm": "norm", **tops}
    pairs |= {f"{layers}{i}.{theirs}": f"layers.{i}.{ours}" for i in range(depth) for theirs, ours in parts.items()}
    names |= {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in pairs.items() for kind in ("weight", "bias")}

    head = next((state[f"{theirs}.weight"] for theirs, ours in tops.items() if ours == "head"), None)
    positions = require(state, f"{stem}embeddings.position_embeddings", 3)
    shown = {
        "image_size": choose_image_size(positions.shape[1] - 1, patch, overrides, config),
        "patch": patch,
        "dim": dim,
        "depth": depth,
        "heads": choose_heads(dim, overrides, config),
        "hidden": len(require(state, f"{layers}0.{expand}.weight", 2)),
        "classes": 0 if head is None else len(head),
        "head": "distilled" if "distilled_head" in tops.values() else "class",
        "registers": 1 if "register_tokens" in names.values() else 0,
        "positions": "transformers",
        "eps": float(config.get("layer_norm_eps", 1e-12)),
    }
    if "before_head.0" in tops.values():
        shown["head"] = "tanh"
    zeros = without_biases(names, state, dim)
    overrides["image_size"] = shown["image_size"]
    return Converted(VisionTransformer, settle(VisionTransformer, shown, overrides), rename(state, names) | zeros)


def check_config(config: Mapping[str, Any]) -> None:
    """Refuses what would be computed otherwise: an activation that is not exact GELU, another pooler."""
    for name, wanted in (("hidden_act", "gelu"), ("pooler_act", "tanh")):
        if config.get(name, wanted) != wanted:
            raise ValueError(f"config.json says {name}={config[name]!r}; only {wanted!r} can be computed here")


def _fold_distillation(state: dict[str, Tensor], names: dict[str, Any], stem: str) -> None:
    """Makes DeiT's distillation token a register: its position, a constant, is added to it."""
    if f"{stem}distillation_token" not in state:
        return
    token = f"{stem}distillation_token"
    positions = require(state, f"{stem}position_embeddings", 3)
    state[token] = state[token] + positions[:, 1:2]
    state[f"{stem}position_embeddings"] = torch.cat([positions[:, :1], positions[:, 2:]], dim=1)
    names[token] = "register_tokens"
