"""DINO's official files: bare backbones, and full checkpoints, of which `load_checkpoint` reads the teacher's backbone.

`load_whole` reads all of a full checkpoint: student, teacher, heads and centre, to go on training.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sightline.checkpoints import timm_vit
from sightline.checkpoints.convert import Converted, require
from sightline.checkpoints.read import read_part
from sightline.systems.dino import DINO


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


def head_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives the projection head of a full checkpoint in the names of `systems.dino.DINOHead`."""
    last = {"head.last_layer.weight_g": "last.length", "head.last_layer.weight_v": "last.direction"}
    head = {name: value for name, value in state.items() if name.startswith("head.")}
    return {last.get(name, name.removeprefix("head.")): value for name, value in head.items()}


def load_whole(path: str | Path, **overrides: Any) -> DINO:
    """Builds DINO with student, teacher and centre from a published full checkpoint (`dino_*_full_checkpoint.pth`).

    `overrides` are keywords of the Vision Transformer for what shapes cannot show, such as `heads=6`.  The centre stays
    at zero where the file has none.  Raises ValueError for a file without both networks.
    """
    parts = {name: read_part(path, name) for name in ("student", "teacher")}
    head = head_names(parts["teacher"])
    hidden, bottleneck = len(require(head, "mlp.0.weight", 2)), require(head, "last.direction", 2).shape[1]
    model = DINO(
        backbone=convert(parts["student"], {}, **overrides).build(),
        prototypes=len(head["last.direction"]),
        hidden=hidden,
        bottleneck=bottleneck,
        head_norm="mlp.1.running_mean" in head,
        fixed=bool((parts["student"]["head.last_layer.weight_g"] == 1).all()),
    )
    for name, state in parts.items():
        network = getattr(model, name)
        network.backbone.load_state_dict(convert(state, {}, **overrides).state)
        network.head.load_state_dict(head_names(state))
    centre = read_part(path, "dino_loss", needed=False).get("center")
    if centre is not None:
        model.centre.value.copy_(torch.as_tensor(centre))
    return model
