"""Pictures kept in memory, and pictures without labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.data.folder import ImageFolder
from sightline.data.labelled import Labelled, open_labelled
from sightline.data.memory import InMemory
from sightline.data.pixels import to_square
from sightline.data.unlabelled import Photographs
from sightline.recipes import pictures
from sightline.recipes.probes import Pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "zebra"):
            (tmp_path / "labelled" / split / name).mkdir(parents=True)
            for number in range(3):
                picture = Image.fromarray(random.integers(0, 256, (20, 30, 3), dtype=np.uint8))
                picture.save(tmp_path / "labelled" / split / name / f"{number}.png")
    (tmp_path / "loose" / "deeper").mkdir(parents=True)
    for name in ("b.png", "deeper/a.png"):
        Image.fromarray(random.integers(0, 256, (24, 16, 3), dtype=np.uint8)).save(tmp_path / "loose" / name)
    return tmp_path


def test_memory_holds_what_the_source_gives(folder: Path) -> None:
    source = ImageFolder(folder / "labelled")
    kept = InMemory(source, 12)
    assert isinstance(kept, Labelled)
    assert kept.classes == source.classes
    assert kept.labels.tolist() == source.labels.tolist()
    for number in range(len(source)):
        expected = to_square(source.image(number), 12)
        assert torch.equal(to_square(kept.image(number), 12), expected)
        assert torch.equal(to_square(kept.image(number), 8), to_square(expected.permute(1, 2, 0).numpy(), 8))


def test_files_are_read_once_and_not_before_they_are_needed(folder: Path) -> None:
    kept = InMemory(ImageFolder(folder / "labelled"), 12)
    gone = folder / "labelled" / "train" / "cat" / "1.png"
    gone.write_bytes(b"no picture")
    kept.image(0)
    with pytest.raises(ValueError, match=r"1\.png"):
        kept.image(1)
    (folder / "labelled" / "train" / "cat" / "2.png").unlink()
    assert kept.image(2).shape == (12, 12, 3)


def test_a_square_taken_from_memory_is_a_copy(folder: Path) -> None:
    kept = InMemory(ImageFolder(folder / "labelled"), 12)
    before = kept.image(0).copy()
    to_square(kept.image(0), 12).zero_()
    assert np.array_equal(kept.image(0), before)


def test_photographs_without_labels(folder: Path) -> None:
    loose = Photographs(folder / "loose")
    assert len(loose) == 2
    assert loose.labels.tolist() == [-1, -1]
    assert loose.image(1).shape == (24, 16, 3)
    assert len(Photographs(folder / "loose", "val")) == 0


def test_they_join_a_union_and_keep_no_label(folder: Path) -> None:
    spec = f"2*memory12:photos:{folder / 'loose'}+memory12:folder:{folder / 'labelled'}"
    both = open_labelled(spec)
    assert both.classes == ("cat", "zebra")
    assert both.labels.tolist() == [-1] * 4 + [0] * 3 + [1] * 3
    assert both.image(0).shape == (12, 12, 3)
    assert open_labelled(spec, "val").labels.tolist() == [0] * 3 + [1] * 3


def test_nothing_is_measured_on_them(folder: Path) -> None:
    spec = f"photos:{folder / 'loose'}+folder:{folder / 'labelled'}"
    held = Pictures(spec, "val")
    assert [len(part) for part, _ in held.measurable().values()] == [6]
    assert [len(bank) for _, bank in held.measurable().values()] == [6]
    with pytest.raises(ValueError, match="no collection with labels"):
        Pictures(f"photos:{folder / 'loose'}", "train")


def test_classifiers_refuse_them(folder: Path) -> None:
    spec = f"photos:{folder / 'loose'}+folder:{folder / 'labelled'}"
    with pytest.raises(ValueError, match="have no label"):
        pictures.agree(pictures.open_data(spec, "train"), pictures.open_data(spec, "val"))


@pytest.mark.parametrize("spec", ["memory:photos:x", "memory0:photos:{}", "memory12:zip:{}", "photos:{}/nowhere"])
def test_bad_names_are_refused(folder: Path, spec: str) -> None:
    with pytest.raises(ValueError):
        open_labelled(spec.format(folder / "loose"))
