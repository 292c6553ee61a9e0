"""Features of photographs by a frozen encoder, computed once and kept on disk as float16.

A folder holds `features.bin` (photographs, mirror images, cells, width) and `features.json`, which says what lies
where.  It is memory-mapped: nothing is read before it is asked for.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from sightline.data.photographs import open_photograph

Encode = Callable[[Tensor], Tensor]  # bytes (B, 3, S, S) -> grid (B, width, rows, columns)
Read = Callable[[int, int], Tensor]  # numbers from, to -> bytes (B, 3, S, S)


def squashed(picture: Image.Image, side: int) -> UInt8[Tensor, "3 {side} {side}"]:
    """Resizes the whole picture to a square, as the captioning papers do: nothing is cut off, the aspect is lost."""
    if picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).contiguous()


class Features:
    """Features on disk, by the name of the photograph."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        about = self.folder / "features.json"
        if not about.is_file():
            raise ValueError(f"{self.folder} holds no features.json: make the features first (data.features.extract)")
        self.about: dict[str, Any] = json.loads(about.read_text("utf-8"))
        self.names: list[str] = self.about["names"]
        self.rows, self.columns, self.width = (self.about[key] for key in ("rows", "columns", "width"))
        self.place = {name: number for number, name in enumerate(self.names)}
        shape = (len(self.names), 1 + self.about["mirrored"], self.rows * self.columns, self.width)
        done, needed = (self.folder / "features.bin").stat().st_size, int(np.prod(shape)) * 2
        if done != needed or self.about["done"] != len(self.names):
            raise ValueError(
                f"{self.folder}: {self.about['done']} of {len(self.names)} photographs are done: go on with extract"
            )
        self.values = np.memmap(self.folder / "features.bin", np.float16, "r", shape=shape)

    @property
    def mirrored(self) -> bool:
        """Whether the mirror image of each photograph is here, too."""
        return bool(self.about["mirrored"])

    def __len__(self) -> int:
        return len(self.names)

    def of(self, names: Sequence[str], mirrored: Sequence[bool] | None = None) -> Float[Tensor, "images cells width"]:
        """Gives the features of the named photographs, where `mirrored` says so of their mirror images.

        Raises ValueError for a photograph that is not here.
        """
        missing = [name for name in names if name not in self.place]
        if missing:
            raise ValueError(f"{self.folder} has no features of {missing[0]} ({len(missing)} in all): extract them")
        rows = [self.place[name] for name in names]
        sides = [0] * len(rows) if mirrored is None else [int(one) for one in mirrored]
        return torch.from_numpy(np.stack([self.values[r, s] for r, s in zip(rows, sides, strict=True)])).float()


def photographs(paths: Sequence[Path], side: int) -> Read:
    """Gives a function that opens photographs number `first` to `last` as squares, for `extract`."""

    def read(first: int, last: int) -> Tensor:
        return torch.stack([squashed(open_photograph(path), side) for path in paths[first:last]])

    return read


def extract(
    names: Sequence[str],
    read: Read,
    encode: Encode,
    folder: str | Path,
    *,
    side: int,
    encoder: str,
    mirrored: bool = False,
    batch: int = 32,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> Features:
    """Computes and writes the features of the named pictures, going on where an earlier call was stopped.

    `read` gives the pictures as bytes (see `photographs`), `encode` turns bytes (B, 3, side, side) into grids (B,
    width, rows, columns); `encoder` is its name, kept beside the features. Raises ValueError where the folder holds
    features of other pictures, sizes or encoder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    about_file, values_file = folder / "features.json", folder / "features.bin"
    about: dict[str, Any] = {"encoder": encoder, "side": side, "mirrored": mirrored, "names": list(names)}
    done = 0
    if about_file.is_file():
        earlier = json.loads(about_file.read_text("utf-8"))
        other = [key for key in about if earlier.get(key) != about[key]]
        if other:
            raise ValueError(f"{folder} holds features with another {' and '.join(other)}: give another folder")
        about, done = earlier, earlier["done"]
    with values_file.open("r+b" if values_file.exists() else "w+b") as file:
        for first in range(done, len(names), batch):
            pixels = read(first, min(first + batch, len(names)))
            with torch.no_grad():
                grids = [encode(pixels)] + ([encode(pixels.flip(3))] if mirrored else [])
            about["width"], about["rows"], about["columns"] = (int(n) for n in grids[0].shape[1:])
            block = torch.stack([grid.flatten(2).transpose(1, 2) for grid in grids], dim=1).half().numpy()
            file.seek(first * block[0].nbytes)
            file.write(np.ascontiguousarray(block).tobytes())
            file.flush()
            about["done"] = min(first + batch, len(names))
            beside = folder / "features.json.part"
            beside.write_text(json.dumps(about), "utf-8")
            beside.replace(about_file)
            tell(about["done"], len(names))
    return Features(folder)
