"""A collection decoded once and kept in memory at one size, for networks that learn faster than files are read."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import UInt8

from sightline.data.pixels import to_square


class InMemory:
    """Keeps the pictures of `source` (as `data/labelled.py` has them) as squares of `side` pixels, 3 side² bytes each.

    All are read, by as many threads as there are cores, when the first is asked for.  `image(i)` raises what the
    source raises for a picture that cannot be read.  Raises ValueError for a side below 1.
    """

    def __init__(self, source: Any, side: int) -> None:
        if side < 1:
            raise ValueError(f"pictures are kept at a side of 1 pixel or more, given {side}")
        self.source, self.side = source, side
        self.classes: tuple[str, ...] = source.classes
        self.labels: np.ndarray = source.labels

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> UInt8[np.ndarray, "{self.side} {self.side} 3"]:
        squares, broken = self._read
        if index in broken:
            raise broken[index]
        return squares[index].transpose(1, 2, 0)

    @cached_property
    def _read(self) -> tuple[np.ndarray, dict[int, Exception]]:
        squares = np.zeros((len(self), 3, self.side, self.side), dtype=np.uint8)
        broken: dict[int, Exception] = {}

        def read(number: int) -> None:
            try:
                squares[number] = to_square(self.source.image(number), self.side)
            except (OSError, ValueError) as error:
                broken[number] = error

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(read, range(len(self))))
        return squares, broken
