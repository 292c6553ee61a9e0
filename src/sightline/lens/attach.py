"""Lets the interceptor know which part of the model is running: by hooks, where Python's stack does not tell."""

import sys
import threading
from typing import Any

import torch
from torch import nn
from torch.compiler import is_compiling

from sightline.lens.compiled import take_compiled
from sightline.lens.frame import Frame, hint_of
from sightline.lens.given import Mark, cache_length
from sightline.lens.hooks import Hook, Hooks
from sightline.lens.key import ask_again, elsewhere, has_fast_path, put_up, settle_down
from sightline.lens.parts import parts_of, walk


def attach(model: nn.Module, mode: Any) -> tuple[Hooks, list[nn.TransformerEncoder]]:
    """Lets `mode` know which part of a model is running: by hooks, or by Python's stack where the dispatcher serves.

    Leaves that torch itself defines (linear, norm, activation) are left alone, since no attention call happens inside;
    but the first two levels may be called in place of the whole model, and then tell which pixels were given.
    Feed-forward parts are left alone too: were there an attention call inside one, it would be seen all the same, and
    bear the name of the module around it.

    Below the dispatcher only what may be called in place of the model has hooks, and what has a fast path.  Of
    numbered parts at the second level that are of one class the first one will do: a picture is given to that one, and
    an attention call in a later one is traced to it by the stack.  The second level rests while the model itself runs,
    if that was given the picture.

    What a model consists of is found once and holds as long as it has the same parts.  Gives back the encoders too,
    whose padding needs care.
    """
    staying, resting, stack = list[Hook](), list[Hook](), mode.stack
    notes = _watch_pixels(mode)
    if stack is None:
        parts = walk(model)
        resting += [(module, notes, None) for ref, _ in parts.leaves if (module := ref()) is not None]
        for part in parts.known.values():
            if (module := part.ref()) is not None:
                staying.append((module, *_follow_module(part.path, part.windowed, part.level in (1, 2), mode)))
    else:
        parts = stack.parts = parts_of(model)
        resting += [(module, notes, None) for ref, later in parts.leaves if not later and (module := ref()) is not None]
        follows = _follow(model, mode)
        for part in parts.followed:
            if (module := part.ref()) is not None:
                (resting if part.level == 2 and not part.fast else staying).append((module, *follows))
    encoders: list[Any] = [module for ref in parts.encoders if (module := ref()) is not None]
    return Hooks(staying, resting), encoders


def follow_ends(mode: Any) -> None:
    """Lets the mode, now that a softmax has put it up, come down whenever a part of the model ends."""

    def leave(_module: nn.Module, args: tuple, output: Any) -> None:
        if mode.up and not mode.paused and threading.get_ident() == mode.thread:
            settle_down(mode)

    if mode.ends is None:
        mode.ends = Hooks([(module, None, leave) for module in mode.stack.modules()])


def _watch_pixels(mode: Any) -> Any:
    def enter(_module: nn.Module, args: tuple, kwargs: dict[str, Any] | None = None) -> None:
        if kwargs is None or is_compiling() or mode.paused:
            return
        if threading.get_ident() == mode.thread and mode.mark is not None and mode.mark.pixels is None:
            mode.mark.note(args, kwargs)

    return enter


def _follow(model: nn.Module, mode: Any) -> tuple[Any, Any]:
    """Hooks, below the dispatcher, of each module that may be called in place of the model or has a fast path."""

    def enter(module: nn.Module, args: tuple, kwargs: dict[str, Any] | None = None) -> None:
        if kwargs is None or is_compiling() or mode.paused or torch._C._current_graph_task_id() != -1:
            return
        if elsewhere(mode):
            return
        if not mode.frames and module is not model:
            ask_again(mode)
            mode.stack.begin(mode, sys._getframe(1))
        mode.frames.append(Frame("", "", -1, False, True, module))
        if mode.mark is not None and mode.mark.pixels is None:
            mode.mark.note(args, kwargs)
        if not mode.up and not module.training and has_fast_path(module):
            put_up(mode)

    def leave(_module: nn.Module, args: tuple, output: Any) -> None:
        if is_compiling() or mode.paused or torch._C._current_graph_task_id() != -1:
            return
        if mode.frames and threading.get_ident() == mode.thread:
            mode.frames.pop()
            if mode.up:
                settle_down(mode)

    return enter, leave


def _follow_module(path: str, windowed: bool, outer: bool, mode: Any) -> tuple[Any, Any]:
    """Hooks of one module where the mode serves alone: they keep `mode.frames`, in compiled code too."""
    wanted = mode.plan.sites == "*" or mode.plan.wants(path)

    def enter(_module: nn.Module, args: tuple, kwargs: dict[str, Any] | None = None) -> None:
        if kwargs is None:  # another thread called while the recording was being taken down
            return
        if is_compiling():
            mode.frames.append(Frame(path, hint_of(_module, args, kwargs), -1, windowed, wanted))
            return
        if mode.paused:
            return
        if elsewhere(mode):
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

    def leave(_module: nn.Module, args: tuple, output: Any) -> None:
        if is_compiling() or (not mode.paused and mode.frames and threading.get_ident() == mode.thread):
            mode.frames.pop()

    return enter, leave
