"""One module being executed: where it is in the model, and what its arguments say of the attention inside."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass
class Frame:
    """A module call that has begun.  `hint`, `heads` and `group` are found only when an attention call asks.

    Most modules of a model hold no attention of their own, and what is not asked for costs nothing.
    """

    path: str
    hint: str  # "cross", "self", "joint:N", "alone" or ""; unknown while `call` is there
    serial: int
    windowed: bool
    wanted: bool
    call: tuple[nn.Module, tuple, dict[str, Any]] | None = None  # module and arguments, until they are asked
    heads: int = 0  # query heads, where the module says so
    group: int = 1  # query heads for each key head, where the module says so

    def settled(self) -> "Frame":
        """Itself, with everything known that its module and arguments say."""
        if self.call is not None:
            module, args, kwargs = self.call
            self.hint = hint_of(module, args, kwargs)
            self.heads, self.group = heads_of(module)
            self.call = None
        return self


OUTSIDE = Frame("", "", -1, False, True)

# parts of the names of arguments that are laid beside a sequence
_BESIDE = ("mask", "bias", "pos", "rotary")


def hint_of(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> str:
    """What a module's own arguments say: "cross" when keys come from elsewhere, "joint:N" when N tokens are both,
    "alone" when the module was given one sequence only."""
    if isinstance(module, nn.MultiheadAttention):
        query, key = (args[i] if i < len(args) else kwargs.get(name) for i, name in enumerate(("query", "key")))
        return "self" if query is key else "cross"
    for name in ("key_value_states", "encoder_hidden_states", "context", "memory"):
        other = kwargs.get(name)
        if isinstance(other, Tensor):
            own = kwargs.get("hidden_states", args[0] if args else None)
            if name == "encoder_hidden_states" and isinstance(own, Tensor) and own.dim() == other.dim() == 3:
                return f"joint:{own.shape[1] + other.shape[1]}"
            return "cross"
    sequences = [a for a in args if _is_sequence(a)]
    sequences += [v for k, v in kwargs.items() if _is_sequence(v) and not any(word in k for word in _BESIDE)]
    return "alone" if len(sequences) == 1 else ""


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() >= 3 and value.is_floating_point()


def heads_of(module: nn.Module) -> tuple[int, int]:
    """(query heads, query heads for each key head) as a module names them; (0, 1) where it does not."""
    places = (module, getattr(module, "config", None))
    names = ("num_heads", "num_attention_heads", "n_heads")
    found = [getattr(place, name, None) for place in places for name in names]
    heads = next((n for n in found if isinstance(n, int)), 0)
    group = getattr(module, "num_key_value_groups", 1)
    return heads, group if isinstance(group, int) else 1
