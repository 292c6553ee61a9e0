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
from sightline.lens.frame import Frame, hint_of
from sightline.lens.given import Mark, cache_length
from sightline.lens.hooks import Hook, Hooks
from sightline.lens.key import FAST, ask_again, has_fast_path, put_up, settle_down

_LEAVES = set[type]()  # classes of torch's own that were met without parts: a look here takes a third of `_known`
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

    One walk does it all, in the order of `named_modules`: that goes through a generator for each level, which took
    longer than putting the hooks in.  Gives back the encoders too, whose padding needs care.
    """
    staying, resting, encoders, stack = list[Hook](), list[Hook](), list[nn.TransformerEncoder](), mode.stack
    notes, follows = _watch_pixels(mode), _follow(model, mode)
    seen = set[int]()
    waiting: list[tuple[str, Any, int, bool, bool]] = [("", model, 0, False, False)]
    while waiting:
        path, module, level, windowed, later = waiting.pop()
        if module is None or id(module) in seen:
            continue
        seen.add(id(module))
        torchs_own, feed_forward, fast, generates, sized = _known(type(module))  # type: ignore[arg-type]
        children = module._modules
        leaf = torchs_own and not children
        if leaf:
            _LEAVES.add(type(module))
        if leaf and later:
            continue
        if leaf and level in (1, 2):
            resting.append((module, notes, None))
        elif level in (1, 2) or not (leaf or feed_forward):
            if not windowed and (sized or "window_size" in module.__dict__):
                windowed = isinstance(module.window_size, _SIZE)
            fast = fast and has_fast_path(module)
            name = path.removeprefix("_orig_mod").removeprefix(".")
            if stack is None:
                staying.append((module, *_follow_module(name, windowed, level in (1, 2), mode)))
            else:
                stack.add(name, windowed, module)
                if (level <= 2 and not later) or fast or generates:
                    (resting if level == 2 and not fast else staying).append((module, *follows))
            if isinstance(module, nn.TransformerEncoder):
                encoders.append(module)
        else:
            windowed = False
        if children:
            prefix = f"{path}." if path else ""
            numbered = stack is not None and level == 1 and "0" in children
            first = type(children["0"]) if numbered else None
            for child, part in reversed(children.items()):
                if level < 2 or type(part) not in _LEAVES or part._modules:
                    later = numbered and child != "0" and child.isdigit() and type(part) is first
                    waiting.append((prefix + child, part, level + 1, windowed, later))
    return Hooks(staying, resting), encoders


@lru_cache(maxsize=1024)
def _known(kind: type[nn.Module]) -> tuple[bool, bool, bool, bool, bool]:
    """Of a class of modules: is it torch's own, feed-forward, perhaps fast; does it `generate`, name its windows?"""
    return (
        kind.__module__.startswith("torch.nn.modules"),
        bool(_FEED_FORWARD.search(kind.__name__)),
        issubclass(kind, FAST),
        hasattr(kind, "generate"),
        hasattr(kind, "window_size"),
    )


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
        if threading.get_ident() != mode.thread:
            mode.other_thread = True
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

    def leave(_module: nn.Module, args: tuple, output: Any) -> None:
        if is_compiling() or (not mode.paused and mode.frames and threading.get_ident() == mode.thread):
            mode.frames.pop()

    return enter, leave
