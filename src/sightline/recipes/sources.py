"""What is wrong with a run's data by its name alone: importing the readers, and torch, would take seconds.

The readers judge the rest once the run begins; `tests/recipes/test_sources.py` compares these names with theirs.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from sightline.data.named import pieces_of
from sightline.recipes.known import home_of
from sightline.recipes.settings import TrainingError

_LABELLED = ("folder", "cifar10", "hub", "photos", "world")
_CAPTIONS = ("flickr8k", "flickr30k", "coco", "karpathy")
_QUESTIONS = ("daquar", "visual7w", "vqa")
# by the recipe, or by the module that its `open_data` is written in
KINDS: dict[str, tuple[str, ...]] = {
    "pictures": _LABELLED,
    "banks": _LABELLED,
    "placed_digits": ("placed", *_LABELLED),
    "segmentations": ("camvid", "cityscapes", "ade20k", "voc", "context", "world"),
    "captions": _CAPTIONS,
    "pairs": ("multi30k", "transduction"),
    "answers": ("scenes", *_QUESTIONS),
    "visual7w_pointing": ("scenes",),
    "ram": ("mnist", "translated", "cluttered"),
    "world_captions": ("scenes",),
}
_SIDED = ("placed", "mnist", "translated", "cluttered")  # a side in pixels may follow: placed64
_COUNTED = {"world": 10, "scenes": 1}  # made on the spot, so many at least
_NAMED = ("hub", "transduction")  # a name that only the reader knows


def check_source(system: str, data: str) -> None:
    """Raises TrainingError for a kind of data that a recipe does not take, and for a place that is not there.

    `data` is KIND:PATH as the recipe's `open_data` reads it, several joined by + where it takes labelled pictures.
    """
    try:
        home = system if system in KINDS else home_of(system, "open_data")
        kinds = KINDS[home]
    except (OSError, LookupError):  # without its source the recipe itself has to be asked, later
        return
    joined = "folder" in kinds and not data.startswith("placed")
    before = r"(?:\d+\*)?(?:memory\d+:)?" if joined else ""
    found = []
    for piece in pieces_of(data) if joined else [data]:
        named = re.fullmatch(before + r"([a-zA-Z_]\w*):(.+)", piece)
        fitting = [kind for kind in kinds if named and named[1].rstrip("0123456789" * (kind in _SIDED)) == kind]
        if named is None or not fitting:
            raise TrainingError(f"data {piece!r}: expected KIND:PATH for {system}, KIND one of {', '.join(kinds)}")
        _check_place(fitting[0], named[2])
        found.append(fitting[0])
    if home == "pictures" and "photos" in found:
        raise TrainingError("some pictures have no label (photos:…): a classifier cannot learn from them, dino can")
    if home == "banks" and set(found) == {"photos"}:
        raise TrainingError(f"{data}: no collection with labels, by which features are measured: add one (folder:…)")


def _check_place(kind: str, path: str) -> None:
    if kind in _COUNTED:
        count, least = path.partition("#")[0] if kind == "scenes" else path, _COUNTED[kind]
        if not (count.isascii() and count.isdecimal()) or int(count) < least:
            raise TrainingError(f"data {kind}:{path}: expected the number of scenes, {least} or more: {kind}:3000")
        return
    for place in [] if kind in _NAMED else _places(kind, path):
        root = Path(place).expanduser()
        if kind == "folder" and not root.is_dir():
            from sightline.data.folder import LAYOUT

            raise TrainingError(f"{root}: no such folder; expected one with {LAYOUT}")
        if not root.exists():
            raise TrainingError(f"{root}: no such folder or file; expected the data that {kind}:PATH reads there")


def _places(kind: str, path: str) -> Sequence[str]:
    """The files or folders that a path names; none where it is not of the form that its reader explains better."""
    if kind == "placed":
        return path.split("+", 1) if "+" in path else []
    if kind in (*_CAPTIONS, *_QUESTIONS):  # an encoder's name may follow
        return [path.partition("#")[0]]
    if kind == "multi30k":  # two languages may follow
        return [re.sub(r":[^:/]{2}-[^:/]{2}$", "", path)]
    return [path]
