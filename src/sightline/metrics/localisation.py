"""Does a heat map lie on the object?  Published localisation measures, each beside what knowing nothing would score.

A map of large objects scores well on most of these by luck, so every function returns its value together with the
area baseline (a map that is the same everywhere) and the centre baseline (a Gaussian, or a box, at the middle).
Whether what was looked at also *mattered* is another question: `sightline.lens.check`.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.lens.regions import centre_like, centre_map, highest


@dataclass(frozen=True, eq=False)
class Localised:
    """A measure over images, and the same for maps that know nothing.

    value      mean over images, 0 … 1
    area       what an even map scores (the share of the picture that the object covers, for most)
    centre     what the middle of the picture scores
    each       (images,) value of each image
    mean_head  for measures that pick the best head: the mean over heads instead, without the luck of picking
    """

    value: float
    area: float
    centre: float
    each: Tensor
    mean_head: float | None = None

    def __str__(self) -> str:
        head = "" if self.mean_head is None else f", mean head {self.mean_head:.3f}"
        return f"{self.value:.3f} (area {self.area:.3f}, centre {self.centre:.3f}{head}; {len(self.each)} images)"


def pointing_game(
    heat: Float[Tensor, "images h w"], objects: Bool[Tensor, "images height width"], *, tolerance: int | float = 15
) -> Localised:
    """Pointing game: share of images whose highest point lies on the object (Zhang et al. 2016, Excitation Backprop).

    hit = 1 where the maximum of the map, enlarged bilinearly to the mask's size, is at most `tolerance` pixels from the
    object; the value is hits / images.  Published figures use 15 px at the image's own size and count one pair of
    image and class; their "difficult" subset (object under a quarter of the image, another class present) is taken by
    choosing images.

    Traps: several objects in one mask raise the score.  The area baseline counts the tolerance too: it is the share
    of points that would be a hit.  Where the maximum is shared (flat maps), the share of its points that hit counts,
    where argmax would always say the upper left one.

    Raises ValueError for an image without object and for heat that is not finite.
    """
    heat, objects = _at_size(heat, objects, "bilinear"), _with_object(objects)
    near = _grown(objects, tolerance)
    summit = heat.amax((1, 2), keepdim=True)
    peaks = heat >= summit - 1e-6 * summit.abs()  # enlarging rounds a plateau's points apart
    each = (peaks & near).sum((1, 2)) / peaks.sum((1, 2))
    middle = near[:, near.shape[1] // 2, near.shape[2] // 2]
    return Localised(float(each.mean()), float(near.float().mean()), float(middle.float().mean()), each)


def energy_pointing_game(heat: Float[Tensor, "images h w"], objects: Bool[Tensor, "images height width"]) -> Localised:
    """Energy-based pointing game: share of the map's energy on the object (Wang et al. 2020, Score-CAM).

    Σ_object heat / Σ heat, the map enlarged bilinearly to the mask's size; mean over images.  With masks in place of
    boxes it is the Weighting Game.  The area baseline is the object's share of the image: report the two together, a
    large box gives a large value.  Raises ValueError for heat below 0 (clamp signed maps first) or 0 everywhere, and
    for an image without object.
    """
    return _energy(_at_size(heat, objects, "bilinear"), _with_object(objects))


def attention_correctness(
    attention: Float[Tensor, "words h w"], regions: Bool[Tensor, "words height width"]
) -> Localised:
    """Attention correctness: attention that falls in the region of the word being said (Liu et al., AAAI 2017).

    Σ_region α̂ with α̂ the word's map enlarged to the image and divided by its sum; mean over words.  One map and one
    region a word (the union of its boxes); words without a region (function words) are left out before.  A cell's
    attention is spread evenly over its pixels.  The area baseline is the paper's "uniform".
    Raises ValueError as `energy_pointing_game`.
    """
    return _energy(_at_size(attention, regions, "nearest-exact"), _with_object(regions))


def attention_jaccard(
    attention: Sequence[Tensor] | Tensor, objects: Sequence[Tensor] | Tensor, *, keep: float = 0.6
) -> Localised:
    """Jaccard of top-mass attention masks with objects, best head for each (Caron et al. 2021, DINO, Figure 4).

    Each head's class-token map is cut to the smallest set of patches that holds `keep` of its mass, enlarged by
    nearest neighbour; J = |mask ∩ object| / |mask ∪ object|; the best head is chosen for each object, then the mean is
    taken over the objects of an image, then over images.

    attention   for each image (heads, h, w), >= 0, prefix tokens already left out
    objects     for each image (objects, height, width) booleans, pixels marked "void" in none of them

    The area baseline takes the whole image as mask, the centre baseline the centred Gaussian cut in the same way.
    Trap: the best of many heads is high by luck too; `mean_head` shows the rest.
    Raises ValueError for unequal lengths, an image without object, or attention below 0.
    """
    if len(attention) != len(objects) or not len(attention):
        raise ValueError(f"{len(attention)} attention maps for {len(objects)} images: give one for each, at least one.")
    best, mean, area, centre = [], [], [], []
    for heads, of_image in zip(attention, objects, strict=True):
        _with_object(of_image)
        masks = highest(heads, mass=keep)
        middle = highest(centre_map(*heads.shape[1:])[None].to(heads), mass=keep)
        overlap = _jaccard(_enlarged(masks, of_image), of_image)  # (heads, objects)
        best.append(overlap.amax(0).mean())
        mean.append(overlap.mean())
        area.append(of_image.float().mean())
        centre.append(_jaccard(_enlarged(middle, of_image), of_image).mean())
    each = torch.stack(best)
    value, area_, centre_, mean_ = (float(torch.stack(part).mean()) for part in (best, area, centre, mean))
    return Localised(value, area_, centre_, each, mean_)


def corloc(
    heat: Float[Tensor, "images h w"],
    boxes: Sequence[Tensor],
    size: tuple[int, int],
    *,
    keep: float | None = None,
) -> Localised:
    """CorLoc: share of images where the box around the map's largest part meets an object (Deselaers et al. 2010).

    Correct where IoU > 0.5 with any of the image's boxes.  The map's box is that of `attention_box`.

    boxes   for each image (objects, 4): x0, y0, x1, y1 in pixels, x1 and y1 just outside.  VOC files count from 1 and
            include the last pixel: subtract 1 from x0 and y0 first.
    size    (height, width) of the images in pixels.
    keep    as in `attention_box`.

    The area baseline answers with the whole image, the centre baseline with a centred box of half its area.  Both are
    strong where one object fills the picture.  Raises ValueError for unequal lengths or an image without box.
    """
    if len(heat) != len(boxes) or any(len(of_image) == 0 for of_image in boxes):
        raise ValueError(f"{len(heat)} maps for {len(boxes)} lists of boxes: give one or more boxes for each image.")
    height, width = size
    inset = (1 - 0.5**0.5) / 2
    whole = torch.tensor([0.0, 0.0, width, height])
    middle = torch.tensor([inset * width, inset * height, (1 - inset) * width, (1 - inset) * height])
    found = attention_box(heat, size, keep=keep)

    def right(guesses: Tensor) -> Tensor:
        return torch.stack([(_iou(g, b) > 0.5).any() for g, b in zip(guesses, boxes, strict=True)]).float()

    each = right(found)
    area, centre = (float(right(guess.expand(len(boxes), 4)).mean()) for guess in (whole, middle))
    return Localised(float(each.mean()), area, centre, each)


def attention_box(
    heat: Float[Tensor, "images h w"], size: tuple[int, int], *, keep: float | None = None
) -> Float[Tensor, "images 4"]:
    """Box (x0, y0, x1, y1; pixels, ends just outside) around the largest connected part of each thresholded map.

    keep   None: cells above the map's mean; else the smallest set of cells with that share of its mass.
    Parts are joined along edges, not corners.  A flat map gives the whole image.
    """
    if not bool(heat.isfinite().all()):
        raise ValueError("heat holds NaN or infinity.")
    masks = heat > heat.mean((1, 2), keepdim=True) if keep is None else highest(heat, mass=keep)
    scale = torch.tensor([size[1] / heat.shape[2], size[0] / heat.shape[1]]).repeat(2)
    boxes = []
    for mask in masks:
        if not bool(mask.any()):
            mask = torch.ones_like(mask)
        cells = largest_component(mask).nonzero().flip(1)  # (cells, 2): column, row
        boxes.append(torch.cat([cells.amin(0), cells.amax(0) + 1]).cpu() * scale)
    return torch.stack(boxes)


def largest_component(mask: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """The largest part of a mask whose cells touch along edges; the first in reading order among equals."""
    height, width = mask.shape
    open_cells = set(mask.flatten().nonzero().flatten().tolist())
    best: list[int] = []
    for start in sorted(open_cells):
        if start not in open_cells:
            continue
        open_cells.remove(start)
        part, waiting = [start], deque([start])
        while waiting:
            y, x = divmod(waiting.popleft(), width)
            for ny, nx in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                cell = ny * width + nx
                if 0 <= ny < height and 0 <= nx < width and cell in open_cells:
                    open_cells.remove(cell)
                    part.append(cell)
                    waiting.append(cell)
        best = part if len(part) > len(best) else best
    result = torch.zeros(height * width, dtype=torch.bool, device=mask.device)
    result[best] = True
    return result.view(height, width)


def _energy(heat: Tensor, objects: Tensor) -> Localised:
    if bool((heat < 0).any()) or bool((heat.sum((1, 2)) == 0).any()):
        raise ValueError("heat must be >= 0 and not 0 everywhere: clamp signed maps, or take their positive part.")

    def share(maps: Tensor) -> Tensor:
        return (maps * objects).sum((1, 2)) / maps.sum((1, 2))

    each = share(heat)
    return Localised(float(each.mean()), float(objects.float().mean()), float(share(centre_like(heat)).mean()), each)


def _at_size(heat: Tensor, objects: Tensor, mode: str) -> Tensor:
    if len(heat) != len(objects):
        raise ValueError(f"{len(heat)} heat maps for {len(objects)} masks: give one mask for each map.")
    if not bool(heat.isfinite().all()):
        raise ValueError("heat holds NaN or infinity.")
    corners = {"align_corners": False} if mode == "bilinear" else {}
    return F.interpolate(heat[:, None], objects.shape[-2:], mode=mode, **corners)[:, 0]


def _with_object(objects: Tensor) -> Tensor:
    if objects.dtype != torch.bool or objects.ndim != 3 or not len(objects):
        raise ValueError(f"masks must be booleans (…, height, width), got {objects.dtype} {tuple(objects.shape)}.")
    empty = (~objects.flatten(1).any(1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"Masks {empty[:8]} hold no object: leave them out, they cannot be hit.")
    return objects


def _grown(objects: Tensor, radius: int | float) -> Tensor:
    """Pixels at most `radius` (Euclidean) from the object: the union of rows of a disc moved up and down."""
    grown = torch.zeros_like(objects)
    height = objects.shape[1]
    for dy in range(-int(radius), int(radius) + 1):
        if abs(dy) >= height:
            continue
        half = int((radius**2 - dy**2) ** 0.5)
        wide = F.max_pool1d(objects.float(), 2 * half + 1, stride=1, padding=half) > 0
        to, source = slice(max(dy, 0), height + min(dy, 0)), slice(max(-dy, 0), height + min(-dy, 0))
        grown[:, to] |= wide[:, source]
    return grown


def _enlarged(masks: Tensor, objects: Tensor) -> Tensor:
    return F.interpolate(masks[:, None].float(), objects.shape[-2:], mode="nearest")[:, 0] > 0


def _jaccard(masks: Tensor, objects: Tensor) -> Tensor:
    """(masks, objects) intersection over union."""
    one, other = masks.flatten(1).float(), objects.flatten(1).float()
    both = one @ other.T
    return both / (one.sum(1)[:, None] + other.sum(1)[None] - both)


def _iou(box: Tensor, boxes: Tensor) -> Tensor:
    boxes = boxes.to(torch.float32).cpu()
    corner, end = torch.maximum(box[:2], boxes[:, :2]), torch.minimum(box[2:], boxes[:, 2:])
    both = (end - corner).clamp(min=0).prod(1)
    return both / ((box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - both)
