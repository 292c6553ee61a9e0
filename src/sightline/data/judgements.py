"""What people thought of captions: the judgements of Flickr8k (Hodosh et al. 2013) that metrics are compared with."""

import os
from dataclasses import dataclass
from pathlib import Path

from sightline.data.captions import caption_table
from sightline.data.listed import lines_of


@dataclass(frozen=True)
class Judgements:
    """Captions with references of the judged photographs and the rating each got; one entry for each rating.

    images       name of the judged photograph
    captions     the judged caption
    references   captions of that photograph to compare with
    ratings      1 … 4 by an expert (4 is best), or the share of the crowd that said yes
    """

    images: list[str]
    captions: list[str]
    references: list[list[str]]
    ratings: list[float]

    def __len__(self) -> int:
        return len(self.ratings)


def open_expert(path: str | os.PathLike[str], captions: str | os.PathLike[str]) -> Judgements:
    """Reads `ExpertAnnotations.txt`: PHOTOGRAPH, CAPTION (NAME#K), three ratings, with tabs between.

    `path` is its folder, `captions` the file of all captions (`Flickr8k.token.txt`).  As published: pairs whose caption
    is one of the photograph's own are left out, and each of the three ratings is an entry.  Raises ValueError for lines
    of another form and captions that are not there.
    """
    table = caption_table(Path(captions).expanduser())
    found = Judgements([], [], [], [])
    for image, caption, ratings in _rows(Path(path).expanduser() / "ExpertAnnotations.txt", table, 3):
        if caption in table[image]:
            continue
        for rating in ratings:
            found.images.append(image)
            found.captions.append(caption)
            found.references.append(table[image])
            found.ratings.append(rating)
    return found


def open_crowd(path: str | os.PathLike[str], captions: str | os.PathLike[str]) -> Judgements:
    """Reads `CrowdFlowerAnnotations.txt`: PHOTOGRAPH, CAPTION (NAME#K), share of yes, number of yes, number of no.

    As published (CLIPScore's code): where a photograph's own caption was judged, it is taken out of the references of
    that photograph in all of its entries, not in that one alone.  Raises ValueError as `open_expert`.
    """
    table = caption_table(Path(captions).expanduser())
    found = Judgements([], [], [], [])
    left = {image: list(own) for image, own in table.items()}
    for image, caption, (share, *_) in _rows(Path(path).expanduser() / "CrowdFlowerAnnotations.txt", table, 3):
        if caption in left[image]:
            left[image].remove(caption)
        found.images.append(image)
        found.captions.append(caption)
        found.references.append(left[image])
        found.ratings.append(share)
    return found


def _rows(file: Path, table: dict[str, list[str]], numbers: int) -> list[tuple[str, str, list[float]]]:
    found = []
    for line, text in lines_of(file):
        image, *rest = text.split("\t")
        name, mark, place = (rest[0] if rest else "").partition("#")
        try:
            values = [float(one) for one in rest[1:]]
        except ValueError:
            values = []
        if not mark or not place.isdigit() or len(values) != numbers:
            raise ValueError(f"{file}: line {line} is not PHOTOGRAPH, NAME#K and {numbers} numbers: {text[:60]!r}")
        if image not in table or name not in table or int(place) >= len(table[name]):
            raise ValueError(f"{file}: line {line} names {image} and {rest[0]}; the file of captions lacks one of them")
        found.append((image, table[name][int(place)], values))
    return found
