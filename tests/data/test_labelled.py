import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.data.cifar10 import CLASSES
from sightline.data.labelled import Union, open_labelled
from sightline.data.named import name_of
from sightline.data.pixels import to_square


class Shades:
    """Pictures of one pixel that say which collection and place they come from."""

    def __init__(self, shade: int, classes: tuple[str, ...], labels: list[int]) -> None:
        self.shade, self.classes, self.labels = shade, classes, np.array(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        return np.array([[[self.shade, index, 0]]], dtype=np.uint8)


def test_a_union_joins_classes_by_name() -> None:
    first, second = Shades(1, ("cat", "dog"), [0, 1]), Shades(2, ("bus", "cat"), [0, 1, 1])
    both = Union([first, second], repeats=[3, 1])
    assert both.classes == ("cat", "dog", "bus")
    assert len(both) == 9
    assert both.labels.tolist() == [0, 1, 0, 1, 0, 1, 2, 0, 0]
    assert both.part_labels(1).tolist() == [2, 0, 0]
    places = [tuple(both.image(i)[0, 0, :2]) for i in range(9)]
    assert places == [(1, 0), (1, 1)] * 3 + [(2, 0), (2, 1), (2, 2)]


@pytest.mark.parametrize("repeats", [[1], [0, 1], [1, 1, 1]])
def test_repeats_must_fit(repeats: list[int]) -> None:
    part = Shades(1, ("a",), [0])
    with pytest.raises(ValueError, match="a repeat of 1 or more for each"):
        Union([part, part], repeats)


def write_folder(root: Path) -> Path:
    for split in ("train", "val"):
        for name in ("cat", "zebra"):
            (root / split / name).mkdir(parents=True)
            Image.new("RGB", (9, 9)).save(root / split / name / "1.png")
    return root


def write_cifar(root: Path) -> Path:
    root.mkdir()
    for name, labels in (("data_batch_1", "train"), ("test_batch", "test")):
        Image.new("RGB", (1024, 3)).save(root / f"{name}.png")
        (root / f"{labels}_lables.json").write_text(json.dumps([3, 0, 9]))
    return root


def test_kinds_unions_and_repeats_by_name(tmp_path: Path) -> None:
    folder, cifar = write_folder(tmp_path / "a+b"), write_cifar(tmp_path / "c")
    assert open_labelled(f"folder:{folder}").classes == ("cat", "zebra")
    both = open_labelled(f"8*folder:{folder}+cifar10:{cifar}")
    assert both.classes == ("cat", "zebra", *(name for name in CLASSES if name != "cat"))
    assert len(both) == 8 * 2 + 3
    assert both.labels[-3:].tolist() == [0, both.classes.index("airplane"), both.classes.index("truck")]
    assert len(open_labelled(f"8*folder:{folder}+cifar10:{cifar}", "val")) == 2 + 3


@pytest.mark.parametrize("spec", ["photos", "zip:photos", "folder:", "x*folder:a", "0*folder:a"])
def test_bad_names_are_refused(spec: str) -> None:
    with pytest.raises(ValueError):
        open_labelled(spec)


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (20, 20), (60, 24)])
def test_the_middle_square_at_one_size(size: tuple[int, int]) -> None:
    width, height = size
    across, down = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    short = min(width, height)
    scale = 100 / np.array([short / width, short / height])
    picture = np.stack([128 + across * scale[0], 128 + down * scale[1], 0 * down], -1).clip(0, 255).astype(np.uint8)
    square = to_square(picture, 20).float()
    assert square.shape == (3, 20, 20)
    # a ramp over the middle square runs from 28 to 228, whatever the picture's own shape
    for channel, line in ((0, square[0, 10]), (1, square[1, :, 10])):
        assert 20 < line[0] < 45, channel
        assert 210 < line[-1] < 236, channel
        assert line.diff().min() > 0, channel


@pytest.mark.parametrize(
    ("piece", "name"),
    [
        ("folder:a/tiny_imagenet", "tiny_imagenet"),
        ("3*memory96:cifar10:b/cifar10", "cifar10"),
        ("world:2000", "world"),
        ("2*memory96:world:2000", "world"),
        ("folder:world", "world"),
        ("folder:otherworld/7", "7"),
    ],
)
def test_figures_of_a_collection_have_a_name(piece, name):
    assert name_of(piece) == name
