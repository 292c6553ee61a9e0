"""Things of the generated world on grounds of random texture: which pixels are the object's is known exactly.

A picture holds one thing, cut out of a scene that holds nothing else and laid, 30 to 60 % of the picture long, at an
even place on a ground whose colours and patterns say nothing about it.  So a map that points at the thing has found it.
"""

import operator
from collections.abc import Iterable
from typing import NamedTuple, SupportsIndex

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from sightline.data.scenes import Scenes

SHORTEST, LONGEST = 0.3, 0.6  # of the thing, in sides of the picture
DRAWN = 128  # side of the scenes that things are cut from
OCTAVES = (3, 6, 12, 24, 48)  # cells across of the patterns that a ground is made of


class Pictured(NamedTuple):
    """Pictures, and the pixels of the one thing in each."""

    images: UInt8[Tensor, "n 3 side side"]
    masks: Bool[Tensor, "n side side"]


class Cutouts:
    """`count` pictures of `side` pixels; picture i is a function of (seed, i) alone.

    Raises ValueError for a side below 32 and a count below 1; IndexError for an index outside 0..count-1.
    """

    def __init__(self, count: int = 1000, side: int = 128, seed: int = 0) -> None:
        if side < 32 or count < 1:
            raise ValueError(f"{count} pictures of {side} pixels: expected one or more, of 32 pixels or more")
        self.count, self.side, self.seed = count, side, seed
        self._scenes = Scenes(seed=seed, size=DRAWN, count=count, objects=(1, 1))

    def __len__(self) -> int:
        return self.count

    def pictures(self, indices: Iterable[SupportsIndex]) -> Pictured:
        """Draws pictures."""
        numbers = [operator.index(index) for index in indices]
        views = self._scenes.views(numbers)
        made = [
            self._laid(views.images[place].float() / 255, views.owner[place] >= 0, number)
            for place, number in enumerate(numbers)
        ]
        return Pictured(torch.stack([image for image, _ in made]), torch.stack([mask for _, mask in made]))

    def _laid(self, image: Tensor, inside: Tensor, number: int) -> tuple[Tensor, Tensor]:
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        thing, opacity = _enlarged(image, inside, round(self.side * _between(draw, SHORTEST, LONGEST)))
        picture, alpha = ground(self.side, draw), torch.zeros(self.side, self.side)
        height, width = opacity.shape
        top, left = (int(_between(draw, 0, self.side - length + 1)) for length in (height, width))
        alpha[top : top + height, left : left + width] = opacity
        picture[:, top : top + height, left : left + width].lerp_(thing, opacity.expand_as(thing))
        return (picture * 255).round().to(torch.uint8), alpha > 0.5


def ground(side: int, draw: torch.Generator) -> Float[Tensor, "3 {side} {side}"]:
    """Draws a texture in 0..1: patterns of several finenesses, each in colours of its own, coarse ones stronger."""
    pattern = torch.zeros(3, side, side)
    for cells in OCTAVES:
        grey, colours = torch.randn(1, 1, cells, cells, generator=draw), torch.randn(3, 1, 1, generator=draw)
        own = torch.randn(1, 3, cells, cells, generator=draw)
        smooth = F.interpolate(grey * colours + 0.5 * own, (side, side), mode="bicubic", align_corners=False)[0]
        pattern += cells**-0.5 * _between(draw, 0.3, 1.0) * smooth
    tone, contrast = torch.rand(3, 1, 1, generator=draw), _between(draw, 0.12, 0.25)
    return (0.2 + 0.6 * tone + contrast * pattern / pattern.std()).clamp(0, 1)


def _enlarged(image: Tensor, inside: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The thing in its box, `length` pixels long, and how opaque each of its pixels is."""
    rows, columns = (inside.any(dim).nonzero().flatten() for dim in (1, 0))
    box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    opacity = inside[box].float()[None]
    scale = length / max(opacity.shape[1:])
    size = [max(1, round(scale * one)) for one in opacity.shape[1:]]
    # colours are averaged over the thing's own pixels: none of the ground it stood on comes along
    both = torch.cat([image[:, *box] * opacity, opacity])[None]
    thing, opacity = F.interpolate(both, size, mode="bilinear", antialias=True)[0].split([3, 1])
    return (thing / opacity.clamp_min(1e-6)).clamp(0, 1), opacity[0]


def _between(draw: torch.Generator, low: int | float, high: int | float) -> float:
    return low + (high - low) * float(torch.rand((), generator=draw))
