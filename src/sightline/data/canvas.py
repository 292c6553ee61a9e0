"""Translated and cluttered MNIST, made on the fly: a digit anywhere on a large canvas, among pieces of other digits.

As described in Recurrent Models of Visual Attention (Mnih et al. 2014, sections 4.1 and 4.2): the digit of 28 x 28
pixels lies at a place drawn evenly; clutter is made of 8 x 8 pieces cut at random out of other digits, four of them on
60 x 60 pixels.  Where two overlap the brighter pixel stays.
"""

import os
import re
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sightline.data.mnist import Mnist

DIGIT, PIECE = 28, 8
MEAN, DEVIATION = 0.1307, 0.3081


class Layout(NamedTuple):
    """Where all lies on a batch of canvases: (row, column) corners, and which digit of the pool a piece is cut from."""

    digit: Int[Tensor, "batch 2"]
    source: Int[Tensor, "batch pieces"]
    cut: Int[Tensor, "batch pieces 2"]
    piece: Int[Tensor, "batch pieces 2"]

    def take(self, indices: Tensor) -> "Layout":
        """Gives the layouts of some canvases."""
        return Layout(*(part[indices] for part in self))

    def to(self, device: torch.device | str) -> "Layout":
        """Moves it to another device."""
        return Layout(*(part.to(device) for part in self))


def draw_layout(
    count: int, *, side: int, pieces: int = 0, pool: int = 1, generator: torch.Generator | None = None
) -> Layout:
    """Draws where things lie on `count` canvases of `side` pixels with `pieces` bits of clutter out of `pool` digits.

    A function of the generator's seed alone (None: torch's own).  Raises ValueError for a canvas smaller than a digit.
    """
    if side < DIGIT or pieces < 0:
        raise ValueError(
            f"a canvas holds a digit of {DIGIT} pixels and no less than no clutter, given {side=}, {pieces=}"
        )

    def whole(most: int, *shape: int) -> Tensor:
        return torch.randint(0, most + 1, shape, generator=generator)

    return Layout(
        whole(side - DIGIT, count, 2),
        whole(pool - 1, count, pieces),
        whole(DIGIT - PIECE, count, pieces, 2),
        whole(side - PIECE, count, pieces, 2),
    )


def draw_canvas(
    digits: UInt8[Tensor, "batch 28 28"], pool: UInt8[Tensor, "pool 28 28"], layout: Layout, side: int
) -> UInt8[Tensor, "batch 1 {side} {side}"]:
    """Lays each digit and its clutter, cut from `pool`, on a black canvas."""
    canvas = digits.new_zeros(len(digits), side * side)
    canvas.scatter_(1, _block(layout.digit, DIGIT, side), digits.flatten(1))
    flat = pool.flatten(1)
    for number in range(layout.piece.shape[1]):
        cut = _block(layout.cut[:, number], PIECE, DIGIT)
        piece = flat[layout.source[:, number, None], cut]
        place = _block(layout.piece[:, number], PIECE, side)
        canvas.scatter_(1, place, torch.maximum(piece, canvas.gather(1, place)))
    return canvas.view(-1, 1, side, side)


def _block(corner: Int[Tensor, "batch 2"], size: int, width: int) -> Int[Tensor, "batch pixels"]:
    """Numbers, in a flat image `width` pixels wide, of the pixels of a square with this upper left corner."""
    steps = torch.arange(size, device=corner.device)
    within = (steps[:, None] * width + steps).flatten()
    return (corner[:, 0] * width + corner[:, 1])[:, None] + within


class Canvases:
    """MNIST on canvases of `side` pixels: `mnist` (the digits as they are), `translated` or `cluttered`.

    `digits` (n, 28, 28) bytes and `labels` (n,).  Training draws a new `layout` each time; the canvases of `split`
    "val" or "test" (the official 10,000) are fixed by `seed`, with clutter cut from that split's own digits.
    Raises ValueError where the idx files cannot be read (see `sightline.data.mnist`) or the canvas is too small.
    """

    def __init__(self, kind: str, side: int, path: str | os.PathLike[str], split: str = "train", seed: int = 0) -> None:
        read = Mnist(path, split)
        self.kind, self.side, self.classes = kind, side, read.classes
        self.pieces = max(1, 4 + (side - 60) // 10) if kind == "cluttered" else 0  # the paper's 4 at 60, 8 at 100
        self.digits, self.labels = torch.from_numpy(read.pixels), torch.from_numpy(read.labels)
        self._pool = self.digits  # the same digits on the device where canvases were last laid out
        self.layout = None if split == "train" else self.draw(len(self), torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.labels)

    def draw(self, count: int, generator: torch.Generator | None = None) -> Layout:
        """Draws where things lie on `count` canvases of this kind."""
        return draw_layout(count, side=self.side, pieces=self.pieces, pool=len(self), generator=generator)

    def canvases(
        self, digits: UInt8[Tensor, "batch 28 28"], layout: Layout
    ) -> UInt8[Tensor, "batch 1 {self.side} {self.side}"]:
        """Lays out digits, with clutter out of this collection, on the device of the digits."""
        if self._pool.device != digits.device:
            self._pool = self.digits.to(digits.device)
        return draw_canvas(digits, self._pool, layout.to(digits.device), self.side)


def open_canvases(spec: str, split: str) -> Canvases:
    """Opens `mnist:FOLDER`, `translated60:FOLDER` or `cluttered60:FOLDER`; the number is the canvas's side in pixels.

    Raises ValueError, in one line, for another kind and for what `Canvases` refuses.
    """
    named = re.fullmatch(r"(mnist|translated|cluttered)(\d*):(.+)", spec)
    if named is None:
        raise ValueError(f"{spec!r}: expected mnist:FOLDER, translated60:FOLDER or cluttered60:FOLDER (side in pixels)")
    kind, side, path = named[1], int(named[2] or (DIGIT if named[1] == "mnist" else 60)), named[3]
    if kind == "mnist" and side != DIGIT:
        raise ValueError(f"{spec!r}: the digits of mnist are {DIGIT} pixels wide; translated{side} lays them on more")
    return Canvases(kind, side, path, split)


def normalised(images: UInt8[Tensor, "*lead height width"]) -> Float[Tensor, "*lead height width"]:
    """Computes (x / 255 - 0.1307) / 0.3081, MNIST's own mean and deviation, as the published RAM weights expect."""
    return images.float().sub_(255 * MEAN).div_(255 * DEVIATION)
