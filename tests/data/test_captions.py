import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.data.captions import open_captions, open_coco, open_flickr, open_karpathy

PARTS = {"train": ["a1.jpg", "b2.jpg"], "dev": ["c3.jpg"], "test": ["d4.jpg"]}
NAMES = [name for names in PARTS.values() for name in names]


def say(name: str) -> list[str]:
    return [f"A dog in {name[0]} .", f"Two dogs, {name[0]}"]


def draw(folder: Path, names: list[str] = NAMES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (6, 4), (number * 10, 0, 0)).save((folder / name).with_suffix(".png"))
        (folder / name).with_suffix(".png").rename(folder / name)


def write_flickr8k(root: Path) -> str:
    """The official folder of Flickr8k."""
    text = root / "Flickr8k_text"
    text.mkdir()
    (text / "Flickr8k.token.txt").write_text(
        "".join(f"{name}#{k}\t{caption}\n" for name in NAMES for k, caption in enumerate(say(name)))
    )
    for part, names in PARTS.items():
        (text / f"Flickr_8k.{part}Images.txt").write_text("\n".join(names) + "\n")
    draw(root / "Flicker8k_Dataset")
    return f"flickr8k:{root}"


def write_flickr30k(root: Path) -> str:
    """Flickr30k with lists of ids, as Flickr30k Entities has them."""
    (root / "results_20130124.token").write_text(
        "".join(f"{name}#{k}\t{caption}\r\n" for name in NAMES for k, caption in enumerate(say(name)))
    )
    for part, names in PARTS.items():
        part = "val" if part == "dev" else part
        (root / f"{part}.txt").write_text("\n".join(name.removesuffix(".jpg") for name in names))
    draw(root / "flickr30k-images")
    return f"flickr30k:{root}"


def write_table(root: Path) -> str:
    """A table with a heading, as the copies on the web have it, and the official lists."""
    rows = ["image,caption", *(f'{name},"{caption}"' for name in NAMES for caption in say(name))]
    (root / "captions.txt").write_text("\n".join(rows))
    for part, names in PARTS.items():
        (root / f"Flickr_8k.{part}Images.txt").write_text("\n".join(names))
    draw(root / "Images")
    return f"flickr8k:{root}"


def write_coco(root: Path) -> str:
    (root / "annotations").mkdir()
    for part, names in PARTS.items():
        part = "val" if part == "dev" else part
        content = {
            "images": [{"id": 7 + i, "file_name": name} for i, name in enumerate([*names, "nothing.jpg"])],
            "annotations": [
                {"image_id": 7 + i, "caption": caption + "\n"} for i, name in enumerate(names) for caption in say(name)
            ],
        }
        (root / "annotations" / f"captions_{part}2014.json").write_text(json.dumps(content))
        draw(root / f"{part}2014", names)
    return f"coco:{root}"


def write_karpathy(root: Path) -> str:
    images = [
        {
            "filename": name,
            "filepath": "val2014",
            # COCO's restval belongs to the training part
            "split": {"train": "restval", "dev": "val", "test": "test"}[part] if name == "b2.jpg" else
            {"train": "train", "dev": "val", "test": "test"}[part],
            "sentences": [{"raw": caption, "tokens": []} for caption in say(name)],
        }
        for part, names in PARTS.items()
        for name in names
    ]  # fmt: skip
    (root / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    draw(root / "images" / "val2014")
    return f"karpathy:{root}"


WRITERS = [write_flickr8k, write_flickr30k, write_table, write_coco, write_karpathy]


@pytest.mark.parametrize("write", WRITERS)
def test_every_layout_gives_the_same(write: Callable[[Path], str], tmp_path: Path) -> None:
    spec = write(tmp_path)
    for part, names in PARTS.items():
        data = open_captions(spec, part)
        assert [Path(name).name for name in data.images] == names
        assert data.captions == [say(name) for name in names]
        assert len(data) == len(names)
        for i, name in enumerate(names):
            assert data.path(i).name == name
            assert data.image(i).shape == (4, 6, 3)
            assert data.image(i)[0, 0, 0] in range(0, 40, 10)
            assert data.image(i).dtype == np.uint8
    assert open_captions(spec, "val").images == open_captions(spec, "dev").images


@pytest.mark.parametrize("write", [write_flickr8k, write_flickr30k, write_table, write_karpathy])
def test_all_parts_at_once(write: Callable[[Path], str], tmp_path: Path) -> None:
    data = open_captions(write(tmp_path), "all")
    assert [Path(name).name for name in data.images] == NAMES


@pytest.mark.parametrize("write", WRITERS)
def test_a_missing_picture_is_named_when_asked_for(write: Callable[[Path], str], tmp_path: Path) -> None:
    spec = write(tmp_path)
    for file in tmp_path.rglob("b2.jpg"):
        file.unlink()
    data = open_captions(spec)
    assert data.image(0).shape == (4, 6, 3)
    with pytest.raises(ValueError, match=r"b2\.jpg: no such picture in ") as told:
        data.image(1)
    assert "\n" not in str(told.value)


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    data = open_captions(write_flickr8k(tmp_path))
    (tmp_path / "Flicker8k_Dataset" / "a1.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a1\.jpg"):
        data.image(0)


def test_what_is_wrong_in_a_flickr_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone: no such folder"):
        open_flickr(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"nothing that holds the captions; looked for Flickr8k\.token\.txt"):
        open_flickr(tmp_path)
    write_flickr8k(tmp_path)
    with pytest.raises(ValueError, match="split must be one of train, val, test, all, given 'dev2'"):
        open_flickr(tmp_path, "dev2")
    listed = tmp_path / "Flickr8k_text" / "Flickr_8k.trainImages.txt"
    listed.write_text("a1.jpg\n\nzz.jpg\n")
    with pytest.raises(ValueError, match=r"trainImages\.txt: line 3 names zz\.jpg, which has no caption"):
        open_flickr(tmp_path)
    listed.unlink()
    with pytest.raises(ValueError, match=r"the list of train; looked for Flickr_8k\.trainImages\.txt"):
        open_flickr(tmp_path)
    (tmp_path / "Flickr8k_text" / "Flickr8k.token.txt").write_text("a1.jpg#0\tfine\na1.jpg caption without tab\n")
    with pytest.raises(ValueError, match=r"token\.txt: line 2 is not NAME#K"):
        open_flickr(tmp_path)
    (tmp_path / "Flickr8k_text" / "Flickr8k.token.txt").write_bytes(b"a1.jpg#0\tfine\na1.jpg#1\tcaf\xe9\n")
    with pytest.raises(ValueError, match=r"token\.txt: line 2 is not UTF-8"):
        open_flickr(tmp_path)


def test_a_table_with_other_columns_or_a_short_line(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("name,text\na.jpg,hello\n")
    with pytest.raises(ValueError, match="expected the columns image,caption, found name,text"):
        open_flickr(tmp_path, "all")
    (tmp_path / "captions.txt").write_text("image,caption\na.jpg,hello\nb.jpg\n")
    with pytest.raises(ValueError, match=r"captions\.txt: line 3 is not IMAGE,CAPTION"):
        open_flickr(tmp_path, "all")


def test_a_caption_may_hold_strange_line_ends(tmp_path: Path) -> None:
    (tmp_path / "Flickr8k.token.txt").write_text("a.jpg#0\tone\u2028two\x0bthree\n", encoding="utf-8")
    assert open_flickr(tmp_path, "all").captions == [["one\u2028two\x0bthree"]]


def test_what_is_wrong_in_coco_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no captions_train\*\.json"):
        open_coco(tmp_path)
    file = tmp_path / "captions_train2014.json"
    cases = {
        '{"images": [': "not JSON",
        '{"images": []}': "a list 'annotations'",
        "[]": "a list 'images', found list",
        '{"images": [{"id": 1}], "annotations": []}': r"images\[0\] has no 'file_name', only id",
        '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1}]}': r"annotations\[0\] has no 'capt",
        '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 2, "caption": "b"}]}': "image 2, which",
        '{"images": [{"id": 1, "file_name": "a"}], "annotations": []}': "no captioned photograph",
    }
    for text, told in cases.items():
        file.write_text(text)
        with pytest.raises(ValueError, match=told):
            open_coco(tmp_path)


def test_a_single_file_knows_its_split(tmp_path: Path) -> None:
    write_coco(tmp_path)
    file = tmp_path / "annotations" / "captions_train2014.json"
    assert open_coco(file, "train").images == PARTS["train"]
    assert open_coco(file, "val").images == PARTS["dev"]  # the other split beside it
    plain = file.rename(tmp_path / "references.json")
    assert open_coco(plain, "all").images == PARTS["train"]
    with pytest.raises(ValueError, match="its name tells no split"):
        open_coco(plain, "val")
    (tmp_path / "annotations" / "captions_val2017.json").write_text("{}")
    with pytest.raises(ValueError, match="several captions files"):
        open_coco(tmp_path, "val")


def test_karpathy_needs_one_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found none"):
        open_karpathy(tmp_path)
    (tmp_path / "dataset_a.json").write_text('{"images": [{"split": "train", "filename": "a"}]}')
    with pytest.raises(ValueError, match=r"images\[0\] has no 'sentences'"):
        open_karpathy(tmp_path)
    with pytest.raises(ValueError, match="no image of split 'val'"):
        open_karpathy(tmp_path, "val")


def test_an_unknown_kind_is_named() -> None:
    for spec in ("flickr8k", "flickr8k:", "photos:here", ""):
        with pytest.raises(ValueError, match="expected KIND:PATH with KIND one of flickr8k, flickr30k, coco, karpathy"):
            open_captions(spec)


def test_flickr8k_itself(shared: Path) -> None:
    root = shared / "data" / "flickr8k"
    train, dev = open_captions(f"flickr8k:{root}"), open_captions(f"flickr8k:{root}", "dev")
    assert (len(train), len(dev)) == (6000, 1000)
    assert all(len(captions) == 5 for captions in train.captions + dev.captions)
    assert not set(train.images) & set(dev.images)
    assert dev.image(999).shape == (224, 224, 3)
    for split, other in (("train", train), ("val", dev)):
        karpathy = open_captions(f"karpathy:{root}", split)
        assert dict(zip(karpathy.images, karpathy.captions, strict=True)) == dict(
            zip(other.images, other.captions, strict=True)
        )
    with pytest.raises(ValueError, match="the list of test"):
        open_captions(f"flickr8k:{root}", "test")


def test_coco_references(shared: Path) -> None:
    data = open_captions(f"coco:{shared / 'data' / 'metrics' / 'ece285' / 'references.json'}", "all")
    assert (len(data), sum(map(len, data.captions))) == (973, 4875)
