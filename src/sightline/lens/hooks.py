"""Module hooks that tell the interceptor which part of the model is running, and what its arguments say."""

import threading
from typing import Any

import torch
from torch import Tensor, nn

from sightline.lens.capture import Frame
from sightline.lens.compiled import take_compiled
from sightline.lens.given import Mark
from sightline.lens.intercept import Interceptor


def attach(model: nn.Module, mode: Interceptor) -> list[Any]:
    """Hooks that tell `mode` which module is running; returns their handles.

    Leaves that torch itself defines (linear, norm, activation) are left alone: no attention call happens inside.
    """
    handles: list[Any] = []
    windowed: set[str] = set()
    for path, module in model.named_modules():
        if not any(True for _ in module.children()) and type(module).__module__.startswith("torch.nn.modules"):
            continue
        parent = path.rpartition(".")[0]
        if isinstance(getattr(module, "window_size", None), int | tuple | list) or parent in windowed:
            windowed.add(path)
        handles += _follow_module(module, path.removeprefix("_orig_mod").removeprefix("."), path in windowed, mode)
    return handles


def _follow_module(module: nn.Module, path: str, windowed: bool, mode: Interceptor) -> list[Any]:
    wanted = mode.plan.wants(path)
    heads, group = _heads(module)

    def enter(_module: nn.Module, args: tuple, kwargs: dict[str, Any] | None = None) -> None:
        if kwargs is None:  # another thread called while the recording was being taken down
            return
        if torch.compiler.is_compiling():
            mode.frames.append(Frame(path, _hint(_module, args, kwargs), -1, windowed, wanted))
            return
        if mode.paused:
            return
        if threading.get_ident() != mode.thread:
            mode.other_thread = True
            return
        if mode.traced:
            take_compiled(mode)
        if not mode.frames and path and torch._C._current_graph_task_id() == -1:
            # not the root but a part of it was called: an encoder by `generate`, a text decoder by BLIP's `generate`
            mode.cached = cache_length(kwargs)
            mode.begin(Mark("step" if mode.cached else "part", path), args, kwargs)
        mode.serial += 1
        mode.frames.append(Frame(path, _hint(_module, args, kwargs), mode.serial, windowed, wanted, heads, group))

    def leave(_module: nn.Module, args: tuple, output: Any) -> None:
        if torch.compiler.is_compiling() or (not mode.paused and mode.frames and threading.get_ident() == mode.thread):
            mode.frames.pop()

    return [
        module.register_forward_pre_hook(enter, with_kwargs=True),
        module.register_forward_hook(leave),
    ]


def _hint(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> str:
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


# parts of the names of arguments that are laid beside a sequence
_BESIDE = ("mask", "bias", "pos", "rotary")


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() >= 3 and value.is_floating_point()


def cache_length(kwargs: dict[str, Any]) -> int:
    """Tokens that a `transformers` key-value cache already holds when a module is called with these arguments."""
    cache = kwargs.get("past_key_values")
    if cache is None:
        return 0
    length = getattr(cache, "get_seq_length", None)
    return int(length()) if length is not None else len(cache)


def _heads(module: nn.Module) -> tuple[int, int]:
    """(query heads, query heads for each key head) as a module names them; (0, 1) where it does not."""
    places = (module, getattr(module, "config", None))
    names = ("num_heads", "num_attention_heads", "n_heads")
    found = [getattr(place, name, None) for place in places for name in names]
    heads = next((n for n in found if isinstance(n, int)), 0)
    group = getattr(module, "num_key_value_groups", 1)
    return heads, group if isinstance(group, int) else 1
