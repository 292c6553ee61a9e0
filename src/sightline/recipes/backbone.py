"""The networks that are trained without labels, of sizes for small pictures."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from sightline.data.labelled import Union
from sightline.systems.resnet import ResNet
from sightline.systems.vit import VisionTransformer


def build(
    data: Union | None,
    *,
    image_size: int | Sequence[int] = 64,
    patch: int = 8,
    dim: int = 192,
    depth: int = 6,
    heads: int = 3,
    blocks: Sequence[int] = (),
    width: int = 32,
    stem: str = "small",
    **more: Any,
) -> nn.Module:
    """Builds the backbone without a head: a Vision Transformer, or a residual network where `blocks` tells its stages.

    `width` and `stem` ("small": for pictures of 32 pixels) are the residual network's.
    """
    if blocks:
        network = {"blocks": blocks, "width": width, "stem": stem, "image_size": image_size}
        return ResNet(**{**network, **more, "classes": 0})
    sizes = {"image_size": image_size, "patch": patch, "dim": dim, "depth": depth, "heads": heads}
    return VisionTransformer(**{"positions": "dino", **sizes, **more, "classes": 0})
