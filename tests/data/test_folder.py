from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.data.folder import ImageFolder


def fill(folder: Path, count: int, shade: int = 0, suffix: str = "png") -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (6, 4), (shade, number, 0)).save(folder / f"{number:02d}.{suffix}")


def test_a_split_folder(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 2)):
        fill(tmp_path / split / "dog", count, 200)
        fill(tmp_path / split / "cat", count, 100)
    train, val = ImageFolder(tmp_path), ImageFolder(tmp_path, "val")
    assert train.classes == val.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(val) == 4
    assert train.image(4).shape == (4, 6, 3)
    assert train.image(4)[0, 0].tolist() == [200, 1, 0]


def test_without_a_split_every_tenth_is_kept_back(tmp_path: Path) -> None:
    fill(tmp_path / "a", 25)
    fill(tmp_path / "b", 10, suffix="bmp")
    train, val = ImageFolder(tmp_path), ImageFolder(tmp_path, "val")
    assert (len(train), len(val)) == (23 + 9, 2 + 1)
    assert not set(train.files) & set(val.files)
    assert val.labels.tolist() == [0, 0, 1]
    assert np.array_equal(ImageFolder(tmp_path).files, train.files)


def test_other_files_and_hidden_ones_are_left_alone(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "a", 1)
    fill(tmp_path / "train" / "b", 1)
    fill(tmp_path / "train" / ".cache", 1)
    (tmp_path / "train" / "a" / "notes.txt").write_text("x")
    (tmp_path / "train" / "a" / ".hidden.png").write_text("x")
    assert len(ImageFolder(tmp_path)) == 2


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"gone: no such folder; expected one with CLASS/\*\.jpg of two classes",
    ):
        ImageFolder(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"found 0 folders of classes; expected CLASS/\*\.jpg of two"):
        ImageFolder(tmp_path)
    fill(tmp_path / "train" / "a", 1)
    (tmp_path / "train" / "b").mkdir()
    with pytest.raises(ValueError, match=r"train/b: this class has no pictures"):
        ImageFolder(tmp_path)
    with pytest.raises(ValueError, match="has a train folder but none of val"):
        ImageFolder(tmp_path, "val")
    with pytest.raises(ValueError, match="'test'"):
        ImageFolder(tmp_path, "test")


def test_too_few_to_keep_any_back(tmp_path: Path) -> None:
    fill(tmp_path / "a", 3)
    fill(tmp_path / "b", 3)
    with pytest.raises(ValueError, match="no class has ten pictures"):
        ImageFolder(tmp_path, "val")


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "a", 1)
    fill(tmp_path / "train" / "b", 1)
    (tmp_path / "train" / "b" / "00.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"b/00\.png: the file is empty"):
        ImageFolder(tmp_path).image(1)
