"""Pictures whose every pixel has a class: what the readers of segmentation data have in common."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from sightline.data.photographs import SUFFIXES, open_photograph
from sightline.systems.segmenter import VOID

Colours = UInt8[np.ndarray, "classes 3"]
ROOM = 1 << 29  # bytes of opened pictures that a collection keeps


@runtime_checkable
class PixelLabels(Protocol):
    """A collection of pictures with a class for each pixel: names and a colour (0..255) for each class."""

    classes: tuple[str, ...]
    palette: Colours

    def __len__(self) -> int: ...

    def image(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """Gives a picture."""

    def labels(self, index: int) -> UInt8[np.ndarray, "height width"]:
        """Gives the class number of each of its pixels, 255 for void."""


class PixelFiles:
    """Holds pairs of a photograph and a picture of class numbers, opened when asked for.

    What was opened stays in memory while there is room (`ROOM`), so that small collections are decoded once.
    `pairs` are (photograph, labels) files of equal size, `classes` the names, `palette` a colour for each.  `table`
    translates the numbers in the files to class numbers; others are void (255).  Without it, numbers below the count
    of classes stay and all others are void.  Raises ValueError for no pairs, fewer than two classes, or a palette that
    does not fit.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Path, Path]],
        classes: Sequence[str],
        palette: Colours,
        table: Mapping[int, int] | None = None,
    ) -> None:
        if not pairs or len(classes) != len(palette) or len(classes) < 2:
            raise ValueError(
                f"expected at least one picture, two classes and a colour for each, given {len(pairs)} pictures, "
                f"{len(classes)} classes and {len(palette)} colours"
            )
        self.pairs, self.classes, self.palette = list(pairs), tuple(classes), palette
        known = {number: number for number in range(len(classes))} if table is None else dict(table)
        self._table = np.full(256, VOID, dtype=np.uint8)
        for number, name in known.items():
            self._table[number] = name
        self._opened: dict[tuple[str, int], np.ndarray] = {}
        self._room = ROOM

    def __len__(self) -> int:
        return len(self.pairs)

    def image(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """Gives a photograph."""
        return self._kept("image", index, self._image)

    def labels(self, index: int) -> UInt8[np.ndarray, "height width"]:
        """Gives the class number of each pixel, 255 for void.

        Raises ValueError, naming the file, for one that holds no class numbers or is not of the photograph's size.
        """
        return self._kept("labels", index, self._labels)

    def _kept(self, kind: str, index: int, read: Callable[[int], np.ndarray]) -> np.ndarray:
        found = self._opened.get((kind, index))
        if found is None:
            found = read(index)
            found.flags.writeable = False
            if found.nbytes <= self._room:
                self._opened[kind, index] = found
                self._room -= found.nbytes
        return found

    def _image(self, index: int) -> np.ndarray:
        return np.array(open_photograph(self.pairs[index][0]))

    def _labels(self, index: int) -> np.ndarray:
        photograph, file = self.pairs[index]
        numbers = read_numbers(file)
        with Image.open(photograph) as opened:
            width, height = opened.size
        if numbers.shape != (height, width):
            raise ValueError(
                f"{file}: {numbers.shape[1]} x {numbers.shape[0]} pixels, its photograph {photograph.name} has "
                f"{width} x {height}"
            )
        return self._table[numbers]


def read_numbers(file: Path) -> UInt8[np.ndarray, "height width"]:
    """Reads a picture with one number a pixel (grey or palette); ValueError, naming it, for another or a broken one."""
    try:
        with Image.open(file) as opened:
            mode, numbers = opened.mode, np.array(opened)
    except (OSError, UnidentifiedImageError, SyntaxError, zlib.error, Image.DecompressionBombError) as error:
        raise ValueError(f"{file}: cannot be read as a picture of class numbers ({error})") from error
    if mode not in ("L", "P", "1"):
        raise ValueError(f"{file}: a {mode} picture; expected one class number a pixel (8-bit grey or palette)")
    return numbers.astype(np.uint8)


def pair_up(
    photographs: Path, labels: Path, *, before: str = "", after: str = "", into: str = ".png"
) -> list[tuple[Path, Path]]:
    """Pairs each photograph below a folder with the file of the same place and name below another.

    `after` is the end of a photograph's stem that `into` takes the place of, `before` what the stem must begin with.
    Raises ValueError for a missing folder, no photographs, or a photograph without labels.
    """
    if not photographs.is_dir() or not labels.is_dir():
        missing = photographs if not photographs.is_dir() else labels
        raise ValueError(f"{missing}: no such folder")
    pairs = []
    for file in sorted(photographs.rglob("*")):
        if file.suffix.lower() not in SUFFIXES or not file.stem.startswith(before) or not file.stem.endswith(after):
            continue
        name = file.stem.removesuffix(after) + into
        partner = labels / file.relative_to(photographs).parent / name
        if not partner.is_file():
            raise ValueError(f"{partner}: missing, though there is a photograph {file}")
        pairs.append((file, partner))
    if not pairs:
        raise ValueError(f"{photographs}: no photographs here")
    return pairs


def bit_palette(count: int) -> Colours:
    """Gives the colours of Pascal VOC: bits 0, 3, 6 … of a number make red from its highest bit on, and so on."""
    numbers = np.arange(count)
    palette = np.zeros((count, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((numbers >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


def from_hex(colours: str) -> Colours:
    """Reads colours written as words of six hexadecimal digits."""
    return np.array([list(bytes.fromhex(word)) for word in colours.split()], dtype=np.uint8)


def names_in(text: str) -> tuple[str, ...]:
    """Reads names that stand in one text, between commas."""
    return tuple(name.strip() for name in text.split(","))
