"""Calls of one kind, kept together: what they have in common once, and of each what differs."""

from typing import Any

import torch
from torch import Tensor

from sightline.lens.capture import Call, whereabouts
from sightline.lens.products import in_full_precision, products, products_directly, products_of_many


class Kind:
    """What attention calls have in common that are kept alike.

    fields: of `Call`, but for where it was made.  Rows `start` to `start + count` are kept, as `products` with the keys
    or else as queries and keys; a call keeps `cost` bytes.  direct: whether `products_directly` makes the products.
    """

    def __init__(
        self, fields: dict[str, Any], start: int, count: int, cost: int, products: bool, direct: bool = False
    ) -> None:
        self.fields, self.start, self.count, self.cost, self.products = fields, start, count, cost, products
        self.direct = direct


class Bundle:
    """Calls of one kind in the order they were made, with what is kept of them."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.count = 0  # calls
        self.place: tuple[int, ...] = ()  # where the last call's query and key lie in memory
        # products, or queries and keys, (batch, heads, ...) of one call each, or (calls, batch, heads, ...) of several
        self._made: list[tuple[Tensor, ...]] = []
        self._single: list[tuple[Tensor, ...]] = []  # the same call by call, since somebody reads
        self._waiting: list[tuple[Tensor, Tensor]] = []  # queries and keys that are soon multiplied

    def add(self, query: Tensor, key: Tensor, place: tuple[int, ...]) -> None:
        """Keeps one call now, whose query and key lie at `place`."""
        self.multiply()
        start, count = self.kind.start, self.kind.count
        # the lens's own arithmetic is nobody's attention: an outer recording shall not see it
        with torch._C.DisableTorchFunction(), in_full_precision(query):
            if self.kind.direct:
                self._made.append((products_directly(query, key, start, count)[None],))
            elif self.kind.products:
                self._made.append((products(query.narrow(2, start, count), key),))
            else:  # head by head where a product of several items would copy them so each time
                rows = query.narrow(2, start, count)
                layout = torch.preserve_format if len(key) == 1 else torch.contiguous_format
                self._made.append((rows.clone(memory_format=layout), key.clone(memory_format=layout)))
        self.count += 1  # now that nothing can fail any more
        self.place = place

    def wait(self, query: Tensor, key: Tensor) -> None:
        """Keeps one call when `multiply` is asked for next."""
        self.count += 1
        self._waiting.append((query, key))

    def multiply(self) -> None:
        """Keeps the calls that wait."""
        if not self._waiting:
            return
        (queries, keys), self._waiting = zip(*self._waiting, strict=True), []
        self.place = whereabouts(queries[-1], keys[-1])
        start, count = self.kind.start, self.kind.count
        with in_full_precision(queries[0]):
            if self.kind.products:
                self._made += [(part,) for part in products_of_many(queries, keys, start, count)]
            else:
                self._made.append((torch.stack([q.narrow(2, start, count) for q in queries]), torch.stack(keys)))

    def part(self, number: int) -> tuple[Tensor, ...]:
        """What is kept of one call: its products, or its queries and keys."""
        self.multiply()
        if len(self._single) <= number:
            self._single = [one for made in self._made for one in _calls(made)]
        return self._single[number]


def _calls(made: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    return [made] if made[0].dim() == 4 else list(zip(*(tensor.unbind() for tensor in made), strict=True))


class Kept:
    """One call of a bundle: where it was made.  It stands for a `Call` until somebody reads."""

    __slots__ = ("bundle", "frame", "hint", "number", "path")
    past = 0

    def __init__(self, bundle: Bundle, number: int, path: str, hint: str, frame: int) -> None:
        self.bundle, self.number, self.path, self.hint, self.frame = bundle, number, path, hint, frame

    @property
    def place(self) -> tuple[int, ...]:
        """Where query and key lie in memory, while no other call of the kind has come."""
        self.bundle.multiply()
        return self.bundle.place if self.number == self.bundle.count - 1 else ()

    def __getattr__(self, name: str) -> Any:
        """All else is as the kind has it."""
        if name in Kept.__slots__ or name not in self.bundle.kind.fields:
            raise AttributeError(name)  # a copy that is being made has no bundle yet
        return self.bundle.kind.fields[name]

    def nbytes(self) -> int:
        """Bytes that this call keeps."""
        return self.bundle.kind.cost

    def call(self, waiting: list[Call]) -> Call:
        """The call itself; `waiting` are those whose products become weights when one of them is read."""
        kind, part = self.bundle.kind, self.bundle.part(self.number)
        call = Call.__new__(Call)
        call.__dict__ = {**kind.fields, "path": self.path, "hint": self.hint, "frame": self.frame, "place": ()}
        if kind.products:
            call.weights, call.waiting = part[0], waiting
            waiting.append(call)
        else:
            call.query, call.key = part
        return call
