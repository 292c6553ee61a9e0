"""Labelled pictures in memory, beside the training pictures among which their neighbours are sought."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sightline.data.labelled import Labelled, Union, open_labelled
from sightline.data.named import name_of, pieces_of
from sightline.data.pixels import to_square

MOST = 4 * 2**30  # bytes of pictures kept in memory


class Squares:
    """A labelled collection whose pictures stay in memory as squares, once they were read (up to `MOST` bytes)."""

    def __init__(self, data: Labelled) -> None:
        self.data, self.classes, self.labels = data, data.classes, data.labels
        self._kept, self._read = torch.empty(0, 3, 0, 0, dtype=torch.uint8), np.zeros(len(data), dtype=bool)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> np.ndarray:
        return self.data.image(index)

    def squares(self, indices: np.ndarray, side: int) -> Tensor:
        """Gives pictures as bytes (n, 3, side, side)."""
        if len(self) * 3 * side**2 > MOST:
            return torch.stack([to_square(self.image(int(i)), side) for i in indices])
        if self._kept.shape[-1] != side:
            self._kept = torch.empty(len(self), 3, side, side, dtype=torch.uint8)
            self._read[:] = False
        for i in np.unique(indices[~self._read[indices]]):
            self._kept[i] = to_square(self.image(int(i)), side)
            self._read[i] = True
        return self._kept[torch.from_numpy(indices)]


class Pictures(Union):
    """Labelled pictures beside the training pictures of the same collections, the bank where neighbours are sought."""

    def __init__(self, spec: str, split: str) -> None:
        opened = open_labelled(spec, split)
        super().__init__([Squares(part) for part in opened.parts])
        if not self.classes:
            raise ValueError(f"{spec}: no collection with labels, by which features are measured: add one (folder:…)")
        if split == "train":
            self._source, self._index, self.labels = opened._source, opened._index, opened.labels
        self.spec, self.split = spec, split
        self.names = tuple(name_of(piece) for piece in pieces_of(spec))
        self._banks: tuple[Squares, ...] = ()

    def banks(self) -> tuple[Labelled, ...]:
        """Gives the training part of each collection."""
        if self.split == "train":
            return self.parts
        self._banks = self._banks or tuple(Squares(part) for part in open_labelled(self.spec, "train").parts)
        return self._banks

    def measurable(self) -> dict[str, tuple[Labelled, Labelled]]:
        """Gives each collection with labels by name, beside its training part.

        The name is the last part of its path, with a number where two share one.  Raises ValueError where the two
        parts number other classes.
        """
        found: dict[str, tuple[Labelled, Labelled]] = {}
        for name, held, bank in zip(self.names, self.parts, self.banks(), strict=True):
            same_classes(name, bank, held)
            if len(held.classes):
                taken = sum(other.split(" (")[0] == name for other in found)
                found[f"{name} ({taken + 1})" if taken else name] = (held, bank)
        return found

    def squares(self, indices: np.ndarray, side: int) -> Tensor:
        """Gives pictures as bytes (n, 3, side, side)."""
        images = torch.empty(len(indices), 3, side, side, dtype=torch.uint8)
        for number, part in enumerate(self.parts):
            here = np.flatnonzero(self._source[indices] == number)
            images[torch.from_numpy(here)] = part.squares(self._index[indices[here]], side)  # type: ignore[attr-defined]
        return images


def same_classes(name: str, train: Labelled, held: Labelled) -> None:
    """Raises ValueError unless both parts of a collection number the same classes alike."""
    if train.classes != held.classes:
        differing = sorted(set(train.classes) ^ set(held.classes)) or ["(the same, in another order)"]
        raise ValueError(
            f"{name}: train and val differ in the classes {', '.join(differing[:5])}; neighbours need the same in both"
        )


def agree(train: Pictures, held: Pictures) -> None:
    """Raises ValueError unless training and held-out part of each collection have the same classes."""
    for name, one, other in zip(train.names, train.parts, held.parts, strict=True):
        same_classes(name, one, other)


def open_data(spec: str, split: str) -> Pictures:
    """Opens KIND:PATH, or several joined by +, as `sightline.data.labelled.open_labelled` does."""
    return Pictures(spec, split)


def read_batch(data: Any, indices: np.ndarray, recipe: Any) -> dict[str, Tensor]:
    """Reads pictures into {"images": bytes (batch, 3, side, side), "labels": (batch,), "indices": (batch,)}."""
    images = data.squares(indices, recipe.side)
    return {
        "images": images,
        "labels": torch.from_numpy(data.labels[indices]),
        "indices": torch.from_numpy(indices).long(),
    }
