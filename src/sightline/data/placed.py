"""Digits anywhere on photographs: small objects off any grid, on textured ground, with their place known exactly.

A digit of 28 x 28 pixels (MNIST, or Fashion-MNIST in the same files) is laid, in a light colour, at an even place on a
random crop of a photograph that is dimmed to 60 %.  The digit's tone is its opacity.
"""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor

from sightline.data.mnist import Mnist
from sightline.data.photographs import find_photographs, open_photograph
from sightline.data.pixels import to_square

ITEM = 28
MOST_GROUNDS = 500  # photographs read, at twice the side of a picture: 25 MB for pictures of 64 pixels
DIM, LIGHT = 0.6, 0.7  # the ground's tones end where those of the digits nearly begin, of 0..1
INK = 0.3  # opacity from which on a pixel belongs to the digit


class Layout(NamedTuple):
    """Where all lies in a batch: which ground and its crop's (row, column), the digit's corner, its colour's draw."""

    ground: Int[Tensor, " batch"]
    crop: Int[Tensor, "batch 2"]
    corner: Int[Tensor, "batch 2"]
    colour: Float[Tensor, "batch 3"]

    def take(self, indices: Tensor) -> "Layout":
        """Gives the layouts of some pictures."""
        return Layout(*(part[indices] for part in self))

    def to(self, device: torch.device) -> "Layout":
        """Gives the layouts on another device."""
        return Layout(*(part.to(device, non_blocking=True) for part in self))


class Placed:
    """Pictures of `side` pixels, a digit from `items` on a crop of a photograph below the folder `grounds`.

    Every fifth photograph, by name, is kept for `split` "val", whose digits are the official 10,000 of the test part;
    its pictures are fixed by `seed`.  Training draws a new layout each time.  Raises ValueError where files cannot be
    read, for a side below 28, and for fewer than five photographs.
    """

    def __init__(
        self, side: int, items: str | os.PathLike[str], grounds: str | os.PathLike[str], split: str, seed: int = 0
    ) -> None:
        if side < ITEM:
            raise ValueError(f"a picture of {side} pixels has no room for a digit of {ITEM}: give a side of {ITEM} on")
        read = Mnist(items, split)
        self.side, self.classes, self.split = side, read.classes, split
        self.digits, self.labels = torch.from_numpy(read.pixels), torch.from_numpy(read.labels)
        files = sorted(find_photographs(Path(grounds).expanduser()))
        if len(files) < 5:
            raise ValueError(f"{grounds}: {len(files)} photographs; at least five are needed, one of them held out")
        chosen = [file for number, file in enumerate(files) if (number % 5 == 4) == (split != "train")]
        spread = np.linspace(0, len(chosen) - 1, min(len(chosen), MOST_GROUNDS)).round().astype(int)
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            self.grounds = torch.stack(list(threads.map(lambda number: _ground(chosen[number], 2 * side), spread)))
        self.layout = None if split == "train" else self.draw(len(self), torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.labels)

    def draw(self, count: int, generator: torch.Generator | None = None) -> Layout:
        """Draws where things lie in `count` pictures, a function of the generator's seed alone (None: torch's own)."""

        def whole(most: int, *shape: int) -> Tensor:
            return torch.randint(0, most + 1, shape, generator=generator)

        ground, crop = whole(len(self.grounds) - 1, count), whole(self.side, count, 2)
        return Layout(ground, crop, whole(self.side - ITEM, count, 2), torch.rand(count, 3, generator=generator))

    def bare(self, layout: Layout) -> UInt8[Tensor, "batch 3 {self.side} {self.side}"]:
        """Cuts the crops of the photographs, dimmed, with nothing on them; on the layout's device."""
        self.grounds = self.grounds.to(layout.ground.device)  # and there they stay
        down, across = _lines(layout.crop, self.side)
        return (self.grounds[layout.ground[:, None, None], :, down, across] * DIM).to(torch.uint8).permute(0, 3, 1, 2)

    def pictures(
        self, digits: UInt8[Tensor, "batch 28 28"], layout: Layout
    ) -> UInt8[Tensor, "batch 3 {self.side} {self.side}"]:
        """Lays the digits on their grounds."""
        below = self.bare(layout).float() / 255
        colour = (LIGHT + (1 - LIGHT) * layout.colour)[:, :, None, None]
        opacity = self._laid(digits.float() / 255, layout)[:, None]
        return (below.lerp(colour, opacity) * 255).round().to(torch.uint8)

    def ink(self, digits: UInt8[Tensor, "batch 28 28"], layout: Layout) -> Bool[Tensor, "batch height width"]:
        """Tells which pixels of each picture are the digit's."""
        return self._laid(digits > 255 * INK, layout)

    def _laid(self, values: Shaped[Tensor, "batch 28 28"], layout: Layout) -> Shaped[Tensor, "batch height width"]:
        """Gives a canvas of zeros with the values at the digits' places."""
        canvas = values.new_zeros(len(values), self.side, self.side)
        item = torch.arange(len(values), device=values.device)[:, None, None]
        canvas[(item, *_lines(layout.corner, ITEM))] = values
        return canvas


def _lines(corner: Int[Tensor, "batch 2"], extent: int) -> tuple[Tensor, Tensor]:
    """Numbers the rows (batch, extent, 1) and columns (batch, 1, extent) of the squares with these corners."""
    span = torch.arange(extent, device=corner.device)
    return (corner[:, :1] + span)[:, :, None], (corner[:, 1:] + span)[:, None, :]


def boxes_of(masks: Bool[Tensor, "batch height width"]) -> Bool[Tensor, "batch height width"]:
    """Fills the smallest upright box around each mask."""
    rows, columns = masks.any(dim=2), masks.any(dim=1)

    def between(lines: Tensor) -> Tensor:
        return (lines.int().cumsum(dim=1) > 0) & (lines.int().flip(1).cumsum(dim=1).flip(1) > 0)

    return between(rows)[:, :, None] & between(columns)[:, None, :]


def open_placed(spec: str, split: str) -> Placed:
    """Opens `placed64:ITEMS+PHOTOGRAPHS`: the side in pixels, a folder of MNIST's files, a folder of photographs.

    Raises ValueError, in one line, for another spec and for what `Placed` refuses.
    """
    named = re.fullmatch(r"placed(\d*):(.+?)\+(.+)", spec)
    if named is None:
        raise ValueError(f"{spec!r}: expected placed64:ITEMS+PHOTOGRAPHS (side in pixels, MNIST's folder, photographs)")
    return Placed(int(named[1] or 64), named[2], named[3], split)


def _ground(file: Path, side: int) -> UInt8[Tensor, "3 {side} {side}"]:
    return to_square(open_photograph(file), side)
