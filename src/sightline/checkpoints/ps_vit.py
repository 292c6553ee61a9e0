"""PS-ViT's published files (yuexy/PS-ViT): plain state dicts, or timm's training checkpoints with a moving average."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from sightline.attention.progressive import grid_points
from sightline.checkpoints.convert import Converted, choose_heads, count_layers, rename, require, settle
from sightline.systems.ps_vit import STRIDE, PSViT

_BOTTLENECK = {
    "conv1": "first",
    "bn1": "first_norm",
    "conv2": "second",
    "bn2": "second_norm",
    "conv3": "third",
    "bn3": "third_norm",
    "downsample.0": "shortcut.0",
    "downsample.1": "shortcut.1",
}
_LAYER = {
    "norm1": "attention_norm",
    "attn.proj": "attention.output",
    "norm2": "feedforward_norm",
    "mlp.fc1": "feedforward.expand",
    "mlp.fc2": "feedforward.contract",
}
_OUTER = {"pos_layer": "position", "norm": "norm", "head": "head", "stem.0": "stem.convolution", "stem.1": "stem.norm"}
_KINDS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def matches(keys: Collection[str], config: Mapping[str, Any]) -> bool:
    """Recognises the points and the layers that read them."""
    return {"point_coord", "pos_layer.weight", "ps_layers.0.transformer_layer.attn.qkv.weight"} <= set(keys)


def convert(state: Mapping[str, Tensor], config: Mapping[str, Any], **overrides: Any) -> Converted:
    """Converts PS-ViT; equal to the published code, whose released models scale offsets by gamma = 1.

    The published files repeat the shared position layer in every sampling layer, and the grid as a buffer.  The
    published constructors divide products of queries and keys by the root of a head's width, but with
    `pretrained=True` by the root of the whole width: `scale="width"` reads weights trained so (usual: `scale="head"`).
    Raises ValueError where the copies differ, where the buffer is not that grid, for models without a class token and
    for another `scale`.
    """
    state = dict(state)
    scale = overrides.pop("scale", "head")
    if scale not in ("head", "width"):
        raise ValueError(f"scale is 'head' (the published training) or 'width' (pretrained=True), given {scale!r}")
    points, image_size = _grid(state.pop("point_coord", None))
    for name in [name for name in state if ".position_layer." in name]:
        shared = "pos_layer." + name.rsplit(".", 1)[1]
        if shared not in state or not torch.equal(state[name], state[shared]):
            raise ValueError(f"{name} differs from {shared}, which it should repeat: the file is damaged")
        del state[name]
    head = require(state, "head.weight", 2)
    kernels = [require(state, f"stem.{name}.weight", 4) for name in ("0", "4.conv1", "4.conv3", "5.conv1")]
    iterations = count_layers(state, "ps_layers.")
    further = count_layers(state, "trans_layers.")
    heads = choose_heads(head.shape[1], overrides, config)
    shown = {
        "image_size": image_size,
        "points": points,
        "iterations": iterations,
        "dim": head.shape[1],
        "depth": iterations + further,
        "heads": heads,
        "hidden": len(require(state, "ps_layers.0.transformer_layer.mlp.fc1.weight", 2)),
        "stem": tuple(len(kernel) for kernel in kernels),
        "classes": len(head),
    }
    names = {"cls_token": "class_token", **_names(state, iterations, further)}
    renamed = rename(state, names)
    if scale == "width":  # one factor of all queries, which have no bias, does the same
        queries = [name for name in renamed if name.endswith(".attention.query.weight")]
        renamed |= {name: renamed[name] * heads**-0.5 for name in queries}
    return Converted(PSViT, settle(PSViT, shown, overrides), renamed)


def _names(state: Mapping[str, Tensor], iterations: int, further: int) -> dict[str, str | tuple[str, ...]]:
    """Gives the published name of every module's tensors, and Sightline's."""
    modules = dict(_OUTER)
    for number in (0, 1):
        modules |= {f"stem.{number + 4}.{old}": f"stem.blocks.{number}.{new}" for old, new in _BOTTLENECK.items()}
    layers = {f"ps_layers.{i}.transformer_layer": f"steps.{i}.layer" for i in range(iterations)}
    layers |= {f"trans_layers.{i}": f"layers.{i}" for i in range(further)}
    names: dict[str, str | tuple[str, ...]] = {}
    for theirs, ours in layers.items():
        modules |= {f"{theirs}.{old}": f"{ours}.{new}" for old, new in _LAYER.items()}
        names[f"{theirs}.attn.qkv.weight"] = tuple(
            f"{ours}.attention.{part}.weight" for part in ("query", "key", "value")
        )
    modules |= {f"ps_layers.{i}.offset_layer": f"steps.{i}.offset" for i in range(iterations - 1)}
    for theirs, ours in modules.items():
        names |= {f"{theirs}.{kind}": f"{ours}.{kind}" for kind in _KINDS if f"{theirs}.{kind}" in state}
    return names


def _grid(buffer: Tensor | None) -> tuple[int, int]:
    """Tells the points a side and the image size from the grid kept in the file; ValueError for another one."""
    if buffer is None or buffer.ndim != 3 or buffer.shape[2] != 2:
        raise ValueError("the checkpoint has no grid `point_coord` (1, points, 2): is it the source you named?")
    side = round(buffer.shape[1] ** 0.5)
    cells = round(float(buffer[0].max() + buffer[0].min()))
    wanted = grid_points((side, side), (cells, cells))
    if wanted.shape != buffer[0].shape or (wanted - buffer[0]).abs().max() > 1e-3:
        raise ValueError(f"point_coord is no even square grid of {side} x {side} points on {cells} x {cells} cells")
    return side, cells * STRIDE
