"""Lets the interceptor know which part of the model is running: by hooks, where Python's stack does not tell."""

import re
import sys
import threading
import weakref
from typing import Any

import torch
from torch import nn
from torch.compiler import is_compiling

from sightline.lens.compiled import take_compiled
from sightline.lens.frame import Frame, hint_of, setting_of
from sightline.lens.given import Mark, cache_length
from sightline.lens.hooks import Hook, Hooks
from sightline.lens.key import ask_again, elsewhere, has_fast_path, put_up, settle_down

_LEAVES = set[type]()  # classes of torch's own that were met without parts
_SIZE = (int, tuple, list)
# half of the modules of a ViT that are not torch's own
_FEED_FORWARD = re.compile(r"(MLP|Mlp|FeedForward|FFN|Activation)$")


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
    found, signs = _modules(model)
    parts = _parts_of(model, found, signs)
    modules, staying, resting, stack = [*found.values()], list[Hook](), list[Hook](), mode.stack
    notes = _watch_pixels(mode)
    if stack is None:
        resting += [(modules[number], notes, None) for number, _ in parts.leaves]
        for number, path, windowed, level, *_ in parts.others:
            staying.append((modules[number], *_follow_module(path, windowed, level in (1, 2), mode)))
    else:
        resting += [(modules[number], notes, None) for number, later in parts.leaves if not later]
        follows = _follow(model, mode)
        for number, path, windowed, level, followed, fast in parts.others:
            module = modules[number]
            stack.add(path, windowed, module)
            if followed:
                (resting if level == 2 and not fast else staying).append((module, *follows))
    encoders: list[Any] = [modules[number] for number in parts.encoders]
    return Hooks(staying, resting), encoders


class _Parts:
    """What a model consists of, by number in the order of `named_modules`; holds no module, so that none lives on."""

    def __init__(self, signs: list[Any]) -> None:
        self.signs = signs  # what they were told by
        self.leaves: list[tuple[int, bool]] = []  # of the first two levels; in a later one of numbered parts alike?
        # number, path, windowed, level, has hooks below the dispatcher, may run as one kernel
        self.others: list[tuple[int, str, bool, int, bool, bool]] = []
        self.encoders: list[int] = []


_found = weakref.WeakKeyDictionary[nn.Module, _Parts]()


def _modules(model: nn.Module) -> tuple[dict[int, nn.Module], list[Any]]:
    """The modules of a model by identity, in the order of `named_modules`, which takes ten times as long.

    Below the first two levels those are left out that torch defines and that have no parts: two of three.  Beside them
    all that the parts are told by: who they are and of what class, their names, windows and the order of their axes.
    """
    found, signs = dict[int, nn.Module](), list[Any]()
    waiting = [("", model, 0)]
    while waiting:
        name, module, level = waiting.pop()
        own = module.__dict__
        signs += id(module), type(module), name, type(own.get("window_size")), own.get("batch_first")
        if id(module) in found:
            continue
        found[id(module)] = module
        if module._modules:
            for child, part in reversed(module._modules.items()):
                if part is not None and (level < 2 or type(part) not in _LEAVES or part._modules):
                    waiting.append((child, part, level + 1))
    return found, signs


def _parts_of(model: nn.Module, found: dict[int, nn.Module], signs: list[Any]) -> _Parts:
    """The parts of a model, as found before if nothing that tells them has changed."""
    try:
        known = _found.get(model)
        if known is None or known.signs != signs:
            known = _found[model] = _walked(model, found, signs)
    except TypeError:  # a model that compares by its values has no hash
        return _walked(model, found, signs)
    return known


def _walked(model: nn.Module, found: dict[int, nn.Module], signs: list[Any]) -> _Parts:
    parts, numbers, seen = _Parts(signs), {one: number for number, one in enumerate(found)}, set[int]()
    waiting: list[tuple[str, Any, int, bool, bool]] = [("", model, 0, False, False)]
    while waiting:
        path, module, level, windowed, later = waiting.pop()
        if module is None or id(module) in seen:
            continue
        seen.add(id(module))
        number = numbers.get(id(module))
        if number is None:
            continue
        kind, children = type(module), module._modules
        leaf = kind.__module__.startswith("torch.nn.modules") and not children
        if leaf and kind is not nn.Module:
            _LEAVES.add(kind)
        if leaf and level in (1, 2):
            parts.leaves.append((number, later))
        elif level in (1, 2) or not (leaf or _FEED_FORWARD.search(kind.__name__)):
            windowed = windowed or isinstance(setting_of(module, "window_size"), _SIZE)
            fast = has_fast_path(module)
            followed = (level <= 2 and not later) or fast or hasattr(kind, "generate")
            name = path.removeprefix("_orig_mod").removeprefix(".")
            parts.others.append((number, name, windowed, level, followed, fast))
            if isinstance(module, nn.TransformerEncoder):
                parts.encoders.append(number)
        else:
            windowed = False
        prefix = f"{path}." if path else ""
        numbered = level == 1 and "0" in children
        first = type(children["0"]) if numbered else None
        for child, part in reversed(children.items()):
            later = numbered and child != "0" and child.isdigit() and type(part) is first
            waiting.append((prefix + child, part, level + 1, windowed, later))
    return parts


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
