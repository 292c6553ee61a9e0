"""Where mechanisms that are not `F.scaled_dot_product_attention` report their weights.

Free when nobody listens: one truth test of a tuple.  The lens adds itself through `listen`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident

from jaxtyping import Float
from torch import Tensor

Listener = Callable[[Tensor, str, str], None]

_listeners: tuple[tuple[int, Listener], ...] = ()


def report(weights: Float[Tensor, "batch heads queries keys"], kind: str = "self", name: str = "") -> None:
    """Hands attention weights (rows sum to 1) to whoever listens in this thread.

    `kind` is "self" or "cross"; `name` tells several mechanisms of one module apart.
    """
    if _listeners:
        _tell(weights, kind, name)


def listening() -> bool:
    """Tells whether anybody listens, for mechanisms whose weights cost something to work out."""
    return bool(_listeners)


def _tell(weights: Tensor, kind: str, name: str) -> None:
    if kind not in ("self", "cross"):
        raise ValueError(f'kind of attention is "self" or "cross", given {kind!r}')
    here = get_ident()
    for thread, callback in _listeners:
        if thread == here:
            callback(weights, kind, name)


@contextmanager
def listen(callback: Listener) -> Iterator[None]:
    """Calls `callback(weights, kind, name)` for every report made in this thread inside the `with` block."""
    global _listeners
    entry = (get_ident(), callback)
    _listeners = (*_listeners, entry)
    try:
        yield
    finally:
        _listeners = tuple(other for other in _listeners if other is not entry)
