"""DINOv2, with and without registers: the official names and those of transformers."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from sightline.checkpoints import timm_vit
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
from sightline.checkpoints.transformers_vit import check_config
from sightline.systems.dinov2 import DINOv2

_LAYER = {
    "norm1": "attention_norm",
    "attention.attention.query": "attention.query",
    "attention.attention.key": "attention.key",
    "attention.attention.value": "attention.value",
    "attention.output.dense": "attention.output",
    "norm2": "feedforward_norm",
    "mlp.fc1": "feedforward.expand",
    "mlp.fc2": "feedforward.contract",
    "mlp.weights_in": "feedforward.expand",
    "mlp.weights_out": "feedforward.contract",
}
# what the modules of transformers 5 call them
_IN_MODULES = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.down_proj": "mlp.weights_out",
}


def matches(keys: Collection[str], config: Mapping[str, Any]) -> bool:
    """Recognises layer scale in the names of transformers, or of the official code (with its mask token)."""
    official = any(re.fullmatch(r"blocks\.(\d+\.)?0\.ls1\.gamma", key) for key in keys) and "mask_token" in keys
    return official or any(key.endswith("encoder.layer.0.layer_scale1.lambda1") for key in keys)


def convert(state: Mapping[str, Tensor], config: Mapping[str, Any], **overrides: Any) -> Converted:
    """Converts DINOv2; the mask token, which only training uses, is left aside.

    Positions are resized as the source resizes them: the official code without registers by DINO's scale
    factors, with registers antialiased; transformers plainly, with registers antialiased.
    """
    if "patch_embed.proj.weight" in state:
        return _convert_official(state, config, **overrides)
    return _convert_transformers(state, config, **overrides)


def _convert_official(state: Mapping[str, Tensor], config: Mapping[str, Any], **overrides: Any) -> Converted:
    # training checkpoints group layers in chunks, blocks.CHUNK.LAYER.name; layers keep their number
    plain = {
        re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name): value
        for name, value in state.items()
        if name != "mask_token"
    }
    rule = "dinov2_registers" if "register_tokens" in state else "dino"
    return timm_vit.convert(plain, config, rule=rule, **overrides)


def _convert_transformers(state: Mapping[str, Tensor], config: Mapping[str, Any], **overrides: Any) -> Converted:
    check_config(config)
    stem = next((name.split(".")[0] + "." for name in state if name.startswith("dinov2")), "")
    state = _as_on_disk({name: value for name, value in state.items() if name != f"{stem}embeddings.mask_token"})
    patches, layers = f"{stem}embeddings.patch_embeddings.projection", f"{stem}encoder.layer."
    kernel = require(state, f"{patches}.weight", 4)
    dim, patch, depth = len(kernel), patch_of(kernel, f"{patches}.weight"), count_layers(state, layers)
    swiglu = f"{layers}0.mlp.weights_in.weight" in state
    left_out = ("mlp.fc1", "mlp.fc2") if swiglu else ("mlp.weights_in", "mlp.weights_out")

    names: dict[str, Any] = {
        f"{stem}embeddings.cls_token": "class_token",
        f"{stem}embeddings.position_embeddings": "positions.table",
    }
    registers = state.get(f"{stem}embeddings.register_tokens")
    if registers is not None:
        names[f"{stem}embeddings.register_tokens"] = "register_tokens"
    pairs = {patches: "patches.project", f"{stem}layernorm": "norm"}
    if "classifier.weight" in state:
        pairs["classifier"] = "head"
    for i in range(depth):
        pairs |= {f"{layers}{i}.{a}": f"layers.{i}.{b}" for a, b in _LAYER.items() if a not in left_out}
        names[f"{layers}{i}.layer_scale1.lambda1"] = f"layers.{i}.attention_scale.factor"
        names[f"{layers}{i}.layer_scale2.lambda1"] = f"layers.{i}.feedforward_scale.factor"
    names |= {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in pairs.items() for kind in ("weight", "bias")}

    positions = require(state, f"{stem}embeddings.position_embeddings", 3)
    contract = require(state, f"{layers}0.mlp.{'weights_out' if swiglu else 'fc2'}.weight", 2)
    shown = {
        "image_size": choose_image_size(positions.shape[1] - 1, patch, overrides, config),
        "patch": patch,
        "dim": dim,
        "depth": depth,
        "heads": choose_heads(dim, overrides, config),
        "hidden": contract.shape[1],
        "swiglu": swiglu,
        "registers": 0 if registers is None else registers.shape[1],
        "classes": len(require(state, "classifier.weight", 2)) if "classifier.weight" in state else 0,
        "positions": "transformers" if registers is None else "dinov2_registers",
        "eps": float(config.get("layer_norm_eps", 1e-6)),
    }
    zeros = without_biases(names, state, dim)
    overrides["image_size"] = shown["image_size"]
    return Converted(DINOv2, settle(DINOv2, shown, overrides), rename(state, names) | zeros)


def _as_on_disk(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        for new, old in _IN_MODULES.items():
            name = name.replace(f".{new}.", f".{old}.")
        if ".mlp.gate_proj." in name:  # gate and value, one matrix on disk
            other = state.get(name.replace("gate_proj", "up_proj"))
            if other is not None:
                renamed[name.replace("gate_proj", "weights_in")] = torch.cat([value, other])
                continue
        if ".mlp.up_proj." in name and name.replace("up_proj", "gate_proj") in state:
            continue
        renamed[name] = value
    return renamed
