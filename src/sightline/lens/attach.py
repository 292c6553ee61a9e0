"""Lets the interceptor know which part of the model is running: by hooks, where Python's stack does not tell."""

import re
import sys
import threading
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.compiler import is_compiling

from sightline.lens.compiled import take_compiled
from sightline.lens.frame import Frame, hint_of, setting_of
from sightline.lens.given import Mark, cache_length
from sightline.lens.hooks import Hooks
from sightline.lens.key import has_fast_path, put_up, settle_down
from sightline.lens.stack import Part

# half of the modules of a ViT that are not torch's own; `enter` and `leave` of each took 9 microseconds a pass
_FEED_FORWARD = re.compile(r"(MLP|Mlp|FeedForward|FFN|Activation)$")


def attach(model: nn.Module, parts: list[tuple[str, nn.Module]], mode: Any) -> Hooks:
    """Lets `mode` know which part of a model is running: by hooks, or by Python's stack where the dispatcher serves.

    Leaves that torch itself defines (linear, norm, activation) are left alone, since no attention call happens inside;
    but the first two levels may be called in place of the whole model, and then tell which pixels were given.
    Feed-forward parts are left alone too: were there an attention call inside one, it would be seen all the same, and
    bear the name of the module around it.

    Below the dispatcher only what may be called in place of the model has hooks, and what has a fast path.
    """
    hooks, windowed, stack = Hooks(), set[str](), mode.stack
    for path, module in parts:
        torchs_own, feed_forward = _known(type(module))  # type: ignore[arg-type]  # mypy takes classes for unhashable
        leaf = torchs_own and not module._modules
        level = path.count(".") + 1 if path else 0
        outer = 1 <= level <= 2
        if not outer and (leaf or feed_forward):
            continue
        if leaf:
            hooks.add(module, _watch_pixels(mode), rests=True)
            continue
        parent, _, _ = path.rpartition(".")
        if parent in windowed or isinstance(setting_of(module, "window_size"), int | tuple | list):
            windowed.add(path)
        name = path.removeprefix("_orig_mod").removeprefix(".")
        fast = has_fast_path(module)
        if stack is not None:
            stack.add(Part(name, path in windowed, module))
            if not (level <= 2 or fast or hasattr(type(module), "generate")):
                continue
        frame = Frame(name, "", -1, path in windowed, mode.plan.sites == "*" or mode.plan.wants(name))
        rests = stack is not None and level == 2 and not fast
        hooks.add(module, *_follow_module(frame, fast, outer, mode), rests=rests)
    return hooks


def follow_ends(mode: Any) -> None:
    """Lets the mode, now that a softmax has put it up, come down whenever a part of the model ends."""

    def leave(_module: nn.Module, args: tuple, output: Any) -> None:
        if mode.up and not mode.paused and threading.get_ident() == mode.thread:
            settle_down(mode)

    if not mode.ends.there:
        for module in mode.stack.modules():
            mode.ends.add(module, leave=leave)


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


def _watch_pixels(mode: Any) -> Any:
    def enter(_module: nn.Module, args: tuple, kwargs: dict[str, Any] | None = None) -> None:
        if kwargs is None or is_compiling() or mode.paused:
            return
        if threading.get_ident() == mode.thread and mode.mark is not None and mode.mark.pixels is None:
            mode.mark.note(args, kwargs)

    return enter


def _follow_module(place: Frame, fast: bool, outer: bool, mode: Any) -> tuple[Any, Any]:
    """Hooks that keep `mode.frames`: what to do when the module at this place begins, and when it has ended."""
    path, windowed, wanted = place.path, place.windowed, place.wanted

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
        if mode.frames or not path:
            pass
        elif mode.stack is not None:
            mode.stack.begin(mode, sys._getframe(1))
        elif torch._C._current_graph_task_id() == -1:
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

    return enter, leave
