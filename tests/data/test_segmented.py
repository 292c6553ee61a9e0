"""Photographs with a class for each pixel: the real CamVid, and each layout made small; broken files told in a line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.data import ade20k, camvid, cityscapes, pascal, pixel_labels
from sightline.data.pixel_labels import PixelFiles, bit_palette, read_numbers
from sightline.data.segmented import KINDS, open_segmented

SIZE = (12, 8)  # width, height


def photograph(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)).save(path)
    return path


def labels(path: Path, numbers: np.ndarray, palette: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Image.fromarray(numbers.astype(np.uint8))
    if palette:
        made.putpalette(bit_palette(256).tobytes())
    made.save(path)
    return path


def numbers(*rows: int) -> np.ndarray:
    """A label picture of SIZE with these numbers, one a row, from the top."""
    return np.array([rows[y % len(rows)] for y in range(SIZE[1])])[:, None].repeat(SIZE[0], axis=1)


def test_camvid_is_read_whole(shared: Path) -> None:
    spec = f"camvid:{shared / 'data' / 'camvid'}"
    train, val = open_segmented(spec, "train"), open_segmented(spec, "val")
    assert (len(train), len(val)) == (367, 101)
    assert train.classes == val.classes == camvid.CLASSES
    assert len(train.classes) == 11
    counts = np.zeros(256)
    for index in range(0, 367, 6):
        truth = train.labels(index)
        assert truth.shape == train.image(index).shape[:2] == (270, 360)
        counts += np.bincount(truth.ravel(), minlength=256)
    shares = counts / counts.sum()
    assert counts[11:255].sum() == 0
    assert shares[255] == pytest.approx(0.039, abs=0.01)  # void, as the data's own account says
    named = dict(zip(train.classes, shares, strict=False))
    assert max(named, key=lambda name: named[name]) == "Road"
    assert named["Pole"] < 0.02 < named["Pavement"]


def test_camvid_layouts_and_classes_of_ones_own(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    photograph(plain / "images" / "train" / "a.jpg")
    labels(plain / "labels" / "train" / "a.png", numbers(0, 10, 11, 255))
    found = open_segmented(f"camvid:{plain}")
    assert found.labels(0)[:4, 0].tolist() == [0, 10, 255, 255]
    assert found.palette.tolist()[0] == [128, 128, 128]
    segnet = tmp_path / "segnet"
    photograph(segnet / "val" / "b.png")
    labels(segnet / "valannot" / "b.png", numbers(3))
    assert open_segmented(f"camvid:{segnet}", "val").labels(0).max() == 3
    (plain / "classes.txt").write_text("ground\n\nsky \n")
    own = open_segmented(f"camvid:{plain}")
    assert own.classes == ("ground", "sky")
    assert own.labels(0)[:4, 0].tolist() == [0, 255, 255, 255]
    assert own.palette.tolist() == bit_palette(3)[1:].tolist()


def test_cityscapes_counts_nineteen_classes(tmp_path: Path) -> None:
    stem = "aachen_000000_000019"
    photograph(tmp_path / "leftImg8bit" / "train" / "aachen" / f"{stem}_leftImg8bit.png")
    labels(tmp_path / "gtFine" / "train" / "aachen" / f"{stem}_gtFine_labelIds.png", numbers(7, 8, 33, 0, 4, 26))
    found = open_segmented(f"cityscapes:{tmp_path}")
    assert found.labels(0)[:6, 0].tolist() == [0, 1, 18, 255, 255, 13]
    assert (found.classes[0], found.classes[18], found.classes[13]) == ("road", "bicycle", "car")
    assert len(found.classes) == len(cityscapes.IDS) == len(found.palette) == 19
    (tmp_path / "gtFine" / "train" / "aachen" / f"{stem}_gtFine_labelIds.png").unlink()
    with pytest.raises(ValueError, match=r"_gtFine_labelIds\.png: missing, though there is a photograph"):
        open_segmented(f"cityscapes:{tmp_path}")


def test_ade20k_counts_from_one_and_zero_is_void(tmp_path: Path) -> None:
    photograph(tmp_path / "images" / "validation" / "ADE_val_00000001.jpg")
    labels(tmp_path / "annotations" / "validation" / "ADE_val_00000001.png", numbers(0, 1, 150, 13))
    found = open_segmented(f"ade20k:{tmp_path}", "val")
    assert found.labels(0)[:4, 0].tolist() == [255, 0, 149, 12]
    assert (found.classes[0], found.classes[12], found.classes[149]) == ("wall", "person", "flag")
    assert len(ade20k.CLASSES) == len(set(ade20k.CLASSES)) == len(found.palette) == 150


def test_pascal_voc_and_context_follow_their_lists(tmp_path: Path) -> None:
    for name in ("2007_000032", "2007_000039", "unlisted"):
        photograph(tmp_path / "JPEGImages" / f"{name}.jpg")
    lists = tmp_path / "ImageSets"
    for folder, text in (("Segmentation", "2007_000032\n2007_000039\n"), ("SegmentationContext", "2007_000039\n")):
        (lists / folder).mkdir(parents=True)
        (lists / folder / "train.txt").write_text(text)
    for name in ("2007_000032", "2007_000039"):
        labels(tmp_path / "SegmentationClass" / f"{name}.png", numbers(0, 20, 255), palette=True)
    labels(tmp_path / "SegmentationClassContext" / "2007_000039.png", numbers(0, 59, 60))
    voc, context = open_segmented(f"voc:{tmp_path}"), open_segmented(f"context:{tmp_path}")
    assert (len(voc), len(context)) == (2, 1)
    assert voc.labels(0)[:3, 0].tolist() == [0, 20, 255]
    assert context.labels(0)[:3, 0].tolist() == [0, 59, 255]
    assert (len(voc.classes), len(context.classes)) == (21, 60)
    assert voc.palette[15].tolist() == [192, 128, 128]  # VOC's pink of persons
    with pytest.raises(ValueError, match=r"val\.txt: no such list of pictures"):
        open_segmented(f"voc:{tmp_path}", "val")
    (tmp_path / "SegmentationClass" / "2007_000039.png").unlink()
    with pytest.raises(ValueError, match=r"2007_000039\.png: missing, though train\.txt .* lists 2007_000039"):
        pascal.open_voc(tmp_path)


@pytest.mark.parametrize("spec", ["camvid", "camvid:", "streets:/somewhere", ":x", ""])
def test_other_kinds_are_refused_with_the_known_ones(spec: str) -> None:
    with pytest.raises(ValueError, match="KIND:PATH with KIND one of camvid, cityscapes, ade20k, voc, context"):
        open_segmented(spec)


@pytest.mark.parametrize("kind", ["camvid", "cityscapes", "ade20k"])
def test_splits_and_folders_that_are_not_there_are_told(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split must be 'train'"):
        KINDS[kind](str(tmp_path), "training")
    with pytest.raises(ValueError, match="no such folder"):
        open_segmented(f"{kind}:{tmp_path / 'nowhere'}")
    with pytest.raises(ValueError, match="no such folder"):
        open_segmented(f"{kind}:{tmp_path}")


def pair(tmp_path: Path) -> PixelFiles:
    photograph(tmp_path / "images" / "train" / "a.jpg")
    labels(tmp_path / "labels" / "train" / "a.png", numbers(0, 1))
    return camvid.open_camvid(tmp_path)


def test_broken_files_are_named_in_one_line(tmp_path: Path) -> None:
    data = pair(tmp_path)
    file = tmp_path / "labels" / "train" / "a.png"
    whole = file.read_bytes()
    for broken in (whole[: len(whole) // 2], b"no picture", b""):
        file.write_bytes(broken)
        with pytest.raises(ValueError, match=r"a\.png: cannot be read as a picture of class numbers") as caught:
            data.labels(0)
        assert "\n" not in str(caught.value)
    file.unlink()
    with pytest.raises(ValueError, match=r"a\.png: cannot be read"):
        data.labels(0)
    Image.new("RGB", SIZE).save(file)
    with pytest.raises(ValueError, match=r"a\.png: a RGB picture; expected one class number a pixel"):
        data.labels(0)
    labels(file, np.zeros((5, 6)))
    with pytest.raises(ValueError, match=r"a\.png: 6 x 5 pixels, its photograph a\.jpg has 12 x 8"):
        data.labels(0)
    (tmp_path / "images" / "train" / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.jpg: not a picture"):
        data.image(0)


def test_numbers_of_palette_pictures_are_the_numbers_not_the_colours(tmp_path: Path) -> None:
    file = labels(tmp_path / "a.png", numbers(0, 15, 255), palette=True)
    assert read_numbers(file)[:3, 0].tolist() == [0, 15, 255]
    with Image.open(file) as opened:
        assert opened.mode == "P"


def test_pictures_stay_in_memory_while_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = SIZE[0] * SIZE[1]
    monkeypatch.setattr(pixel_labels, "ROOM", 5 * one)  # a photograph and its labels fill 4
    data = pair(tmp_path)
    photograph(tmp_path / "images" / "train" / "b.jpg")
    labels(tmp_path / "labels" / "train" / "b.png", numbers(2))
    data = camvid.open_camvid(tmp_path)
    assert data.image(0) is data.image(0)
    assert data.labels(0) is data.labels(0)
    assert data.image(1) is not data.image(1)  # no room for it
    assert np.array_equal(data.image(1), data.image(1))
    assert data.labels(1) is data.labels(1)
    with pytest.raises(ValueError, match="read-only"):
        data.image(0)[0, 0] = 0


def test_collections_need_pictures_and_colours(tmp_path: Path) -> None:
    some = [(tmp_path / "a.jpg", tmp_path / "a.png")]
    for pairs, classes, colours in (([], ("a", "b"), 2), (some, ("a",), 1), (some, ("a", "b"), 3)):
        with pytest.raises(ValueError, match="expected at least one picture, two classes and a colour for each"):
            PixelFiles(pairs, classes, bit_palette(colours))
    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train").mkdir(parents=True)
    with pytest.raises(ValueError, match="no photographs here"):
        camvid.open_camvid(tmp_path)


def test_every_class_has_its_own_name_and_colour() -> None:
    for classes, palette in (
        (camvid.CLASSES, camvid.PALETTE),
        (cityscapes.CLASSES, cityscapes.PALETTE),
        (ade20k.CLASSES, ade20k.PALETTE),
        (pascal.CLASSES, bit_palette(21)),
        (pascal.CONTEXT_CLASSES, bit_palette(60)),
    ):
        assert len(set(classes)) == len(classes) == len(palette)
        alike = 1 if classes is ade20k.CLASSES else 0  # the published colours show road and skyscraper alike
        assert len(np.unique(palette, axis=0)) == len(palette) - alike
