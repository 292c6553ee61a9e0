"""Sentence pairs to learn from: Multi30k, or generated ones whose alignment is known; cut into pieces once."""

from collections.abc import Sequence

import numpy as np

from sightline.data.multi30k import open_multi30k
from sightline.data.subwords import Subwords
from sightline.data.transduction import open_transduction


class Pairs:
    """Sentences and their translations, and, of generated ones, the true alignment; `pieces` numbers their words.

    `numbers` cuts a pair once and remembers it: cutting takes longer than a step of a small network on a GPU.
    """

    def __init__(self, source: list[str], target: list[str], alignment: list[np.ndarray] | None = None) -> None:
        self.source, self.target, self.alignment = source, target, alignment
        self.pieces: Subwords | None = None
        self._cut: dict[int, tuple[list[int], list[int]]] = {}
        self._by: Subwords | None = None

    def __len__(self) -> int:
        return len(self.source)

    def numbers(self, places: Sequence[int], pieces: Subwords) -> list[tuple[list[int], list[int]]]:
        """Gives the pieces' numbers of pairs, source and target, without start and end."""
        if pieces is not self._by:
            self._cut, self._by = {}, pieces
        missing = [place for place in places if place not in self._cut]
        if missing:
            sides = (pieces.encode_all([side[place] for place in missing]) for side in (self.source, self.target))
            self._cut.update(zip(missing, zip(*sides, strict=True), strict=True))
        return [self._cut[place] for place in places]


def open_data(spec: str, split: str) -> Pairs:
    """Opens `multi30k:FOLDER` (German to English; `multi30k:FOLDER:fr-en` and the like) or `transduction:TASK`.

    Splits: train, val, and for Multi30k test_2016_flickr, for generated pairs test. Raises ValueError for another kind.
    """
    kind, _, path = spec.partition(":")
    if kind == "multi30k" and path:
        head, _, last = path.rpartition(":")
        languages = last.split("-") if head and len(last) == 5 and last[2] == "-" else []
        pairs = open_multi30k(head if languages else path, split, *(languages or ("de", "en")))
        return Pairs(pairs.source, pairs.target)
    if kind == "transduction" and path:
        made = open_transduction(path, split)
        return Pairs(made.source, made.target, made.alignment)
    raise ValueError(f"data {spec!r}: expected multi30k:FOLDER, multi30k:FOLDER:de-en or transduction:TASK")
