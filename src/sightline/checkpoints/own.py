"""Sightline's own folders (`save_pretrained`): constructor keywords in config.json, and weights."""

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sightline.checkpoints.convert import Converted, settle
from sightline.systems.dinov2 import DINOv2
from sightline.systems.efficientnet_lite import EfficientNetLite
from sightline.systems.ps_vit import PSViT
from sightline.systems.ram import RAM
from sightline.systems.segmenter import Segmenter
from sightline.systems.segmenter_hybrid import SegmenterHybrid
from sightline.systems.seq2seq import Seq2Seq
from sightline.systems.show_and_tell import ShowAndTell
from sightline.systems.show_attend_tell import ShowAttendTell
from sightline.systems.transformer import Transformer
from sightline.systems.visual7w import Visual7W, Visual7WPointing
from sightline.systems.vit import VisionTransformer

SYSTEMS: tuple[type[nn.Module], ...] = (
    VisionTransformer,
    DINOv2,
    PSViT,
    RAM,
    Seq2Seq,
    Transformer,
    Segmenter,
    SegmenterHybrid,
    EfficientNetLite,
    ShowAndTell,
    ShowAttendTell,
    Visual7W,
    Visual7WPointing,
)


def matches(keys: Collection[str], config: Mapping[str, Any]) -> bool:
    """Recognises weights whose names are exactly those of a system built from config.json."""
    return _system(keys, config) is not None


def convert(state: Mapping[str, Tensor], config: Mapping[str, Any], **overrides: Any) -> Converted:
    """Reads the weights as they are; the config's keywords build the system.

    Raises ValueError where no system fits, or a keyword contradicts the config.
    """
    system = _system(state, config)
    if system is None:
        known = ", ".join(one.__name__ for one in SYSTEMS)
        raise ValueError(f"no system ({known}) has these weights with these keywords of config.json: {dict(config)}")
    return Converted(system, settle(system, dict(config), overrides), dict(state))


def _system(keys: Collection[str], config: Mapping[str, Any]) -> type[nn.Module] | None:
    for system in SYSTEMS:
        if not config or not set(config) <= set(inspect.signature(system).parameters):
            continue
        try:
            with torch.device("meta"):
                names = system(**config).state_dict().keys()
        except (TypeError, ValueError, RuntimeError):  # a foreign config with keywords of the same names
            continue
        if set(names) == set(keys):
            return system
    return None
