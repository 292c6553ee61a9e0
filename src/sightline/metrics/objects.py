"""Does a model's class token look at the objects?  All measures of `metrics/localisation.py` in one go, with controls.

The published code for DINO's Figure 4 was never released; this is the whole of it: the last layer's class-token maps,
head by head, cut to 60 % of their mass, against masks that are known.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sightline.lens import CLS, record
from sightline.lens.given import evaluating
from sightline.lens.heat import image_sites
from sightline.metrics.localisation import (
    Localised,
    attention_jaccard,
    energy_pointing_game,
    pointing_game,
)

SHARE = 60  # pixels at this part of the picture's long side: the tolerance of the pointing game, 15 at 900 … 2 at 128


@dataclass(frozen=True, eq=False)
class ObjectScores:
    """How well class-token attention lies on objects, over images.

    jaccard    masks of 60 % of each head's mass, the best head for each object (and `mean_head`)
    pointing   share of images where the mean of the heads is highest on an object
    energy     share of the mean's mass on objects
    moved      the Jaccard of each picture's maps with the objects of the picture before: what is true of any picture
               (a liking for the middle) stays, what was seen in this one goes
    """

    jaccard: Localised
    pointing: Localised
    energy: Localised
    moved: Localised

    def figures(self) -> dict[str, int | float]:
        """Gives the number of images and the figures by name, each beside what knowing nothing scores."""
        told = {"images": len(self.jaccard.each), "jaccard_mean_head": self.jaccard.mean_head or 0.0}
        told["jaccard_moved"] = self.moved.value
        for name, one in (("jaccard", self.jaccard), ("pointing", self.pointing), ("energy", self.energy)):
            told |= {name: one.value, f"{name}_area": one.area, f"{name}_centre": one.centre}
        return {name: round(value, 4) for name, value in told.items()}


@torch.no_grad()
def class_token_maps(
    model: nn.Module, pixels: Float[Tensor, "images 3 height width"], *, layer: int = -1
) -> Float[Tensor, "images heads rows columns"]:
    """Gives the class token's attention over the patches in one layer, head by head; only that row is computed.

    Raises ValueError for a model without a class token or whose patches cannot be placed on the image.
    """
    with evaluating(model), record(model, queries=CLS) as seen:
        model(pixels)
    placed = image_sites(seen)[layer]
    token = placed.layout.class_token
    if token is None:
        raise ValueError(f"{type(model).__name__} has no class token ({placed.layout.describe()})")
    return placed.layout.map(placed.site.row(token)).float()


def attention_on_objects(
    model: nn.Module, batches: Iterable[tuple[Tensor, Sequence[Tensor]]], *, keep: float = 0.6, layer: int = -1
) -> ObjectScores:
    """Measures class-token attention of `layer` against objects.

    `batches` gives (pixels (n, 3, H, W) as the model takes them, for each picture its masks (objects, h, w)); masks may
    be of another size than the pixels and cover the same picture; maps are of one size, and masks are too, in all
    pictures.  Raises ValueError for others, for fewer than two pictures, for a picture without object, and as
    `class_token_maps`.
    """
    maps: list[Tensor] = []
    masks: list[Tensor] = []
    for pixels, objects in batches:
        maps += class_token_maps(model, pixels, layer=layer).cpu()
        masks += [one.cpu() for one in objects]
    if len(maps) < 2:
        raise ValueError(
            f"{len(maps)} pictures: at least two are needed, since each is compared with another's objects"
        )
    for what, found in (("maps", maps), ("masks", masks)):
        sizes = sorted({tuple(one.shape[-2:]) for one in found})
        if len(sizes) > 1:
            raise ValueError(
                f"{what} of {' and '.join(f'{height} x {width}' for height, width in sizes[:2])}: expected one size in "
                "all pictures; resize pixels and masks to it"
            )
    whole = torch.stack([one.any(dim=0) for one in masks])
    mean = torch.stack([one.mean(dim=0) for one in maps])
    return ObjectScores(
        jaccard=attention_jaccard(maps, masks, keep=keep),
        pointing=pointing_game(mean, whole, tolerance=max(whole.shape[-2:]) / SHARE),
        energy=energy_pointing_game(mean, whole),
        moved=attention_jaccard(maps, masks[-1:] + masks[:-1], keep=keep),
    )
