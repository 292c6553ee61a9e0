"""Collections of labelled pictures by name: `folder:PATH`, `cifar10:PATH`, `hub:ID`, `world:COUNT`, and unions of them.

Beside them `photos:PATH`, pictures without labels, and `memory96:KIND:PATH`, any of these kept in memory.
"""

import re
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from sightline.data.cifar10 import Cifar10
from sightline.data.folder import ImageFolder
from sightline.data.hub import HubPictures
from sightline.data.memory import InMemory
from sightline.data.named import pieces_of
from sightline.data.unlabelled import UNKNOWN, Photographs
from sightline.data.world_pictures import WorldPictures


@runtime_checkable
class Labelled(Protocol):
    """What a reader of labelled pictures offers."""

    classes: tuple[str, ...]
    labels: np.ndarray

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray: ...


KINDS: dict[str, Callable[[str, str], Labelled]] = {
    "folder": ImageFolder,
    "cifar10": Cifar10,
    "hub": HubPictures,
    "photos": Photographs,
    "world": WorldPictures,
}


class Union:
    """Joins collections; classes of the same name become one, and a collection may count several times.

    `classes` keep the order of first appearance.  `repeats[k]` says how often part k occurs (a small collection
    beside a large one).  `part_labels(k)` are the labels of `parts[k]` in the united numbering.
    Raises ValueError for no parts, or repeats that do not fit.
    """

    def __init__(self, parts: Sequence[Labelled], repeats: Sequence[int] | None = None) -> None:
        repeats = [1] * len(parts) if repeats is None else list(repeats)
        if not parts or len(repeats) != len(parts) or min(repeats) < 1:
            raise ValueError(f"a union needs collections and a repeat of 1 or more for each, given {repeats}")
        self.parts = tuple(parts)
        self.classes = tuple(dict.fromkeys(name for part in parts for name in part.classes))
        self._source = np.concatenate(
            [np.full(len(part) * times, k) for k, (part, times) in enumerate(zip(parts, repeats, strict=True))]
        )
        self._index = np.concatenate(
            [np.tile(np.arange(len(part)), times) for part, times in zip(parts, repeats, strict=True)]
        )
        self.labels = np.concatenate([np.tile(self.part_labels(k), times) for k, times in enumerate(repeats)])

    def part_labels(self, part: int) -> np.ndarray:
        """Gives the labels of one part as numbers of the united classes; those of pictures without label stay -1."""
        own = self.parts[part]
        number = np.array([*map(self.classes.index, own.classes), UNKNOWN], dtype=np.int64)
        return number[own.labels]  # -1 takes the last

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        return self.parts[self._source[index]].image(int(self._index[index]))


def open_labelled(spec: str, split: str = "train") -> Union:
    """Opens `KIND:PATH`, or several joined by `+`, each with an optional repeat: `8*folder:A+cifar10:B`.

    Kinds: `folder` (`data/folder.py`), `cifar10` (`data/cifar10.py`), `hub` (`data/hub.py`), `world` (generated
    scenes, `data/world_pictures.py`), `photos` (without labels, `data/unlabelled.py`); `memory96:` before a kind keeps
    its pictures in memory as squares of 96 pixels (`data/memory.py`).  Repeats count for `split` "train" only.  Raises
    ValueError for an unknown kind, and what the readers raise.
    """
    parts: list[Labelled] = []
    repeats: list[int] = []
    for piece in pieces_of(spec):
        match = re.fullmatch(r"(?:(\d+)\*)?(?:memory(\d+):)?(\w+):(.+)", piece)
        if match is None or match[3] not in KINDS:
            raise ValueError(
                f"data {piece!r}: expected KIND:PATH with KIND one of {', '.join(KINDS)}, such as folder:photos"
            )
        part = KINDS[match[3]](match[4], split)
        parts.append(InMemory(part, int(match[2])) if match[2] else part)
        repeats.append(int(match[1] or 1) if split == "train" else 1)
    return Union(parts, repeats)
