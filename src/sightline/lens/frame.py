"""One module being executed: where it is in the model, and what its arguments say of the attention inside."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class Frame:
    """A module call that has begun.  What its module and arguments say is found only when an attention call asks.

    Most modules of a model hold no attention of their own, and what is not asked for costs nothing.
    """

    path: str
    hint: str  # "cross", "self", "joint:N", "alone" or ""; unknown while `given` is there
    serial: int
    windowed: bool
    wanted: bool
    module: nn.Module | None = None
    given: tuple[tuple, dict[str, Any]] | None = None  # arguments, until they are asked
    items: tuple[int, ...] = ()  # (batch, length) of the first sequence among them; () where there is no batch

    def settled(self) -> "Frame":
        """Itself, with what its arguments tell."""
        if self.given is not None and self.module is not None:
            self.hint = hint_of(self.module, *self.given)
            self.items = items_of(*self.given)
            self.given = None
        return self

    @property
    def heads(self) -> int:
        """Query heads as the module or its configuration names them; 0 where neither does."""
        places = (self.module, setting_of(self.module, "config"))
        names = ("num_heads", "num_attention_heads", "n_heads")
        found = [setting_of(place, name) for place in places for name in names]
        return next((n for n in found if isinstance(n, int)), 0)

    @property
    def group(self) -> int:
        """Query heads for each key head as the module names them; 1 where it does not."""
        group = setting_of(self.module, "num_key_value_groups")
        return group if isinstance(group, int) else 1


OUTSIDE = Frame("", "", -1, False, True)  # no module runs: a method of the model itself, or a function
ELSEWHERE = Frame("", "", -1, False, False)  # a module runs that is no part of the model

# parts of the names of arguments that are laid beside a sequence
_BESIDE = ("mask", "bias", "pos", "rotary")


def hint_of(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> str:
    """What a module's own arguments say: "cross" when keys come from elsewhere, "joint:N" when N tokens are both,
    "alone" when the module was given one sequence only."""
    if isinstance(module, nn.MultiheadAttention):
        query, key = (args[i] if i < len(args) else kwargs.get(name) for i, name in enumerate(("query", "key")))
        return "self" if query is key else "cross"
    for name in ("key_value_states", "encoder_hidden_states", "context", "memory") if kwargs else ():
        other = kwargs.get(name)
        if other is not None and isinstance(other, Tensor):
            own = kwargs.get("hidden_states", args[0] if args else None)
            if name == "encoder_hidden_states" and isinstance(own, Tensor) and own.dim() == other.dim() == 3:
                return f"joint:{own.shape[1] + other.shape[1]}"
            return "cross"
    sequences = 0
    for value in args:
        sequences += _is_sequence(value)
    for name, value in kwargs.items():
        if value is not None and _is_sequence(value) and not any(word in name for word in _BESIDE):
            sequences += 1
    return "alone" if sequences == 1 else ""


def items_of(args: tuple, kwargs: dict[str, Any]) -> tuple[int, ...]:
    """Batch and length of the first argument (batch, length, width); () where it is one sequence, or none is there."""
    first = args[0] if args else kwargs.get("hidden_states")
    if not isinstance(first, Tensor):
        return ()
    shape = first.shape
    return tuple(shape[:2]) if len(shape) == 3 and shape[0] != 1 else ()


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() >= 3 and value.is_floating_point()


def setting_of(place: Any, name: str) -> Any:
    """A plain attribute of a module or configuration, or None where it has none.

    `getattr` on a module that lacks the name goes through `nn.Module.__getattr__`, which builds an error message: 1.7
    microseconds against 0.5, and asked of every module of a model.
    """
    if isinstance(place, nn.Module) and name not in vars(place) and not hasattr(type(place), name):
        return None
    return getattr(place, name, None)
