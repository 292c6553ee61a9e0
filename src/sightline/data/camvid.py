"""CamVid (Brostow et al. 2009): frames of drives through Cambridge; and any data in the same plain layout."""

import os
from pathlib import Path

import numpy as np

from sightline.data.pixel_labels import PixelFiles, bit_palette, from_hex, names_in, pair_up

CLASSES = names_in("Sky, Building, Pole, Road, Pavement, Tree, SignSymbol, Fence, Car, Pedestrian, Bicyclist")
PALETTE = from_hex("808080 800000 c0c080 804080 3c28de 808000 c08080 404080 400080 404000 0080c0")


def open_camvid(path: str | os.PathLike[str], split: str = "train") -> PixelFiles:
    """Opens `PATH/images/SPLIT` and `PATH/labels/SPLIT`, or SegNet's `PATH/SPLIT` and `PATH/SPLITannot`.

    Labels are pictures of class numbers; numbers beyond the classes (CamVid's 11) are void.  `PATH/classes.txt`, one
    name a line, gives other classes than CamVid's eleven, so pictures of one's own fit this layout.  Raises ValueError
    for another split, and what does not fit.
    """
    if split not in ("train", "val", "test"):
        raise ValueError(f"split must be 'train', 'val' or 'test', given {split!r}")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected {root}/images/{split} and {root}/labels/{split}")
    annotated = root / f"{split}annot"
    pairs = (
        pair_up(root / split, annotated)
        if annotated.is_dir()
        else pair_up(root / "images" / split, root / "labels" / split)
    )
    classes = list(CLASSES)
    if (root / "classes.txt").is_file():
        lines = (root / "classes.txt").read_text(encoding="utf-8").splitlines()
        classes = [line.strip() for line in lines if line.strip()]
    return PixelFiles(pairs, classes, palette_of(classes))


def palette_of(classes: list[str]) -> np.ndarray:
    """Gives SegNet's colours for CamVid's classes, Pascal VOC's for others."""
    return PALETTE if tuple(classes) == CLASSES else bit_palette(len(classes) + 1)[1:]
