"""Module hooks that tell the interceptor which part of the model is running, and with which arguments."""

import re
import threading
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.compiler import is_compiling

from sightline.lens.compiled import take_compiled
from sightline.lens.frame import Frame, hint_of, setting_of
from sightline.lens.given import Mark
from sightline.lens.intercept import Interceptor
from sightline.lens.key import has_fast_path, put_up, settle_down

# half of the modules of a ViT that are not torch's own; `enter` and `leave` of each took 9 microseconds a pass
_FEED_FORWARD = re.compile(r"(MLP|Mlp|FeedForward|FFN|Activation)$")


class Hooks:
    """Hooks on many modules, put in and taken out at once under one number.

    `register_forward_pre_hook` makes a handle of its own for each; on a model of a hundred modules that costs more
    than all other work of the lens together.
    """

    def __init__(self, model: nn.Module) -> None:
        handle = model.register_forward_hook(_nothing)  # for a number that nobody else has
        self._number = handle.id
        handle.remove()
        self._modules: list[nn.Module] = []

    def add(self, module: nn.Module, enter: Any, leave: Any = None) -> None:
        """Runs `enter(module, args, kwargs)` before a module and `leave(module, args, output)` after it."""
        module._forward_pre_hooks[self._number] = enter
        module._forward_pre_hooks_with_kwargs[self._number] = True
        if leave is not None:
            module._forward_hooks[self._number] = leave
        self._modules.append(module)

    def remove(self) -> None:
        """Leaves every module as it was."""
        number = self._number
        for module in self._modules:
            module._forward_pre_hooks.pop(number, None)
            module._forward_pre_hooks_with_kwargs.pop(number, None)
            module._forward_hooks.pop(number, None)
        self._modules.clear()


def _nothing(*_: Any) -> None:
    """Does nothing."""


def attach(model: nn.Module, parts: list[tuple[str, nn.Module]], mode: Interceptor) -> Hooks:
    """Hooks on the parts of a model, by path, that tell `mode` which of them is running.

    Leaves that torch itself defines (linear, norm, activation) are left alone, since no attention call happens inside;
    but the first two levels may be called in place of the whole model, and then tell which pixels were given.
    Feed-forward parts are left alone too: were there an attention call inside one, it would be seen all the same, and
    bear the name of the module around it.
    """
    hooks, windowed = Hooks(model), set[str]()
    for path, module in parts:
        torchs_own, feed_forward = _known(type(module))  # type: ignore[arg-type]  # mypy takes classes for unhashable
        leaf = torchs_own and not module._modules
        outer = bool(path) and path.count(".") <= 1
        if not outer and (leaf or feed_forward):
            continue
        if leaf:
            hooks.add(module, _watch_pixels(mode))
            continue
        parent, _, _ = path.rpartition(".")
        if isinstance(setting_of(module, "window_size"), int | tuple | list) or parent in windowed:
            windowed.add(path)
        name = path.removeprefix("_orig_mod").removeprefix(".")
        _follow_module(hooks, module, name, path in windowed, outer, mode)
    return hooks


def parts_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts of a model in the order of `named_modules`, but for torch's own leaves below the second level.

    Those are most of a model's modules, and nobody asks for them; `named_modules` goes through a generator for each
    level, which took twice as long as putting the hooks in.
    """
    parts, seen, waiting = [], set[int](), [("", model)]
    while waiting:
        path, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        parts.append((path, module))
        deep = path.count(".") > 0
        prefix = f"{path}." if path else ""
        for name, part in reversed(list(module._modules.items())):
            if part is not None and not (deep and not part._modules and _known(type(part))[0]):  # type: ignore[arg-type]
                waiting.append((prefix + name, part))
    return parts


@lru_cache(maxsize=1024)
def _known(kind: type[nn.Module]) -> tuple[bool, bool]:
    """Whether torch itself defines a class of modules, and whether its name says feed-forward part."""
    return kind.__module__.startswith("torch.nn.modules"), bool(_FEED_FORWARD.search(kind.__name__))


def _watch_pixels(mode: Interceptor) -> Any:
    def enter(_module: nn.Module, args: tuple, kwargs: dict[str, Any] | None = None) -> None:
        if kwargs is None or is_compiling() or mode.paused:
            return
        if threading.get_ident() == mode.thread and mode.mark is not None and mode.mark.pixels is None:
            mode.mark.note(args, kwargs)

    return enter


def _follow_module(hooks: Hooks, module: nn.Module, path: str, windowed: bool, outer: bool, mode: Interceptor) -> None:
    wanted = mode.plan.sites == "*" or mode.plan.wants(path)
    fast = has_fast_path(module)

    def enter(_module: nn.Module, args: tuple, kwargs: dict[str, Any] | None = None) -> None:
        if kwargs is None:  # another thread called while the recording was being taken down
            return
        if is_compiling():
            mode.frames.append(Frame(path, hint_of(_module, args, kwargs), -1, windowed, wanted))
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
        mode.frames.append(Frame(path, "", mode.serial, windowed, wanted, _module, (args, kwargs)))
        if outer and mode.mark is not None and mode.mark.pixels is None:
            mode.mark.note(args, kwargs)
        if fast and mode.below and not mode.up and not _module.training:
            put_up(mode)

    def leave(_module: nn.Module, args: tuple, output: Any) -> None:
        if is_compiling():
            mode.frames.pop()
        elif not mode.paused and mode.frames and threading.get_ident() == mode.thread:
            mode.frames.pop()
            if mode.up:
                settle_down(mode)

    hooks.add(module, enter, leave)


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
