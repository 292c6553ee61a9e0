"""Cityscapes (Cordts et al. 2016): streets of 50 cities, 2048 x 1024, 19 classes that count."""

import os
from pathlib import Path

from sightline.data.pixel_labels import PixelFiles, from_hex, pair_up

CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
PALETTE = from_hex(
    "804080 f423e8 464646 66669c be9999 999999 faaa1e dcdc00 6b8e23 98fb98 4682b4 dc143c ff0000 00008e 000046 003c64 "
    "005064 0000e6 770b20"
)
# numbers in the files (labelIds) of the classes, in their order; all others are void
IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def open_cityscapes(path: str | os.PathLike[str], split: str = "train") -> PixelFiles:
    """Opens `PATH/leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` and `PATH/gtFine/SPLIT/CITY/*_gtFine_labelIds.png`.

    Raises ValueError for another split, and for files that are missing.
    """
    if split not in ("train", "val", "test"):
        raise ValueError(f"split must be 'train', 'val' or 'test', given {split!r}")
    root = Path(path).expanduser()
    pairs = pair_up(
        root / "leftImg8bit" / split, root / "gtFine" / split, after="_leftImg8bit", into="_gtFine_labelIds.png"
    )
    return PixelFiles(pairs, CLASSES, PALETTE, {number: place for place, number in enumerate(IDS)})
