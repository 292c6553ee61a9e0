"""Segments pictures of any size: sliding windows whose logits are averaged, several scales, mirrored pictures.

As Segmenter's published inference (Strudel et al. 2021, section 4.1): logits of overlapping windows are averaged,
scaled to the picture, and only then become probabilities; scales and mirrored pictures average probabilities.
There all windows count the same; `smooth` lets each count less towards its border, so that none ends in a line.
"""

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Model = Callable[[Tensor], Tensor]


def starts(side: int, window: int, stride: int) -> list[int]:
    """Lists where windows begin along a side: every `stride` pixels, the last one ending where the side ends.

    Raises ValueError for a window that is longer than the side and for a stride below 1.
    """
    if window > side or stride < 1 or window < 1:
        raise ValueError(f"windows of {window} pixels every {stride} do not fit a side of {side}")
    return [place for place in range(0, side, stride) if place < side - window] + [side - window]


def bump(window: tuple[int, int]) -> Float[Tensor, "height width"]:
    """Computes how much each pixel of a window counts: sin²(π (i + ½) / n) of its row times that of its column.

    Positive everywhere, 1 in the middle; windows half their length apart add up to 1.
    """
    rows, columns = (torch.sin(math.pi * (torch.arange(n) + 0.5) / n).square() for n in window)
    return rows[:, None] * columns


def sliding_logits(
    model: Model,
    images: Float[Tensor, "batch 3 height width"],
    *,
    window: tuple[int, int],
    stride: tuple[int, int],
    most: int = 8,
    smooth: bool = False,
) -> Float[Tensor, "batch classes height width"]:
    """Computes logits window by window and averages them where windows overlap.

    `window` and `stride` are (height, width) in pixels, `most` how many windows the model gets at once.  All windows
    count the same, or with `smooth` by their `bump`; one window alone is the model's answer in both.  Raises ValueError
    for windows that do not fit.
    """
    height, width = images.shape[-2:]
    places = [(y, x) for y in starts(height, window[0], stride[0]) for x in starts(width, window[1], stride[1])]
    cuts = [images[:, :, y : y + window[0], x : x + window[1]] for y, x in places]
    if len(cuts) == 1:
        return model(images)
    logits = torch.cat([model(part) for part in torch.cat(cuts).split(most)]).split(len(images))
    # a bump is tiny in the corners, too tiny for half precision
    weight = bump(window).to(images.device) if smooth else logits[0].new_ones(window)
    total = weight.new_zeros(len(images), logits[0].shape[1], height, width)
    count = weight.new_zeros(1, 1, height, width)
    for (y, x), part in zip(places, logits, strict=True):
        total[:, :, y : y + window[0], x : x + window[1]] += weight * part
        count[:, :, y : y + window[0], x : x + window[1]] += weight
    return (total / count).to(logits[0].dtype)


def enlarge_to(
    images: Float[Tensor, "batch 3 height width"], window: tuple[int, int]
) -> Float[Tensor, "batch 3 taller wider"]:
    """Scales pictures up, keeping their shape, until a window fits; larger ones stay as they are."""
    height, width = images.shape[-2:]
    ratio = max(window[0] / height, window[1] / width)
    if ratio <= 1:
        return images
    size = (max(window[0], int(height * ratio)), max(window[1], int(width * ratio)))
    return F.interpolate(images, size=size, mode="bilinear")


def class_probabilities(
    model: Model,
    images: Float[Tensor, "batch 3 height width"],
    *,
    window: tuple[int, int],
    stride: tuple[int, int],
    scales: Sequence[float | int] = (1.0,),
    mirrored: bool = False,
    smooth: bool = False,
) -> Float[Tensor, "batch classes height width"]:
    """Computes the probability of each class at each pixel, averaged over `scales`, and over mirrored pictures too.

    `window`, `stride` and `smooth` are those of `sliding_logits`.  Raises ValueError for no scales and
    scales that are not positive.
    """
    if not scales or min(scales) <= 0:
        raise ValueError(f"scales must be positive, at least one, given {list(scales)}")
    size = (images.shape[-2], images.shape[-1])
    total: Tensor | float = 0.0
    for scale in scales:
        scaled = images
        if scale != 1:
            sides = [max(1, round(side * scale)) for side in size]
            scaled = F.interpolate(images, size=sides, mode="bilinear", antialias=scale < 1)
        scaled = enlarge_to(scaled, window)
        for view in (scaled, scaled.flip(3)) if mirrored else (scaled,):
            logits = sliding_logits(model, view, window=window, stride=stride, smooth=smooth)
            logits = logits if view is scaled else logits.flip(3)
            if logits.shape[-2:] != size:
                logits = F.interpolate(logits, size=size, mode="bilinear")
            total = total + logits.softmax(dim=1)
    return total / (len(scales) * (2 if mirrored else 1))  # type: ignore[return-value]  # a tensor after the first
