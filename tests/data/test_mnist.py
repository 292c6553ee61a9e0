import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.data.mnist import Mnist, read_idx

RANDOM = np.random.default_rng(0)
PIXELS = {
    "train": RANDOM.integers(0, 256, (7, 28, 28), np.uint8),
    "t10k": RANDOM.integers(0, 256, (3, 28, 28), np.uint8),
}
LABELS = {"train": np.arange(7, dtype=np.uint8), "t10k": np.array([9, 0, 4], np.uint8)}


def idx(values: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, values.ndim]) + b"".join(int(size).to_bytes(4, "big") for size in values.shape)
    return head + values.tobytes()


def write(folder: Path, *, packed: bool = False, mark: str = "-") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part in PIXELS:
        for name, values in ((f"{part}-images", PIXELS[part]), (f"{part}-labels", LABELS[part])):
            raw = idx(values)
            file = folder / f"{name}{mark}idx{values.ndim}-ubyte{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(raw) if packed else raw)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize("inside", ["", "raw", "MNIST/raw"])
def test_layouts(inside: str, mark: str, packed: bool, tmp_path: Path) -> None:
    write(tmp_path / inside, packed=packed, mark=mark)
    for split, part in (("train", "train"), ("test", "t10k"), ("val", "t10k")):
        digits = Mnist(tmp_path, split)
        np.testing.assert_array_equal(digits.pixels, PIXELS[part])
        assert digits.labels.tolist() == LABELS[part].tolist()
        assert len(digits) == len(LABELS[part])
        assert digits.classes == tuple("0123456789")
        np.testing.assert_array_equal(digits.image(1), np.stack([PIXELS[part][1]] * 3, axis=-1))
    digits.pixels[0] = 0  # a copy of the file's bytes, free to change


@given(st.lists(st.integers(0, 4), min_size=1, max_size=3))
@settings(deadline=None)
def test_idx_of_any_shape(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    values = RANDOM.integers(0, 256, sizes, np.uint8)
    file = tmp_path_factory.mktemp("idx") / "values"
    file.write_bytes(idx(values))
    np.testing.assert_array_equal(read_idx(file, len(sizes)), values)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone: no such folder"):
        Mnist(tmp_path / "gone")
    with pytest.raises(ValueError, match="no train-images-idx3-ubyte here"):
        Mnist(tmp_path)
    write(tmp_path)
    with pytest.raises(ValueError, match="given 'dev'"):
        Mnist(tmp_path, "dev")
    images = tmp_path / "train-images-idx3-ubyte"
    whole = images.read_bytes()
    images.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"ubyte: 5487 bytes of data, expected 7 x 28 x 28 = 5488"):
        Mnist(tmp_path)
    images.write_bytes(b"\x00\x00\x0d\x03" + whole[4:])
    with pytest.raises(ValueError, match="starts with 00 00 0d 03, expected 00 00 08 03"):
        Mnist(tmp_path)
    images.write_bytes(b"")
    with pytest.raises(ValueError, match="starts with nothing"):
        Mnist(tmp_path)
    images.write_bytes(idx(PIXELS["train"][:6]))
    with pytest.raises(ValueError, match="7 labels up to 6 for 6 pictures"):
        Mnist(tmp_path)
    images.write_bytes(gzip.compress(whole)[:-4])
    with pytest.raises(ValueError, match="idx3-ubyte: cannot be read"):
        Mnist(tmp_path)
    images.write_bytes(whole)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.full(7, 11, np.uint8)))
    with pytest.raises(ValueError, match="labels up to 11"):
        Mnist(tmp_path)


def test_mnist_itself(shared: Path) -> None:
    train, test = (Mnist(shared / "data" / "mnist", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (60000, 10000)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert train.pixels.mean() / 255 == pytest.approx(0.1307, abs=1e-4)
    assert train.pixels.std() / 255 == pytest.approx(0.3081, abs=1e-4)
