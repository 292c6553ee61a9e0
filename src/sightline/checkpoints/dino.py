"""DINO's official files: bare backbones, and full checkpoints whose teacher backbone is read."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from sightline.checkpoints import timm_vit
from sightline.checkpoints.convert import Converted


def matches(keys: Collection[str], config: Mapping[str, Any]) -> bool:
    """Recognises "backbone." names, and bare ViT weights without a head (unless a timm config lies beside).

    timm's headless models have the very same names; where such weights are timm's, say source="timm-vit":
    the two differ in how positions are resized to another image size.
    """
    bare = timm_vit.matches(keys, config) and not any(key.startswith(("head", "fc_norm")) for key in keys)
    return "backbone.cls_token" in keys or (bare and "blocks.0.ls1.gamma" not in keys and "architecture" not in config)


def convert(state: Mapping[str, Tensor], config: Mapping[str, Any], **overrides: Any) -> Converted:
    """Converts DINO's Vision Transformer; of a full checkpoint the projection head is left aside.

    Equal to facebookresearch/dino, which resizes positions by its own scale-factor rule.
    """
    if "backbone.cls_token" in state:
        head = ("head.mlp.", "head.last_layer.")  # the training head: not part of the backbone
        state = {name.removeprefix("backbone."): value for name, value in state.items() if not name.startswith(head)}
    return timm_vit.convert(state, config, rule="dino", **overrides)
