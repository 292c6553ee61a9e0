"""MNIST (LeCun et al. 1998): 70,000 handwritten digits, 28 x 28 grey, in its idx files; Fashion-MNIST is the same."""

import gzip
import os
import zlib
from pathlib import Path

import numpy as np

_PARTS = {"train": "train", "val": "t10k", "test": "t10k"}
_FOLDERS = ("", "raw", "MNIST/raw", "FashionMNIST/raw")


class Mnist:
    """Reads `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the two `t10k-` files, plain or `.gz`.

    `path` is their folder, or the one above `raw/`.  `split` is train (60,000) or test (10,000; "val" is the same
    official test part, as for CIFAR-10).  `pixels` (n, 28, 28) bytes, `labels` (n,) numbers, `image(i)` the digit
    as (28, 28, 3) bytes.  Memory: 0.8 KiB a digit.  Raises ValueError where files are missing, cut or do not fit.
    """

    classes: tuple[str, ...] = tuple("0123456789")

    def __init__(self, path: str | os.PathLike[str], split: str = "train") -> None:
        if split not in _PARTS:
            raise ValueError(f"split must be 'train', 'val' or 'test', given {split!r}")
        root = Path(path).expanduser()
        if not root.is_dir():
            raise ValueError(f"{root}: no such folder; expected the idx files of MNIST in it")
        images = _file_of(root, f"{_PARTS[split]}-images", 3)
        labels = _file_of(root, f"{_PARTS[split]}-labels", 1)
        self.pixels = read_idx(images, 3)
        self.labels = read_idx(labels, 1).astype(np.int64)
        if len(self.pixels) != len(self.labels) or not len(self.labels) or self.labels.max() > 9:
            raise ValueError(
                f"{labels}: {len(self.labels)} labels up to {self.labels.max(initial=0)} for {len(self.pixels)} "
                f"pictures in {images.name}, expected one in 0..9 for each"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        return np.repeat(self.pixels[index][..., None], 3, axis=2)


def read_idx(path: str | os.PathLike[str], dimensions: int) -> np.ndarray:
    """Reads an idx file of unsigned bytes: 0, 0, 8, the number of dimensions, their sizes (big endian), the bytes.

    Raises ValueError, naming the file, for another type or number of dimensions and for one that is cut.
    """
    file = Path(path)
    try:
        raw = file.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from error
    if len(raw) < 4 + 4 * dimensions or tuple(raw[:4]) != (0, 0, 8, dimensions):
        raise ValueError(
            f"{file}: starts with {raw[:4].hex(' ') or 'nothing'}, expected 00 00 08 {dimensions:02x} "
            f"(an idx file of bytes in {dimensions} dimensions)"
        )
    sizes = tuple(int(size) for size in np.frombuffer(raw, ">u4", dimensions, offset=4))
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions)
    expected = int(np.prod(sizes, dtype=np.int64))
    if len(values) != expected:
        raise ValueError(f"{file}: {len(values)} bytes of data, expected {' x '.join(map(str, sizes))} = {expected}")
    return values.reshape(sizes).copy()


def _file_of(root: Path, name: str, dimensions: int) -> Path:
    names = [f"{name}{mark}idx{dimensions}-ubyte{suffix}" for mark in ("-", ".") for suffix in (".gz", "")]
    for folder in _FOLDERS:
        for one in names:
            if (root / folder / one).is_file():
                return root / folder / one
    raise ValueError(f"{root}: no {names[1]} here (nor {names[0]}, nor in raw/ below)")
