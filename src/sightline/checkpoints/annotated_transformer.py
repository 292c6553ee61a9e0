"""The Annotated Transformer (harvardnlp), in the names of its state dict.

Its norm divides by the standard deviation with one degree of freedom taken off; here the factor that makes the
difference is folded into the norm's scale. Its epsilon, 1e-6 beside the deviation, differs from 1e-5 below the root by
less than a part in 10^5 for words of deviation 1.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from sightline.checkpoints.convert import Converted, count_layers, rename, require, settle
from sightline.systems.transformer import Transformer

_ATTENTION = ("query", "key", "value", "output")


def matches(keys: Collection[str], config: Mapping[str, Any]) -> bool:
    """Recognises the names of the Annotated Transformer."""
    return "generator.proj.weight" in keys and "encoder.layers.0.self_attn.linears.0.weight" in keys


def convert(state: Mapping[str, Tensor], config: Mapping[str, Any], **overrides: Any) -> Converted:
    """Converts its EncoderDecoder; `heads` (its default: 8) and `pad` (its default: 2) do not show in shapes.

    Raises ValueError for weights that are missing or left over, and for heads that do not divide the width.
    """
    tables = [require(state, f"{side}_embed.0.lut.weight", 2) for side in ("src", "tgt")]
    depth = [count_layers(state, f"{side}.layers.") for side in ("encoder", "decoder")]
    names: dict[str, Any] = {
        "src_embed.0.lut.weight": "source.weight",
        "tgt_embed.0.lut.weight": "target.weight",
        "generator.proj.weight": "output.weight",
        "generator.proj.bias": "bias",
    }
    norms = {"encoder.norm": "encoder.norm", "decoder.norm": "decoder.norm"}
    for side, layers in zip(("encoder", "decoder"), depth, strict=True):
        crossed = side == "decoder"
        attentions = {"self_attn": "attention"} | ({"src_attn": "cross"} if crossed else {})
        for i in range(layers):
            theirs = f"{side}.layers.{i}"
            pairs = {"feed_forward.w_1": "feedforward.expand", "feed_forward.w_2": "feedforward.contract"}
            for name, ours in attentions.items():
                pairs |= {f"{name}.linears.{n}": f"{ours}.{part}" for n, part in enumerate(_ATTENTION)}
            names |= {
                f"{theirs}.{a}.{kind}": f"{theirs}.{b}.{kind}" for a, b in pairs.items() for kind in ("weight", "bias")
            }
            for number, part in enumerate([*attentions.values(), "feedforward"]):
                norms[f"{theirs}.sublayer.{number}.norm"] = f"{theirs}.{part}_norm"
    for a, b in norms.items():
        names |= {f"{a}.a_2": f"{b}.weight", f"{a}.b_2": f"{b}.bias"}
    kept = {name: value for name, value in state.items() if name not in ("src_embed.1.pe", "tgt_embed.1.pe")}
    renamed = rename(kept, names)
    dim = tables[0].shape[1]
    for name in norms.values():
        renamed[f"{name}.weight"] = renamed[f"{name}.weight"] * math.sqrt((dim - 1) / dim)
    shown = {
        "words": tuple(len(table) for table in tables),
        "dim": dim,
        "depth": tuple(depth),
        "heads": overrides.get("heads", 8),
        "hidden": len(require(state, "encoder.layers.0.feed_forward.w_1.weight", 2)),
        "norm": "pre",
        "pad": overrides.get("pad", 2),
    }
    return Converted(Transformer, settle(Transformer, shown, overrides), renamed)
