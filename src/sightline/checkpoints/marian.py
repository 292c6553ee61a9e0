"""MarianMT of transformers: the translators of Helsinki-NLP (`opus-mt-de-en` and a thousand others)."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from sightline.blocks.positions import sinusoidal_halves
from sightline.checkpoints.convert import Converted, count_layers, rename, require, settle
from sightline.systems.transformer import Transformer

_PARTS = {
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.out_proj": "attention.output",
    "self_attn_layer_norm": "attention_norm",
    "fc1": "feedforward.expand",
    "fc2": "feedforward.contract",
    "final_layer_norm": "feedforward_norm",
}
_CROSSED = {
    "encoder_attn.q_proj": "cross.query",
    "encoder_attn.k_proj": "cross.key",
    "encoder_attn.v_proj": "cross.value",
    "encoder_attn.out_proj": "cross.output",
    "encoder_attn_layer_norm": "cross_norm",
}
_ACTIVATIONS = {"swish": "silu", "silu": "silu", "relu": "relu", "gelu": "gelu"}
_TABLES = (
    "model.shared.weight",
    "model.encoder.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
    "lm_head.weight",
)


def matches(keys: Collection[str], config: Mapping[str, Any]) -> bool:
    """Recognises MarianMT by its config; without one its names could be another model's."""
    return config.get("model_type") == "marian" and "final_logits_bias" in keys


def convert(state: Mapping[str, Tensor], config: Mapping[str, Any], **overrides: Any) -> Converted:
    """Converts MarianMTModel, with one vocabulary or two.

    Raises ValueError for weights that are missing or left over, and for what would be computed otherwise: words that
    are not scaled, encoder and decoder of different heads or widths, another activation, other positions.
    """
    _check(config)
    kept = dict(state)
    shared, source, target, output = (kept.pop(name, None) for name in _TABLES)
    source, target = (shared if table is None else table for table in (source, target))
    if source is None or target is None:
        raise ValueError(f"a table of words is missing: expected {_TABLES[0]}, or {_TABLES[1]} and {_TABLES[2]}")
    output = target if output is None else output
    for side in ("encoder", "decoder"):
        _check_positions(kept.pop(f"model.{side}.embed_positions.weight", None), side)
    tied = all(table.shape == source.shape and torch.equal(table, source) for table in (target, output))
    names: dict[str, Any] = {"final_logits_bias": "bias"}
    depth = [count_layers(state, f"model.{side}.layers.") for side in ("encoder", "decoder")]
    for side, layers, parts in zip(("encoder", "decoder"), depth, (_PARTS, _PARTS | _CROSSED), strict=True):
        for i in range(layers):
            for theirs, ours in parts.items():
                for kind in ("weight", "bias"):
                    names[f"model.{side}.layers.{i}.{theirs}.{kind}"] = f"{side}.layers.{i}.{ours}.{kind}"
    renamed = rename(kept, names)
    renamed["bias"] = renamed["bias"].reshape(-1)
    renamed["source.weight"] = source
    if not tied:
        renamed |= {"target.weight": target, "output.weight": output.clone()}
    shown = {
        "words": len(source) if tied else (len(source), len(target)),
        "dim": source.shape[1],
        "depth": tuple(depth),
        "heads": config.get("encoder_attention_heads", 16),
        "hidden": len(require(state, "model.encoder.layers.0.fc1.weight", 2)),
        "norm": "post",
        "positions": "halves",
        "activation": _ACTIVATIONS[config.get("activation_function", "gelu")],
        "pad": config.get("pad_token_id", 58100),
    }
    return Converted(Transformer, settle(Transformer, shown, overrides), renamed)


def _check(config: Mapping[str, Any]) -> None:
    for name, wanted in (("scale_embedding", True), ("normalize_embedding", False), ("normalize_before", False)):
        if config.get(name, False) != wanted:
            raise ValueError(f"config.json says {name}={config.get(name, False)}; only {wanted} can be computed here")
    for name in ("attention_heads", "ffn_dim"):
        both = [config.get(f"{side}_{name}") for side in ("encoder", "decoder")]
        if both[0] != both[1]:
            raise ValueError(f"encoder and decoder have {name} {both[0]} and {both[1]}; they must be the same here")
    if config.get("activation_function", "gelu") not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise ValueError(f"config.json says activation_function={config['activation_function']!r}; known: {known}")


def _check_positions(table: Tensor | None, side: str) -> None:
    if table is not None and not torch.allclose(table, sinusoidal_halves(*table.shape), atol=1e-4):
        raise ValueError(f"the positions of the {side} are not Marian's sinusoids, and only those can be computed here")
