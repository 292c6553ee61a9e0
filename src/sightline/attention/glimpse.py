"""Glimpses: square windows of an image at several scales around given places, sharp in the middle and coarse around.

Recurrent Models of Visual Attention, Mnih et al., NIPS 2014, section 3.1.  Equal to the published PyTorch code: of an
image padded with zeros, the window of size s around place (x, y) in -1..1 begins at trunc((x + 1) / 2 width) - s // 2;
windows of factor, factor^2 … times the size are averaged down to it.  Work and memory depend on the windows alone, not
on the image.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from sightline.attention import observe


def window(
    images: Float[Tensor, "batch channels height width"], places: Float[Tensor, "batch 2"], size: int
) -> Float[Tensor, "batch channels {size} {size}"]:
    """Cuts one square of `size` pixels around each place (x, y) in -1..1; zeros outside the image.

    -1 is the left or upper edge, 1 the right or lower one.  Places carry no gradient, pixels do.  Raises ValueError
    for a size below 1.
    """
    height, width = images.shape[-2:]
    rows, columns = _lines(places[:, 1], height, size), _lines(places[:, 0], width, size)
    pixels = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
    # reading from the flat image is up to seven times as quick here as padding it and cutting from the copy
    every = pixels.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    cut = images.flatten(2).gather(2, every).view(len(images), -1, size, size)
    cut *= _inside(rows, height).to(cut.dtype)[:, None, :, None]
    cut *= _inside(columns, width).to(cut.dtype)[:, None, None, :]
    return cut


def retina(
    images: Float[Tensor, "batch channels height width"],
    places: Float[Tensor, "batch 2"],
    *,
    patch: int,
    scales: int = 1,
    factor: int = 2,
) -> Float[Tensor, "batch parts {patch} {patch}"]:
    """Computes the retina-like reading rho(x, l): `scales` windows around each place, all `patch` pixels wide.

    Window k covers patch factor^k pixels and is averaged down; parts = scales channels, the finest first.  Whoever
    listens through `observe` is told what share of the reading each pixel of the image has.  Raises ValueError for
    sizes below 1.
    """
    check_retina(patch, scales, factor)
    parts = []
    for scale in range(scales):
        cut = window(images, places, patch * factor**scale)
        parts.append(F.avg_pool2d(cut, factor**scale) if scale else cut)
    if observe.listening():
        height, width = images.shape[-2:]
        shares = reading_shares(places, (height, width), patch=patch, scales=scales, factor=factor)
        observe.report(shares.flatten(1)[:, None, None], kind="cross", name="glimpse")
    return torch.cat(parts, dim=1)


def reading_shares(
    places: Float[Tensor, "batch 2"], image_size: tuple[int, int], *, patch: int, scales: int = 1, factor: int = 2
) -> Float[Tensor, "batch height width"]:
    """Computes what share of a retina's reading each pixel has: positive inside the windows, 1 in all.

    Each window counts the same, spread evenly over its pixels inside the image.
    """
    check_retina(patch, scales, factor)
    height, width = image_size
    total = torch.zeros(len(places), height, width, device=places.device)
    for scale in range(scales):
        size = patch * factor**scale
        rows, columns = _covered(places[:, 1], height, size), _covered(places[:, 0], width, size)
        total += (rows[:, :, None] & columns[:, None, :]) / size**2
    # a place on an edge with a window of one pixel may lie wholly outside: it read nothing but padding
    mass = total.sum(dim=(1, 2), keepdim=True)
    return torch.where(mass > 0, total / mass.clamp_min(1e-12), 1 / (height * width))


def window_box(x: float, y: float, image_size: tuple[int, int], size: int) -> tuple[int, int, int, int]:
    """Tells the (left, top, right, bottom) pixel edges of the window around (x, y); they may lie outside the image."""
    height, width = image_size
    place = torch.tensor([[x, y]], dtype=torch.float32)
    left, top = int(_lines(place[:, 0], width, size)[0, 0]), int(_lines(place[:, 1], height, size)[0, 0])
    return left, top, left + size, top + size


def check_retina(patch: int, scales: int, factor: int) -> None:
    """Raises ValueError, in one line, for sizes that make no retina."""
    if patch < 1 or scales < 1 or factor < 1:
        raise ValueError(f"a retina needs patch, scales and factor of 1 or more, given {patch=}, {scales=}, {factor=}")


def _lines(place: Float[Tensor, " batch"], extent: int, size: int) -> Int[Tensor, "batch size"]:
    if size < 1:
        raise ValueError(f"a window is at least one pixel wide, given size={size}")
    start = (0.5 * ((place + 1.0) * extent)).long()  # in this order, as the published code rounds
    return start[:, None] + (torch.arange(size, device=place.device) - size // 2)


def _inside(lines: Int[Tensor, "batch size"], extent: int) -> Bool[Tensor, "batch size"]:
    return (lines >= 0) & (lines < extent)


def _covered(place: Float[Tensor, " batch"], extent: int, size: int) -> Bool[Tensor, "batch extent"]:
    first = _lines(place, extent, size)[:, :1]
    every = torch.arange(extent, device=place.device)
    return (every >= first) & (every < first + size)
