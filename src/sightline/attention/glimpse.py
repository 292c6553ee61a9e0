"""Glimpses: square windows of an image at several scales around given places, sharp in the middle and coarse around.

Recurrent Models of Visual Attention, Mnih et al., NIPS 2014, section 3.1.  Equal to the published PyTorch code: of an
image padded with zeros, the window of size s around place (x, y) in -1..1 begins at trunc((x + 1) / 2 width) - s // 2;
windows of factor, factor^2 … times the size are averaged down to it.  Work and memory depend on the windows alone, not
on the image.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sightline.attention import observe


def window(
    images: Float[Tensor, "batch channels height width"], places: Float[Tensor, "batch 2"], size: int
) -> Float[Tensor, "batch channels {size} {size}"]:
    """Cuts one square of `size` pixels around each place (x, y) in -1..1; zeros outside the image.

    -1 is the left or upper edge, 1 the right or lower one.  Places carry no gradient, pixels do.  Raises ValueError
    for a size below 1.
    """
    rows, columns = _lines(places[:, 1], images.shape[-2], size), _lines(places[:, 0], images.shape[-1], size)
    cut = _cut(images, rows, columns)
    cut *= _inside(rows, images.shape[-2]).to(cut.dtype)[:, None, :, None]
    cut *= _inside(columns, images.shape[-1]).to(cut.dtype)[:, None, None, :]
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
        parts.append(_averaged(images, places, patch, factor**scale) if scale else window(images, places, patch))
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


def _cut(
    images: Float[Tensor, "batch channels height width"],
    rows: Int[Tensor, "batch size"],
    columns: Int[Tensor, "batch size"],
) -> Float[Tensor, "batch channels size size"]:
    """Reads these rows and columns of each image; those outside give the pixel at the edge."""
    count, channels, height, width = images.shape
    # numbers of 32 bits are half as much to write and read, and reading from the flat images is several times as
    # quick as padding them and cutting from the copy
    number = torch.int32 if images.numel() < 2**31 else torch.int64
    planes = torch.arange(count * channels, device=images.device, dtype=number).view(count, channels, 1) * (
        height * width
    )
    lines = planes + (rows.clamp(0, height - 1) * width).to(number)[:, None]
    pixels = lines[..., None] + columns.clamp(0, width - 1).to(number)[:, None, None]
    return images.flatten().index_select(0, pixels.flatten()).view(pixels.shape)


def _averaged(
    images: Float[Tensor, "batch channels height width"], places: Float[Tensor, "batch 2"], patch: int, times: int
) -> Float[Tensor, "batch channels {patch} {patch}"]:
    """Computes the means of `times` x `times` pixels of a window `times` as wide as the patch; zeros lie outside.

    Row by row, which is twice as quick as masking the window and F.avg_pool2d.
    """
    rows = _lines(places[:, 1], images.shape[-2], patch * times)
    columns = _lines(places[:, 0], images.shape[-1], patch * times)
    cut = _cut(images, rows, columns).unflatten(2, (patch, times))
    inside = _inside(rows, images.shape[-2]).to(cut.dtype).view(-1, 1, patch, times, 1)
    total = cut[:, :, :, 0] * inside[:, :, :, 0]
    for line in range(1, times):
        total.addcmul_(cut[:, :, :, line], inside[:, :, :, line])
    total *= _inside(columns, images.shape[-1]).to(cut.dtype)[:, None, None]
    parts = total.unflatten(3, (patch, times)).unbind(dim=4)
    return sum(parts[1:], parts[0]) / times**2


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
