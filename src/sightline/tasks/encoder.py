"""Frozen encoders of photographs for systems that look at a grid of features."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sightline.checkpoints.bundled import bundled, bundled_names
from sightline.data.features import Features, Read, extract, photographs
from sightline.data.scenes import Scenes
from sightline.systems.efficientnet_lite import EfficientNetLite, normalised

DEFAULT = "efficientnet_lite0"


@dataclass(frozen=True)
class Encoder:
    """A network that turns bytes (B, 3, side, side) into a grid (B, width, rows, columns)."""

    name: str
    network: nn.Module
    side: int
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    blocks: int | None = None

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Gives the grid; one or more tokens before the patches (class, registers) are left out."""
        if isinstance(self.network, EfficientNetLite):
            return self.network.grid(normalised(pixels).contiguous(memory_format=torch.channels_last), self.blocks)
        mean, deviation = (torch.tensor(one)[:, None, None] for one in (self.mean, self.deviation))
        hidden = self.network(pixel_values=(pixels.float() / 255 - mean) / deviation).last_hidden_state
        if hidden.ndim == 4:
            return hidden
        across = self.side // int(getattr(self.network.config, "patch_size", 16))
        return hidden[:, -across * across :].transpose(1, 2).unflatten(2, (across, across))


def open_encoder(name: str = DEFAULT, side: int | None = None) -> Encoder:
    """Opens bundled weights (efficientnet_lite0), or any image backbone of transformers by folder or hub id.

    "efficientnet_lite0:11" stops after the eleventh block, whose cells are half as wide.  `side` is the side of the
    pictures it is given (default: that of its training); "efficientnet_lite0@320" says it in the name.  Raises
    ValueError for a name that is neither, and for a backbone without a grid.
    """
    before, _, told = name.rpartition("@")
    if before and told.isdecimal():
        name, side = before, int(told)
    first, _, blocks = name.partition(":")
    if first in bundled_names():
        network = bundled(first)
        if not isinstance(network, EfficientNetLite) or (blocks and not blocks.isdecimal()):
            raise ValueError(f"{name!r} is no bundled encoder; take {DEFAULT!r}, {DEFAULT + ':11'!r} or a hub id")
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Encoder(name, network, side or network.image_size, blocks=int(blocks) if blocks else None)
    from transformers import AutoImageProcessor, AutoModel

    try:
        processor: Any = AutoImageProcessor.from_pretrained(name)
        network = AutoModel.from_pretrained(name).eval()
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"encoder {name!r} is neither bundled, a folder nor a hub id that opens: {reason}") from error
    network = getattr(network, "vision_model", network)
    size = getattr(processor, "crop_size", None) or processor.size
    usual = size.get("height") or size.get("shortest_edge") or 224
    return Encoder(name, network, side or int(usual), tuple(processor.image_mean), tuple(processor.image_std))


def cache() -> Path:
    """Tells where computed features are kept: `SIGHTLINE_CACHE`, by default `~/.cache/sightline`."""
    return Path(os.environ.get("SIGHTLINE_CACHE", Path.home() / ".cache" / "sightline"))


def cached_features(
    paths: Sequence[Path], encoder: str = DEFAULT, *, side: int | None = None, mirrored: bool = False
) -> Features:
    """Gives the features of photographs, computed on the first call and read from `cache()` on the later ones."""
    opened = open_encoder(encoder, side)
    told = "\n".join(str(path.resolve()) for path in paths)
    return _cached([path.name for path in paths], photographs(paths, opened.side), opened, told, mirrored)


def cached_scenes(scenes: Scenes, encoder: str = DEFAULT, *, side: int | None = None) -> Features:
    """Gives the features of generated scenes, enlarged to the encoder's side; named by their numbers."""
    opened = open_encoder(encoder, side)

    def read(first: int, last: int) -> Tensor:
        pictures = scenes.images(range(first, last)).float()
        larger = F.interpolate(pictures, (opened.side, opened.side), mode="bicubic", antialias=True)
        return larger.round().clamp(0, 255).to(torch.uint8)

    told = f"scenes {scenes.seed} {scenes.split.name} {scenes.size} {scenes.objects} {len(scenes)}"
    return _cached([str(number) for number in range(len(scenes))], read, opened, told, False)


def _cached(names: Sequence[str], read: Read, opened: Encoder, told: str, mirrored: bool) -> Features:
    key = f"{opened.name.replace('/', '--')}-{opened.side}-{sha1(told.encode()).hexdigest()[:12]}"
    folder = cache() / "features" / (key + ("-mirrored" if mirrored else ""))
    return extract(names, read, opened, folder, side=opened.side, encoder=opened.name, mirrored=mirrored)
