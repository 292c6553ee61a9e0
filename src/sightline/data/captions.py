"""Captioned photographs in the field's layouts: Flickr8k and Flickr30k folders, COCO captions, Karpathy's splits."""

import csv
import io
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from sightline.data.listed import Pictures, field, lines_of, read_json, read_text, split_of
from sightline.data.photographs import open_photograph

SPLITS = ("train", "val", "test", "all")

_FLICKR_TEXT = ("Flickr8k.token.txt", "results_20130124.token", "Flickr30k.token.txt", "captions.txt")
_FLICKR_PICTURES = (
    "Flicker8k_Dataset",  # spelled so by its authors
    "Flickr8k_Dataset",
    "Flickr8k_Dataset/Flicker8k_Dataset",
    "flickr30k-images",
    "flickr30k_images",
    "Images",
    "images",
)
_FLICKR_LISTS = ("Flickr_8k.{}Images.txt", "flickr30k_{}.txt", "{}.txt")
_COCO_PICTURES = tuple(
    f"{above}{part}{year}"
    for above in ("", "images/")
    for part in ("train", "val", "test")
    for year in ("2014", "2017", "")
)


class Captioned:
    """Photographs, each with its captions, in one order.

    `images[i]` is the file name of photograph i, `captions[i]` the list of its captions as they were written.
    `path(i)` is its file and `image(i)` its (H, W, 3) bytes; both raise ValueError in one line where the file is
    missing or broken.  Pictures are opened when asked for.
    """

    def __init__(self, images: Iterable[str], captions: Iterable[list[str]], pictures: Pictures) -> None:
        self.images = list(images)
        self.captions = list(captions)
        self.pictures = pictures
        if not self.images:
            raise ValueError(f"{pictures.root}: no captioned photograph in this split")

    def __len__(self) -> int:
        return len(self.images)

    def path(self, index: int) -> Path:
        return self.pictures.path(self.images[index])

    def image(self, index: int) -> np.ndarray:
        return np.asarray(open_photograph(self.path(index)))


def open_captions(spec: str, split: str = "train") -> Captioned:
    """Opens `flickr8k:FOLDER`, `flickr30k:FOLDER`, `coco:FOLDER or JSON`, `karpathy:FOLDER or JSON`.

    `split` is train, val (also dev), test or all.  Raises ValueError for an unknown kind, and what the readers raise.
    """
    kind, found, path = spec.partition(":")
    if not found or kind not in KINDS or not path:
        raise ValueError(
            f"data {spec!r}: expected KIND:PATH with KIND one of {', '.join(KINDS)}, such as flickr8k:Flickr8k"
        )
    return KINDS[kind](path, split)


def open_flickr(path: str | os.PathLike[str], split: str = "train") -> Captioned:
    """Reads the folder of Flickr8k or Flickr30k by its official lists (Hodosh et al. 2013, Young et al. 2014).

    Captions: `Flickr8k.token.txt`, `results_20130124.token` (NAME#K, a tab, the caption), or `captions.txt`
    (IMAGE,CAPTION with a heading); lists: `Flickr_8k.trainImages.txt`, or `train.txt` with names or ids; all of them
    in the folder or one below.  Photographs: `Flicker8k_Dataset`, `flickr30k-images`, `Images` and the like.
    Raises ValueError for a missing file, a line that is not of this form (with its number), a listed photograph
    without captions, and a photograph that is not there.
    """
    root, split = _folder(path), split_of(split, SPLITS)
    text = _first(root, _FLICKR_TEXT, "the captions")
    captions = caption_table(text)
    if split == "all":
        names = list(captions)
    else:
        words = ("dev", "val") if split == "val" else (split,)
        listed = _first(root, [form.format(word) for form in _FLICKR_LISTS for word in words], f"the list of {split}")
        names = []
        for number, line in lines_of(listed):
            name = line.strip() if Path(line.strip()).suffix else f"{line.strip()}.jpg"
            if name not in captions:
                raise ValueError(f"{listed}: line {number} names {name}, which has no caption in {text.name}")
            names.append(name)
        names = list(dict.fromkeys(names))
    return Captioned(names, [captions[name] for name in names], Pictures(root, _FLICKR_PICTURES))


def open_coco(path: str | os.PathLike[str], split: str = "train") -> Captioned:
    """Reads COCO captions (Lin et al. 2014): `images` of {id, file_name}, `annotations` of {image_id, caption}.

    `path` is a folder with `captions_train*.json`, `captions_val*.json` in it or in `annotations/`, or such a file
    (the other split is then sought beside it); a file whose name tells no split opens as "all" only.  Photographs
    lie in `train2014/`, `val2017/`, `images/` and the like.  Images without captions are left out.
    Raises ValueError for missing files and keys, and captions of unknown images.
    """
    given, split = Path(path).expanduser(), split_of(split, SPLITS)
    file = _coco_file(given, split)
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    content = read_json(file, "images", "annotations")
    names: dict[str, str] = {}
    captions: dict[str, list[str]] = {}
    for number, entry in enumerate(content["images"]):
        key = str(field(entry, "id", f"{file}: images[{number}]"))
        names[key] = field(entry, "file_name", f"{file}: images[{number}]")
    for number, entry in enumerate(content["annotations"]):
        where = f"{file}: annotations[{number}]"
        key = str(field(entry, "image_id", where))
        if key not in names:
            raise ValueError(f"{where} captions image {key}, which is not among its images")
        captions.setdefault(key, []).append(str(field(entry, "caption", where)).strip())
    kept = [key for key in names if key in captions]
    return Captioned(
        [names[key] for key in kept], [captions[key] for key in kept], Pictures(root, ("images", *_COCO_PICTURES))
    )


def open_karpathy(path: str | os.PathLike[str], split: str = "train") -> Captioned:
    """Reads Karpathy's splits, `dataset_coco.json`, `dataset_flickr8k.json`, `dataset_flickr30k.json` (2015).

    `path` is the file or a folder with one of them.  "train" takes COCO's `restval` along, as the published figures
    do.  Photographs are sought beside the file, in COCO's and Flickr's folders.  Raises ValueError as the others.
    """
    given, split = Path(path).expanduser(), split_of(split, SPLITS)
    file = given
    if given.is_dir():
        found = sorted(given.glob("dataset*.json"))
        if len(found) != 1:
            told = ", ".join(f.name for f in found) or "none"
            raise ValueError(f"{given}: expected one dataset_*.json of Karpathy's in it, found {told}; name the file")
        file = found[0]
    wanted = {"train": ("train", "restval"), "all": None}.get(split, (split,))
    names, captions = [], []
    for number, entry in enumerate(read_json(file, "images")["images"]):
        where = f"{file}: images[{number}]"
        if wanted is not None and field(entry, "split", where) not in wanted:
            continue
        names.append(os.path.join(entry.get("filepath", ""), field(entry, "filename", where)))
        captions.append([str(field(s, "raw", where)).strip() for s in field(entry, "sentences", where)])
    if not names:
        raise ValueError(f"{file}: no image of split {split!r}")
    return Captioned(names, captions, Pictures(file.parent, (*_FLICKR_PICTURES, *_COCO_PICTURES)))


KINDS: dict[str, Callable[[str, str], Captioned]] = {
    "flickr8k": open_flickr,
    "flickr30k": open_flickr,
    "coco": open_coco,
    "karpathy": open_karpathy,
}


def caption_table(file: Path) -> dict[str, list[str]]:
    """Reads the captions of all photographs, by name, from `Flickr8k.token.txt` and its like or `captions.txt`."""
    return _from_table(file) if file.name == "captions.txt" else _from_tokens(file)


def _folder(path: str | os.PathLike[str]) -> Path:
    root = Path(path).expanduser()
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; expected the captions, the lists and the photographs in it")
    return root


def _first(root: Path, names: Iterable[str], what: str) -> Path:
    names = list(names)
    for name in names:
        for file in (root / name, *sorted(root.glob(f"*/{name}"))):
            if file.is_file():
                return file
    raise ValueError(
        f"{root}: found nothing that holds {what}; looked for {', '.join(names)} here and one folder below"
    )


def _from_tokens(file: Path) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    for number, line in lines_of(file):
        match = re.fullmatch(r"(\S+)#\d+\t(.*)", line)
        if match is None:
            raise ValueError(f"{file}: line {number} is not NAME#K, a tab and a caption: {line[:60]!r}")
        captions.setdefault(match[1], []).append(match[2].strip())
    return captions


def _from_table(file: Path) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    rows = csv.reader(io.StringIO(read_text(file)))
    heading = [name.strip() for name in next(rows, [])]
    if heading[:2] != ["image", "caption"]:
        raise ValueError(f"{file}: expected the columns image,caption, found {','.join(heading) or 'nothing'}")
    for row in rows:
        if len(row) < 2:
            raise ValueError(f"{file}: line {rows.line_num} is not IMAGE,CAPTION: {','.join(row)[:60]!r}")
        captions.setdefault(row[0], []).append(",".join(row[1:]).strip())
    return captions


def _coco_file(given: Path, split: str) -> Path:
    if given.is_dir():
        if split == "all":
            raise ValueError(f"{given}: split 'all' needs one captions file; name it, or a split")
        found = [f for place in (given, given / "annotations") for f in sorted(place.glob(f"captions_{split}*.json"))]
        if not found:
            raise ValueError(f"{given}: no captions_{split}*.json in it or in its annotations folder")
        if len(found) > 1:
            raise ValueError(f"{given}: several captions files ({', '.join(f.name for f in found)}); name one of them")
        return found[0]
    named = next((part for part in ("train", "val", "test") if part in given.stem), None)
    if split in (named, "all"):
        return given
    if named is None:
        raise ValueError(f"{given}: its name tells no split (train, val, test); open it as split 'all'")
    return given.with_name(given.name.replace(named, split))
