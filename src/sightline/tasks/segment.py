"""What is where in a photograph: a class for every pixel, and where each class's token looked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sightline.checkpoints.bundled import bundled_folder, bundled_names, weights_in
from sightline.checkpoints.load import load_checkpoint
from sightline.checkpoints.variant import NAME as VARIANT
from sightline.checkpoints.variant import read_variant
from sightline.data import ade20k, camvid, cityscapes, pascal
from sightline.data.photographs import open_photograph
from sightline.data.pixel_labels import bit_palette
from sightline.decoding.windows import class_probabilities
from sightline.lens.given import evaluating
from sightline.lens.record import record
from sightline.lens.segments import Segments
from sightline.lens.sheet import spoken
from sightline.lens.strip import WordStrip
from sightline.systems.segmenter import MaskTransformer, Segmenter
from sightline.systems.segmenter_hybrid import SegmenterHybrid

DEFAULT = "segmenter_hybrid"
MOST = 1 << 27  # numbers (classes x pixels) computed at once: larger photographs, and scales, are brought down to them
ENLARGED = 32  # windows' areas that a photograph may be enlarged to, beyond what it is itself at a scale
# what the published variant.yml calls its data and its scaling of the channels
_PUBLISHED: dict[str, tuple[Sequence[str], np.ndarray]] = {
    "ade20k": (ade20k.CLASSES, ade20k.PALETTE),
    "cityscapes": (cityscapes.CLASSES, cityscapes.PALETTE),
    "pascal_context": (pascal.CONTEXT_CLASSES, bit_palette(len(pascal.CONTEXT_CLASSES))),
    "camvid": (camvid.CLASSES, camvid.PALETTE),
}
_SCALINGS = {"vit": ((0.5,) * 3, (0.5,) * 3), "deit": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}


class SegmentError(ValueError):
    """A system that cannot segment; the message says why in one line."""


@dataclass(frozen=True)
class OpenSegmenter:
    """A network of pixels, its classes with their colours, and how pictures are given to it.

    `mean` and `std` scale channels in 0..1; pictures are brought to a short side of `short` pixels (0: as they are) and
    read in windows (height, width), one every `stride`.
    """

    system: Segmenter | SegmenterHybrid
    classes: tuple[str, ...]
    palette: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    window: tuple[int, int]
    stride: tuple[int, int]
    short: int
    name: str

    def pixels(self, image: Image.Image) -> Tensor:
        """Scales a photograph's channels, (1, 3, height, width)."""
        device = next(self.system.parameters()).device
        pixels = torch.tensor(np.asarray(image)).permute(2, 0, 1)[None].to(device).float() / 255
        mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


@dataclass(frozen=True)
class Segmentation:
    """What one system says of each pixel of one photograph.

    `mask` (height, width) are class numbers, `chance` how likely each pixel's class was.  `areas` is the share of the
    pixels of each class that is there, the largest first, `sure` its pixels' mean chance.  `attention` has a map for
    each of these classes, what its token read in the last layer, mean over heads; None for linear decoders.
    """

    mask: np.ndarray
    chance: np.ndarray
    areas: dict[str, float]
    sure: dict[str, float]
    classes: tuple[str, ...]
    palette: np.ndarray
    image: Image.Image
    attention: WordStrip | None
    system: str
    title: str = "photograph"

    @property
    def segments(self) -> Segments:
        """The drawing: colours on the photograph with a legend, and the page."""
        maps = {} if self.attention is None else dict(zip(self.areas, self.attention.maps, strict=True))
        return Segments(self.image, self.mask, self.classes, self.palette, maps, self.title, self.system)

    @property
    def sentence(self) -> str:
        """The three largest classes in words."""
        told = [f"{spoken(name)} {share:.0%}" for name, share in list(self.areas.items())[:3]]
        return ", ".join(told)

    @property
    def labels(self) -> Image.Image:
        """The mask as a palette picture: each pixel holds its class number and shows the data set's colour."""
        made = Image.fromarray(self.mask)
        made.putpalette(np.vstack([self.palette, np.zeros((256 - len(self.palette), 3), np.uint8)]).tobytes())
        return made

    def show(self) -> None:
        """Opens the picture in a window, or in a notebook's output."""
        self.segments.picture().show()

    def save(self, path: str | Path) -> Path:
        """Writes the picture with its legend (.png, .jpg, .webp), a page on which a class can be chosen (.html), or the
        mask alone (.mask.png)."""
        path = Path(path)
        if path.name.lower().endswith(".mask.png"):
            self.labels.save(path)
            return path
        return self.segments.save(path)

    def __str__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        from html import escape

        from sightline.lens.page_data import data_uri

        return f'<img src="{data_uri(self.segments.picture())}" alt="{escape(self.sentence)}" style="max-width:100%">'


def open_segmenter(system: Any = None) -> OpenSegmenter:
    """Opens a segmenter: a bundled name (default "segmenter_hybrid"), a folder, a hub id, or an open one.

    The folder is that of a run of `sightline train segmenter` (or segmenter_hybrid), its `weights`, or a published one
    of Segmenter's authors, with `checkpoint.pth` and `variant.yml`.  Raises SegmentError for anything else.
    """
    if isinstance(system, OpenSegmenter):
        return system
    name = DEFAULT if system is None else str(system)
    folder = weights_in(bundled_folder(name) if name in bundled_names() else _folder(name))
    published = (folder / VARIANT).is_file()
    if not published and not (folder / "card.json").is_file():
        known = ", ".join(one for one in bundled_names() if one.startswith("segmenter"))
        raise SegmentError(
            f"no segmenter {name!r}: expected a bundled name ({known or 'none in this build'}), the folder of a run of "
            f"`sightline train segmenter`, or one with checkpoint.pth and {VARIANT}"
        )
    network = load_checkpoint(folder, source="segmenter" if published else "sightline")
    if not isinstance(network, Segmenter | SegmenterHybrid):
        raise SegmentError(f"{folder}: holds a {type(network).__name__}, which does not name pixels")
    told = _from_variant(folder) if published else _from_card(folder)
    if len(told["classes"]) != network.classes or len(told["palette"]) != network.classes:
        raise SegmentError(
            f"{folder}: the weights know {network.classes} classes, what lies beside them names "
            f"{len(told['classes'])}: take both from the same folder"
        )
    window = told.pop("window", None) or network.image_size
    stride = told.pop("stride", None) or tuple(max(1, side // 2) for side in window)
    return OpenSegmenter(network, window=tuple(window), stride=tuple(stride), name=name, **told)


def _from_card(folder: Path) -> dict[str, Any]:
    """Classes, colours and scaling that the card of a run names."""
    file = folder / "card.json"
    try:
        card = json.loads(file.read_text("utf-8"))
        palette = np.array([list(bytes.fromhex(colour)) for colour in card["palette"]], dtype=np.uint8)
        scaling = {name: tuple(float(value) for value in card[name]) for name in ("mean", "std")}
        return {"classes": tuple(card["classes"]), "palette": palette, "short": int(card["short"]), **scaling}
    except (KeyError, TypeError, ValueError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise SegmentError(f"{file}: no card of a segmenter's run ({reason}); take it from the run again") from error


def _from_variant(folder: Path) -> dict[str, Any]:
    """The same from the `variant.yml` of the published weights."""
    variant = read_variant(folder)
    parts = {name: variant.get(name) for name in ("dataset_kwargs", "inference_kwargs", "net_kwargs")}
    data, how, net = (part if isinstance(part, Mapping) else {} for part in parts.values())
    name, scaling = data.get("dataset"), data.get("normalization", net.get("normalization", "vit"))
    if name not in _PUBLISHED or scaling not in _SCALINGS:
        raise SegmentError(
            f"{folder / VARIANT}: dataset {name!r} with normalization {scaling!r}; expected one of "
            f"{', '.join(_PUBLISHED)} with {' or '.join(_SCALINGS)}"
        )
    (classes, palette), (mean, std) = _PUBLISHED[name], _SCALINGS[scaling]
    window, stride = how.get("window_size"), how.get("window_stride")
    return {
        "classes": tuple(classes),
        "palette": palette,
        "mean": mean,
        "std": std,
        "short": int(how.get("im_size") or 0),
        "window": None if window is None else (int(window), int(window)),
        "stride": None if stride is None else (int(stride), int(stride)),
    }


def _folder(name: str) -> Path:
    place = Path(name).expanduser()
    if place.exists() or name.count("/") != 1:
        return place
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        wanted = ["*.json", "model.safetensors", "checkpoint.pth", VARIANT]
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise SegmentError(f"no segmenter {name!r}: neither a folder here, nor in the hub's cache or online") from error


def segment(
    image: Any,
    *,
    system: Any = None,
    scales: Sequence[float | int] = (1.0,),
    flip: bool = False,
    smooth: bool = True,
) -> Segmentation:
    """Names every pixel of one photograph, and keeps where each class's token looked.

    `image` is a path, a PIL image, an array or a tensor; `system` is as in `open_segmenter`.  The picture is read in
    overlapping windows whose logits are averaged: less of each towards its border, so that none is seen, or with
    `smooth=False` all of it the same, as published and as `sightline evaluate` measures.  Chances are averaged over
    `scales`, and mirrored with `flip`.  What would be more than 134 million numbers (classes x pixels) of a photograph
    or at a scale is reduced to them.  Raises SegmentError for an unusable system or scale and for strips that would
    become enormous, and PhotographError for a picture that cannot be opened.
    """
    if not scales or not all(0.1 <= scale <= 4 for scale in scales):
        raise SegmentError(f"scales lie between 0.1 and 4, at least one, given {list(scales)}")
    opened = open_segmenter(system)
    photograph = open_photograph(image)
    network = opened.system
    with evaluating(network), torch.no_grad():
        mask, chance = _named(opened, photograph, scales, flip, smooth)
        maps = _class_maps(opened, photograph)
    counts = np.bincount(mask.ravel(), minlength=len(opened.classes))
    found = [int(number) for number in np.argsort(-counts, kind="stable") if counts[number]]
    areas = {opened.classes[number]: float(counts[number] / mask.size) for number in found}
    sure = {opened.classes[number]: float(chance[mask == number].mean()) for number in found}
    attention = None
    if maps is not None:
        shares = tuple(areas.values())
        caption = f"{opened.name}: below each class its share of the area"
        attention = WordStrip(photograph, tuple(map(spoken, areas)), maps[found], shares, caption=caption)
    title = Path(image).name if isinstance(image, str | Path) else "photograph"
    return Segmentation(
        mask, chance, areas, sure, opened.classes, opened.palette, photograph, attention, opened.name, title
    )


def _named(
    opened: OpenSegmenter, photograph: Image.Image, scales: Sequence[float | int], flip: bool, smooth: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The class of each pixel and its chance, (height, width) of the photograph."""
    size, room = photograph.size, MOST / (photograph.width * photograph.height * len(opened.classes))
    if room < 1:
        photograph = photograph.resize([max(1, int(side * room**0.5)) for side in size], Image.Resampling.LANCZOS)
    base = opened.short / min(photograph.size) if opened.short else 1.0
    largest = (MOST / (photograph.width * photograph.height * len(opened.classes))) ** 0.5
    reduced = [min(base * scale, largest) for scale in scales]
    for scale, asked in zip(reduced, scales, strict=True):
        _check_room(opened, size, photograph.size, scale, asked)
    chances = class_probabilities(
        opened.system,
        opened.pixels(photograph),
        window=opened.window,
        stride=opened.stride,
        scales=reduced,
        mirrored=flip,
        smooth=smooth,
    )
    chance, mask = (values[0].cpu().numpy() for values in chances.max(dim=1))
    named = Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return np.array(named), np.array(Image.fromarray(chance).resize(size, Image.Resampling.NEAREST))


def _check_room(
    opened: OpenSegmenter, given: tuple[int, int], size: tuple[int, int], scale: float, asked: float | int
) -> None:
    """Raises SegmentError for a strip: brought to a window's height it would be far larger than the photograph is.

    `size` (width, height) is read at `scale`, enlarged until a window fits; `asked` is the scale that was asked for.
    """
    (width, height), (tall, wide) = size, opened.window
    scale = max(scale, wide / width, tall / height)
    most = min(max(width * height * asked**2, ENLARGED * wide * tall), 2 * MOST / len(opened.classes))
    if width * height * scale**2 > 1.01 * most:
        smaller = ", or ask for smaller scales" if asked > 1 else ""
        raise SegmentError(
            f"a picture of {given[0]} x {given[1]} would become {width * scale:.0f} x {height * scale:.0f} to be read "
            f"in windows of {wide} x {tall}, and {most / 1e6:.1f} million pixels are the most: cut it into pieces that "
            f"are less long{smaller}"
        )


def _class_maps(opened: OpenSegmenter, photograph: Image.Image) -> np.ndarray | None:
    """Where each class token looked in the last layer, (classes, rows, columns), mean over heads; the picture is read
    whole, at a window's size, in whole patches.  None for a linear decoder."""
    decoder = opened.system.decoder
    if not isinstance(decoder, MaskTransformer):
        return None
    pixels, area = opened.pixels(photograph), opened.window[0] * opened.window[1]
    scale = (area / (pixels.shape[2] * pixels.shape[3])) ** 0.5
    whole = 32 if isinstance(opened.system, SegmenterHybrid) else opened.system.patch
    size = [max(1, round(side * scale / whole)) * whole for side in pixels.shape[2:]]
    rows = slice(-decoder.classes, None)
    with record(opened.system, queries=rows, sites=f"decoder.layers.{len(decoder.layers) - 1}.*") as seen:
        opened.system.masks(F.interpolate(pixels, size=size, mode="bilinear", antialias=scale < 1))
    cells = [side // opened.system.patch for side in size]
    read = seen[-1].weights[0].float().mean(dim=0)[:, : cells[0] * cells[1]]  # what is left went to other class tokens
    return read.unflatten(1, cells).cpu().numpy()
