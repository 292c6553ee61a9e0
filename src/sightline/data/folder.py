"""Labelled photographs in folders: one folder a class, the layout that most collections can be brought to."""

import os
from pathlib import Path

import numpy as np

from sightline.data.photographs import SUFFIXES, open_photograph

# the two layouts that are read, as help and errors tell them
LAYOUT = "CLASS/*.jpg of two classes or more, or these within train/ and val/"
_TRAIN, _VAL = ("train", "training"), ("val", "valid", "validation", "test")


class ImageFolder:
    """Reads `PATH/train/<class>/*.jpg` and `PATH/val/<class>/*.jpg`, or `PATH/<class>/*.jpg` without a split.

    Without a split every tenth picture of a class, in the order of the names, is kept back as `val`.  `classes` are
    the folder names, sorted; `labels[i]` is the class number of picture i; `image(i)` its (H, W, 3) bytes.  Pictures
    are opened when asked for, so a folder may be larger than memory.  Raises ValueError for a missing folder, a
    folder without class folders, a class without pictures, and (in one line, with its name) a picture that cannot
    be read.
    """

    def __init__(self, path: str | os.PathLike[str], split: str = "train") -> None:
        root = Path(path).expanduser()
        if not root.is_dir():
            raise ValueError(f"{root}: no such folder; expected one with {LAYOUT}")
        if split not in ("train", "val"):
            raise ValueError(f"split must be 'train' or 'val', given {split!r}")
        chosen = [root / name for name in (_TRAIN if split == "train" else _VAL) if (root / name).is_dir()]
        divided = any((root / name).is_dir() for name in _TRAIN)
        if divided and not chosen:
            raise ValueError(f"{root}: has a train folder but none of {', '.join(_VAL)} beside it")
        where = chosen[0] if divided else root
        self.classes = tuple(sorted(f.name for f in where.iterdir() if f.is_dir() and not f.name.startswith(".")))
        if len(self.classes) < 2:
            raise ValueError(f"{where}: found {len(self.classes)} folders of classes; expected {LAYOUT}")
        self.files: list[Path] = []
        numbers: list[int] = []
        for number, name in enumerate(self.classes):
            files = _pictures(where / name)
            if not files:
                raise ValueError(f"{where / name}: this class has no pictures; add some or remove the folder")
            if not divided:
                files = [file for i, file in enumerate(files) if (i % 10 == 9) == (split == "val")]
            self.files += files
            numbers += [number] * len(files)
        if not self.files:
            raise ValueError(f"{root}: no class has ten pictures, so nothing is kept back as {split!r}")
        self.labels = np.array(numbers, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int) -> np.ndarray:
        return np.asarray(open_photograph(self.files[index]))


def _pictures(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
