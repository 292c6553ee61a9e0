"""Segmenter's published files (rstrudel/segmenter): `checkpoint.pth` with `variant.yml` beside it."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from sightline.checkpoints import timm_vit
from sightline.checkpoints.convert import Converted, count_layers, rename, require, settle
from sightline.systems.segmenter import Segmenter

_ENCODER, _DECODER = "encoder.", "decoder."
# of the ImageNet classifier that the encoder was; segmentation never uses it
_UNUSED = ("encoder.head.", "encoder.head_dist.", "encoder.pre_logits.")
_PARTS = {
    "cls_emb": "class_tokens",
    "proj_patch": "patch_projection",
    "proj_classes": "class_projection",
    "proj_dec.weight": "enter.weight",
    "proj_dec.bias": "enter.bias",
    "decoder_norm.weight": "norm.weight",
    "decoder_norm.bias": "norm.bias",
    "mask_norm.weight": "mask_norm.weight",
    "mask_norm.bias": "mask_norm.bias",
}


def matches(keys: Collection[str], config: Mapping[str, Any]) -> bool:
    """Recognises the two parts by their names."""
    decoders = {"decoder.cls_emb", "decoder.head.weight"}
    return "encoder.patch_embed.proj.weight" in keys and bool(decoders & set(keys))


def convert(state: Mapping[str, Tensor], config: Mapping[str, Any], **overrides: Any) -> Converted:
    """Converts an encoder with the mask transformer or the linear decoder; the ImageNet head is left aside.

    `config` is what `variant.yml` holds: its `net_kwargs` tell the number of heads and the size of the images, which
    shapes do not show.  Equal to the published code.  Raises ValueError for what does not fit.
    """
    net = config.get("net_kwargs", {})
    known = {"heads": net.get("n_heads"), "image_size": net.get("image_size")}
    told = {name: overrides.get(name, value) for name, value in known.items()}
    encoder = timm_vit.convert(
        {
            name.removeprefix(_ENCODER): value
            for name, value in state.items()
            if name.startswith(_ENCODER) and not name.startswith(_UNUSED)
        },
        {},
        rule="segmenter",
        **{name: value for name, value in told.items() if value is not None},
    )
    below = encoder.arguments
    if encoder.system.__name__ != "VisionTransformer" or below["hidden"] != 4 * below["dim"]:
        raise ValueError(f"Segmenter's encoder is a ViT with an MLP of {4 * below['dim']}, found {below['hidden']}")
    decoder = {name.removeprefix(_DECODER): value for name, value in state.items() if name.startswith(_DECODER)}
    other = [name for name in state if not name.startswith((_ENCODER, _DECODER))]
    if other:
        raise ValueError(f"left over: {', '.join(other[:4])}; expected names of encoder. and decoder. only")
    shown, renamed = _decoder(decoder, overrides.get("decoder_heads"))
    taken = ("image_size", "patch", "dim", "depth", "heads", "registers", "positions")
    shown = {name: below[name] for name in taken} | shown
    overrides = {name: value for name, value in overrides.items() if name not in told}
    parts = {f"encoder.{name}": value for name, value in encoder.state.items()}
    parts |= {f"decoder.{name}": value for name, value in renamed.items()}
    return Converted(Segmenter, settle(Segmenter, shown, overrides), parts)


def _decoder(state: dict[str, Tensor], heads: int | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Gives what the decoder's weights show, and the weights in Sightline's names."""
    if "head.weight" in state:
        kernel = require(state, "head.weight", 2)
        names = {"head.weight": "head.weight", "head.bias": "head.bias"}
        return {"classes": len(kernel), "decoder_depth": 0}, rename(state, names)
    depth = count_layers(state, "blocks.")
    tokens = require(state, "cls_emb", 3)
    dim = tokens.shape[2]
    sizes: dict[str, Any] = {"classes": tokens.shape[1], "decoder_depth": depth, "decoder_dim": dim}
    sizes["decoder_heads"] = dim // 64 if dim % 64 == 0 else heads  # the published rule
    if sizes["decoder_heads"] is None:
        raise ValueError(f"a decoder of width {dim} does not show its number of heads: give decoder_heads=...")
    return sizes, rename(state, _PARTS | timm_vit.layer_names(depth, scaled=False, swiglu=False))
