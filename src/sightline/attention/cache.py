"""Keys and values of the tokens written so far, so that a step of generation computes those of its own token only.

All layers lie in one buffer, time first: a new token is written behind the others without a copy, and a beam search
that reorders its hypotheses moves everything at once.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

_ROOM = 16  # tokens the first buffer holds; it doubles where it is full


class KeysValues(NamedTuple):
    """What is attended to, as the heads of one attention see it: both (batch, key_heads, keys, width)."""

    keys: Tensor
    values: Tensor


class Cache:
    """Keeps keys and values of `layers` layers of self-attention for the tokens so far; `length` counts those.

    A layer gets its part by `cache[number]` and adds to it by `extend`. It is a state that `sightline.decoding` can
    carry: `take(rows)` picks and repeats rows. Contents are overwritten, so an old state is no longer good after a
    step was made from it. Raises ValueError for `layers` or `rows` below 1.
    """

    def __init__(self, *, layers: int, rows: int, device: torch.device | str = "cpu") -> None:
        if layers < 1 or rows < 1:
            raise ValueError(f"a cache needs at least one layer and one row, given {layers=}, {rows=}")
        self.layers, self.rows, self.length, self.device = layers, rows, 0, torch.device(device)
        self._held: Tensor | None = None  # (room, 2 layers, rows, key_heads x width)
        self._spare: Tensor | None = None

    def __getitem__(self, layer: int) -> "Part":
        return Part(self, layer)

    def take(self, rows: Int[Tensor, " rows"]) -> "Cache":
        """Picks rows, which may come several times; gives the cache itself."""
        if self._held is None:
            self.rows = len(rows)
            return self
        if len(rows) == self.rows and torch.equal(rows, torch.arange(self.rows, device=rows.device)):
            return self
        used = self._held[: self.length]
        if self._spare is None or self._spare.shape[0] != len(self._held) or self._spare.shape[2] != len(rows):
            self._spare = used.new_empty(len(self._held), 2 * self.layers, len(rows), used.shape[3])
        torch.index_select(used, 2, rows, out=self._spare[: self.length])
        self._held, self._spare = self._spare, self._held
        self.rows = len(rows)
        return self

    def extend(self, layer: int, new: KeysValues) -> KeysValues:
        """Writes the keys and values of new tokens into a layer's part and gives all that are there."""
        rows, heads, count, width = new.keys.shape
        if rows != self.rows:
            raise ValueError(f"this cache holds {self.rows} rows, given keys of {rows}")
        end = self.length + count
        self._make_room(end, new.keys)
        assert self._held is not None
        place = self._held[:end, 2 * layer : 2 * layer + 2].unflatten(3, (heads, width))
        place[self.length :, 0] = new.keys.permute(2, 0, 1, 3)
        place[self.length :, 1] = new.values.permute(2, 0, 1, 3)
        if layer == self.layers - 1:
            self.length = end
        return KeysValues(place[:, 0].permute(1, 2, 0, 3), place[:, 1].permute(1, 2, 0, 3))

    def _make_room(self, end: int, like: Float[Tensor, "rows heads new width"]) -> None:
        if self._held is not None and end <= len(self._held):
            return
        room = max(_ROOM, 1 << (end - 1).bit_length())
        grown = like.new_empty(room, 2 * self.layers, self.rows, like.shape[1] * like.shape[3])
        if self._held is not None:
            grown[: self.length] = self._held[: self.length]
        self._held, self._spare = grown, None


class Part(NamedTuple):
    """One layer's share of a cache."""

    cache: Cache
    layer: int

    @property
    def length(self) -> int:
        """Counts the tokens before the new ones."""
        return self.cache.length

    def extend(self, new: KeysValues) -> KeysValues:
        """Puts the keys and values of new tokens behind the others and gives all of them."""
        return self.cache.extend(self.layer, new)
