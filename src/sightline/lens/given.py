"""What a model was given: pixels and token ids of each pass, for placing its tokens; never a key-value cache."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn


@dataclass
class Mark:
    """The beginning of a pass of the model ("pass"), of one of its steps ("step"), or of a part called on its own."""

    frame: ClassVar[int] = -2  # no module call of an attention call
    kind: str
    path: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    pixels: Tensor | None = None

    def note(self, args: tuple, kwargs: dict[str, Any]) -> None:
        """Remembers the first arguments that tell something, and the first picture among them."""
        named = {**{str(i): a for i, a in enumerate(args)}, **kwargs}
        if not self.inputs:
            self.inputs = {name: value for name, value in named.items() if _is_plain(value)}
        if self.pixels is None:
            nested = [v for value in named.values() if isinstance(value, dict) for v in value.values()]
            self.pixels = next((v.detach() for v in (*named.values(), *nested) if _is_picture(v)), None)

    @property
    def batch(self) -> int | None:
        """Images in the batch; None where no image was given."""
        return None if self.pixels is None else self.pixels.shape[0]


def first_of(marks: Iterable[Mark]) -> Mark:
    """One mark with what several marks of the same pass know, the earliest first."""
    joined = Mark("pass")
    for mark in marks:
        joined.inputs = {**mark.inputs, **joined.inputs}
        joined.pixels = mark.pixels if joined.pixels is None else joined.pixels
    return joined


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor | int | float | bool | str | list | tuple | None)


def _is_picture(value: Any) -> bool:
    """(batch, 3, height, width), or video (batch, frames, 3, height, width) / (batch, 3, frames, height, width)."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return False
    return (value.dim() == 4 and value.shape[1] == 3) or (value.dim() == 5 and 3 in (value.shape[1], value.shape[2]))


def cache_of(kwargs: dict[str, Any]) -> Any:
    """The key-value cache of `transformers` among a module's arguments, or None; since 5.24 it is named `cache`."""
    cache = kwargs.get("past_key_values")
    if cache is not None:
        return cache
    named = kwargs.get("cache")
    return named if hasattr(named, "get_seq_length") else None


def cache_length(kwargs: dict[str, Any]) -> int:
    """Tokens that a key-value cache already holds when a module is called with these arguments."""
    cache = cache_of(kwargs)
    if cache is None:
        return 0
    length = getattr(cache, "get_seq_length", None)
    return int(length()) if length is not None else len(cache)


class Caches:
    """Whether beam search moved hypotheses between the rows of the key-value caches that were met.

    Their class tells it while the recording lasts: something put on a cache would keep it alive, and go along with its
    copies, which `generate` is given to continue a prompt in several ways.
    """

    _listening: ClassVar[dict[type, list["Caches"]]] = {}  # recordings that a class tells, in all threads
    _own: ClassVar[dict[type, Any]] = {}  # the method of each such class

    def __init__(self) -> None:
        self.reordered = False
        self._thread = threading.get_ident()
        self._kinds: list[type] = []

    def watch(self, cache: Any) -> None:
        """Notes from now on when the rows of such a cache are put in another order, in this thread."""
        kind = next((kind for kind in type(cache).__mro__ if "reorder_cache" in vars(kind)), None)
        if kind is None or kind in self._kinds:
            return
        self._kinds.append(kind)
        listening = self._listening.setdefault(kind, [])
        listening.append(self)
        if kind in self._own:
            return
        original = self._own[kind] = vars(kind)["reorder_cache"]

        def reorder_cache(own: Any, *args: Any, **kwargs: Any) -> Any:
            for caches in listening:
                caches.reordered = caches.reordered or threading.get_ident() == caches._thread
            return original(own, *args, **kwargs)

        kind.reorder_cache = reorder_cache  # type: ignore[attr-defined]

    def remove(self) -> None:
        """Leaves the classes as they were, when the last recording that they tell has ended."""
        for kind in self._kinds:
            self._listening[kind].remove(self)
            if not self._listening[kind]:
                kind.reorder_cache = self._own.pop(kind)  # type: ignore[attr-defined]
                del self._listening[kind]
        self._kinds.clear()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards every part is back in its own mode."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
