"""How a map becomes colour on a photograph, and how a picture gets its paper, words and colour bar.

Colours are matplotlib's perceptually uniform tables, and nothing touches pyplot.  The photograph is dimmed
and mostly drained of colour below a heat map, so that a hotter cell is a lighter pixel, on bright and on
dark photographs alike.  The views made of these parts are in `view`.
"""

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from torch import Tensor

COLOURS = ("inferno", "magma", "plasma", "viridis", "cividis")
LONGEST, SHORTEST = (
    1024,
    384,
)  # the long side of a picture: larger photographs are reduced, smaller ones enlarged

Array = np.ndarray | Tensor | Sequence[Any]
Number = float | int  # the run-time checks of the tests tell them apart
NOT_FINITE = "NaN or infinite: NaN in the picture or the weights gives such maps, and so does a fully masked row"
Photograph = Image.Image | np.ndarray | Tensor


@lru_cache(maxsize=8)
def colour_table(name: str) -> np.ndarray:
    """The 256 colours of a perceptually uniform table, cold to hot: uint8 of shape (256, 3)."""
    if name not in COLOURS:
        raise ValueError(f"no perceptually uniform colours are called {name!r}; choose one of {', '.join(COLOURS)}")
    import matplotlib

    return (matplotlib.colormaps[name](np.arange(256) / 255.0)[:, :3] * 255).round().astype(np.uint8)


def photograph(image: Photograph) -> Image.Image:
    """An RGB picture of a PIL image, an (H, W) or (H, W, 3) array, or a (3, H, W) tensor.

    Floats within 0..1 are taken as they are; floats outside (a model's normalised pixels) are stretched from
    their lowest to their highest value.  Transparency is laid on white.  Raises ValueError for another shape and
    TypeError for the name of a file.
    """
    if isinstance(image, Image.Image):
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            clear = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
        return image.convert("RGB")
    if isinstance(image, str | os.PathLike):
        raise TypeError(
            f"a photograph is given itself, not its name: Image.open({os.fspath(image)!r}) of Pillow opens it"
        )
    values = image.detach().float().cpu().numpy().transpose(1, 2, 0) if isinstance(image, Tensor) else image
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (1, 3)) or values.size == 0:
        raise ValueError(
            f"no photograph has the shape {tuple(image.shape)}: give an array (height, width, 3) "
            "or a tensor (3, height, width)"
        )
    if values.dtype != np.uint8:
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise ValueError("the photograph holds NaN or infinite values")
        if low < 0 or high > 1:
            values = (values - low) / max(high - low, 1e-12)
        values = (values * 255).round().astype(np.uint8)
    return Image.fromarray(values.squeeze(-1) if values.ndim == 3 and values.shape[2] == 1 else values).convert("RGB")


def as_map(heat: Array) -> np.ndarray:
    """The map as a float64 (h, w) array; ValueError where it has another shape, or NaN or infinite cells."""
    values = np.asarray(heat.detach().double().cpu() if isinstance(heat, Tensor) else heat, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"a map has the shape (height, width), not {values.shape}; choose one image, layer and head")
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(f"{bad} of the map's {values.size} cells are {NOT_FINITE}")
    return values


def top_mass(heat: Array, mass: Number = 0.6) -> np.ndarray:
    """The smallest set of cells that holds `mass` of the map, as DINO draws it: boolean (h, w).

    Cells are dropped from the coldest up while the dropped sum stays within 1 - mass (Caron et al. 2021,
    section 4.2.1).  A map of zeros keeps nothing.  Raises ValueError for a negative cell or a mass outside
    0..1.
    """
    values = as_map(heat)
    if not 0 < mass <= 1:
        raise ValueError(f"mass is the share of the map to keep, above 0 and at most 1, not {mass}")
    if values.min() < 0:
        raise ValueError("a map with negative cells has no shares of mass; clip it at zero first")
    if values.max() == 0:
        return np.zeros(values.shape, dtype=bool)
    order = np.argsort(values, axis=None, kind="stable")
    dropped = np.cumsum(values.ravel()[order] / values.sum())
    keep = np.zeros(values.size, dtype=bool)
    keep[order[dropped > 1 - mass + 1e-12]] = True
    return keep.reshape(values.shape)


def heat_range(heat: Array) -> tuple[float, float]:
    """The values of the coldest and the hottest colour: from 0 (or the lowest negative cell) to a robust top.

    The top is the highest cell, except that a few cells far above all others (attention sinks) saturate: it
    is at most 1.5 times the 98 % quantile but never below an eighth of the highest cell.  The top is
    never below twice the uniform level, so that a nearly even map does not look hot.
    """
    values = as_map(heat)
    highest = float(values.max())
    top = max(1.5 * float(np.quantile(values, 0.98)), highest / 8, 2 * float(values.mean()))
    low = min(0.0, float(values.min()))
    if low == 0 and highest > 0:
        return 0.0, max(min(highest, top), 2 * float(values.mean()))
    return low, highest if highest > low else low + 1.0


def enlarge(values: np.ndarray, size: tuple[int, int], smooth: bool) -> np.ndarray:
    """Values at picture resolution, within the map's own extremes (a cubic overshoots)."""
    kind = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    large = Image.fromarray(values.astype(np.float32)).resize(size, kind)
    return np.clip(np.asarray(large), np.float32(values.min()), np.float32(values.max()))


def dimmed(image: Image.Image) -> np.ndarray:
    """The photograph below a heat map: float32 (H, W, 3) in 0..0.6, little colour, its tones stretched."""
    pixels = np.asarray(image, dtype=np.float32) / 255
    grey = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    low, high = np.quantile(grey[::4, ::4], (0.01, 0.99))
    span = max(high - low, 0.4)
    low = min(low, 1 - span)
    tones = np.clip((grey - low) / span, 0, 1)
    return np.clip(0.12 + 0.46 * tones[..., None] ** 0.75 + 0.2 * (pixels - grey[..., None]), 0, 0.6)


def lay(
    base: np.ndarray,
    heat: np.ndarray,
    limits: tuple[Number, Number],
    *,
    alpha: Number = 0.8,
    colours: str = "inferno",
    smooth: bool = True,
) -> tuple[Image.Image, np.ndarray]:
    """The colours of a map mixed into a `dimmed` photograph, and the map at the photograph's size."""
    large = enlarge(heat, (base.shape[1], base.shape[0]), smooth)
    level = np.clip((large - limits[0]) / max(limits[1] - limits[0], 1e-30), 0, 1).astype(np.float32)
    paint = (colour_table(colours) / np.float32(255))[(level * 255).round().astype(np.uint8)]
    weight = (alpha * (0.5 + 0.5 * level))[..., None]
    return Image.fromarray(((base + (paint - base) * weight) * 255 + 0.5).astype(np.uint8)), large


def blend(
    image: Photograph,
    heat: Array,
    *,
    alpha: Number = 0.8,
    colours: str = "inferno",
    smooth: bool = True,
    limits: tuple[Number, Number] | None = None,
    mass: Number | None = 0.6,
) -> Image.Image:
    """The heat on the dimmed photograph, at its size: (1 - a) photo + a colour, a = alpha (1 + v) / 2.

    v in 0..1 is the cell's place within `limits` (default: `heat_range`).  A thin line surrounds the smallest
    region that holds `mass` of the map (None: no line).  Raises ValueError as `as_map` does.
    """
    picture, values = photograph(image), as_map(heat)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is between 0 (photograph only) and 1, not {alpha}")
    limits = limits or heat_range(values)
    mixed, large = lay(dimmed(picture), values, limits, alpha=alpha, colours=colours, smooth=smooth)
    if mass is not None and values.min() >= 0 and values.max() > values.min():
        edge = values[top_mass(values, mass)].min()
        outline(mixed, large >= np.float32(edge) * (1 - 1e-6))
    return mixed


def outline(picture: Image.Image, region: np.ndarray, colour: tuple[int, int, int] = (255, 255, 255)) -> None:
    """Draws the region's border into the picture: a light line within a dark one, readable on anything."""
    inside = Image.fromarray(region.astype(np.uint8) * 255)
    width = 1 + 2 * max(1, round(max(picture.size) / 640))
    for reach, ink, strength in ((width + 2, (0, 0, 0), 0.55), (width, colour, 1.0)):
        grown = np.asarray(inside.filter(ImageFilter.MaxFilter(reach))) > 0
        border = Image.fromarray(((grown & ~region) * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.6))
        picture.paste(ink, (0, 0), border.point([int(v * strength) for v in range(256)]))


def shown_size(image: Image.Image) -> Image.Image:
    """The photograph with its long side within SHORTEST..LONGEST, its aspect kept."""
    longest = max(image.size)
    target = min(max(longest, SHORTEST), LONGEST)
    size = (max(1, round(image.width * target / longest)), max(1, round(image.height * target / longest)))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def relative_to_uniform(values: np.ndarray) -> np.ndarray:
    """The map in multiples of its uniform level; a map of zeros, or with negative cells, stays as it is."""
    return values / values.mean() if values.min() >= 0 and values.max() > 0 else values


def tile(
    base: np.ndarray | None,
    values: np.ndarray,
    size: tuple[int, int],
    limits: tuple[Number, Number],
    colours: str,
) -> Image.Image:
    """Draws one small map on its photograph, or plain where there is none."""
    if base is not None:
        return lay(base, values, limits, colours=colours)[0]
    level = np.clip((values - limits[0]) / (limits[1] - limits[0]), 0, 1)
    plain = Image.fromarray(colour_table(colours)[(level * 255).round().astype(int)])
    return plain.resize(size, Image.Resampling.NEAREST)
