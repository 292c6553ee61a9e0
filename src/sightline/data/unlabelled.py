"""Photographs without labels, to learn from without being told what they show."""

import os
from pathlib import Path

import numpy as np

from sightline.data.photographs import find_photographs, open_photograph

UNKNOWN = -1  # the label of a picture without one


class Photographs:
    """Reads every photograph below the folder PATH; `classes` is empty, all `labels` are -1.

    `image(i)` is photograph i, by name, as (H, W, 3) bytes; files are opened when asked for.  There are none in `split`
    "val", since nothing can be measured on them.  Raises ValueError for a missing folder, one without photographs, and
    (in one line, with its name) a picture that cannot be read.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, path: str | os.PathLike[str], split: str = "train") -> None:
        root = Path(path).expanduser()
        if split not in ("train", "val"):
            raise ValueError(f"split must be 'train' or 'val', given {split!r}")
        if not root.is_dir():
            raise ValueError(f"{root}: no such folder; expected photographs in it")
        files = sorted(find_photographs([root]))
        if not files:
            raise ValueError(f"{root}: no photographs in this folder")
        self.files = files if split == "train" else []
        self.labels = np.full(len(self.files), UNKNOWN, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.files)

    def image(self, index: int) -> np.ndarray:
        return np.asarray(open_photograph(self.files[index]))
