"""What self-supervised methods train: a Vision Transformer or a residual network without a head.

A backbone is told as plain values, {"architecture": "vit", "dim": 192, …}, the keywords of `VisionTransformer` or
`ResNet` beside it, or handed over as a built network.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.systems.resnet import ResNet
from sightline.systems.vit import VisionTransformer

ARCHITECTURES: dict[str, type[nn.Module]] = {"vit": VisionTransformer, "resnet": ResNet}
Backbone = nn.Module | Mapping[str, Any]


def backbone_of(given: Backbone) -> nn.Module:
    """Gives a network of images -> features (B, D): the given one, or one built from plain values.

    Raises ValueError for an unknown architecture and for a network with a class head.
    """
    if isinstance(given, Mapping):
        sizes = dict(given)
        name = sizes.pop("architecture", "vit")
        if name not in ARCHITECTURES:
            raise ValueError(f"architecture is one of {', '.join(ARCHITECTURES)}, given {name!r}")
        given = ARCHITECTURES[name](**{"classes": 0, **sizes})
    if isinstance(getattr(given, "head", None), nn.Linear):
        raise ValueError(f"this {type(given).__name__} has a class head: build it with classes=0")
    return given


def width_of(backbone: nn.Module) -> int:
    """Tells the width of a backbone's features."""
    if isinstance(backbone, VisionTransformer):
        return backbone.norm.normalized_shape[0]
    width = getattr(backbone, "dim", None)
    if not isinstance(width, int):
        raise ValueError(f"{type(backbone).__name__} does not say how wide its features are: give it `dim`")
    return width


def encode_views(
    backbone: nn.Module, views: Sequence[Float[Tensor, "batch 3 _h _w"]]
) -> Float[Tensor, "views batch dim"]:
    """Gives the features of several crops of a batch; neighbouring crops of one size go through together.

    Together means also one batch for batch norms, as in the published multi-crop code.
    """
    features = []
    for _, same in groupby(views, key=lambda view: view.shape[-2:]):
        features.append(backbone(torch.cat(list(same))))
    return torch.cat(features).unflatten(0, (len(views), -1))


def last_tokens(
    backbone: VisionTransformer, images: Float[Tensor, "batch 3 height width"], count: int = 4
) -> Float[Tensor, "count batch tokens dim"]:
    """Gives the tokens after each of the last `count` layers, each through the final norm (DINO's linear probe)."""
    tokens, kept = backbone.embed(images), []
    for number, layer in enumerate(backbone.layers):
        tokens = layer(tokens)
        if number >= len(backbone.layers) - count:
            kept.append(backbone.norm(tokens))
    return torch.stack(kept)


def grid_of(backbone: nn.Module, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim rows cols"]:
    """Gives one feature a place: a residual network's last map, or a transformer's patch tokens."""
    if isinstance(backbone, ResNet):
        return backbone.grid(images)
    if not isinstance(backbone, VisionTransformer):
        raise ValueError(f"{type(backbone).__name__} has no feature map that is known here; take vit or resnet")
    rows, columns = backbone.patches.grid(images)
    patches = backbone.tokens(images)[:, 1 + backbone.registers :]
    return patches.transpose(1, 2).unflatten(2, (rows, columns))


def projector(
    widths: Sequence[int], *, bias: bool = True, last_norm: bool = False, activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Builds linear maps of these widths with batch norm and an activation between them.

    `bias` is that of the inner maps; `last_norm` ends in a batch norm without scale and shift.
    """
    layers: list[nn.Module] = []
    for given, out in pairwise(widths[:-1]):
        layers += [nn.Linear(given, out, bias=bias), nn.BatchNorm1d(out), activation()]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=bias and not last_norm))
    return nn.Sequential(*layers, *([nn.BatchNorm1d(widths[-1], affine=False)] if last_norm else []))


def unit(rows: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows dim"]:
    """Brings rows to length 1, in float32."""
    return F.normalize(rows.float(), dim=-1)
