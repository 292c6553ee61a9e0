"""Where in a model a call happens, read from Python's stack.

Each running module is a Python frame of `nn.Module._call_impl`, which holds the module and what it was given.  So where
the dispatcher shows attention calls (`lens.dispatch`), modules inside a model need no hooks: those of a ViT of twelve
layers took a sixtieth of its time, and twelve looks at the stack take a tenth of that.

What was found of a module call lies among the locals of its Python frame, under a name that no code uses.  It tells one
call of a module from the next, and goes when the call ends: nothing of the model lives longer than without a recording.
"""

from itertools import count
from types import FrameType
from typing import Any

import torch
from torch import nn

from sightline.lens.frame import ELSEWHERE, OUTSIDE, Frame, hint_of, items_of
from sightline.lens.given import Mark, cache_length
from sightline.lens.parts import Part, Parts
from sightline.lens.select import Plan

CALL = nn.Module._call_impl.__code__
# a torch that names them otherwise is recorded by hooks
READABLE = {"self", "args", "kwargs"} <= {*CALL.co_varnames, *CALL.co_cellvars}

_numbers = count()


def beside(mode: Any, python: FrameType | None) -> Frame:
    """Where a call happens while no part of the model that is known runs; notes the module that makes it, if any.

    A method of the model, or of a module of its own, makes it just as well, whatever else that runs on the way.
    """
    others = []
    while python is not None:
        code = python.f_code
        first = python.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if isinstance(first, nn.Module):
            if mode.owns(first):
                return OUTSIDE
            if code is CALL:
                others.append(type(first).__name__)
        python = python.f_back
    mode.beside += others[:1]
    return ELSEWHERE if others else OUTSIDE


class Stack:
    """Tells one recording which part of its model is running."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.serial = 0
        self.parts = Parts()
        self.name = f"sightline {next(_numbers)}"  # recordings may come and go while one module runs
        self._begun = f"{self.name} began a part"

    def modules(self) -> list[nn.Module]:
        """All parts that are known."""
        return [module for part in self.parts.known.values() if (module := part.ref()) is not None]

    def is_plain(self, module: nn.Module) -> bool:
        """Whether a running module is a part that does not attend in windows."""
        part = self.parts.known.get(id(module._forward_pre_hooks))
        return part is not None and not part.windowed

    def frame_of(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Frame:
        """The call of a part, which may have ended."""
        return self._frame(self.parts.known[id(module._forward_pre_hooks)], module, args, kwargs)

    def frame(self, mode: Any, python: FrameType | None) -> Frame:
        """The module call that runs innermost in `python` and its callers; begins a part that is called on its own."""
        innermost = python
        while python is not None:
            if python.f_code is CALL:
                names = python.f_locals
                found = names.get(self.name)
                part = None if found else self.parts.known.get(id(names["self"]._forward_pre_hooks))
                if part is not None:
                    noted = None if mode.deferred is None else mode.deferred.frame_of(names)
                    found = noted or self._frame(part, names["self"], names["args"], names["kwargs"])
                    names[self.name] = found
                if found is not None:
                    if not mode.frames:
                        self.begin(mode, python)
                    return found
            python = python.f_back
        return beside(mode, innermost)

    def _frame(self, part: Part, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Frame:
        self.serial += 1
        wanted = self.plan.sites == "*" or self.plan.wants(part.path)
        hint, items = hint_of(module, args, kwargs), items_of(args, kwargs)
        return Frame(part.path, hint, self.serial, part.windowed, wanted, module, None, items)

    def begin(self, mode: Any, python: FrameType | None) -> None:
        """Notes, once, that a part was called in place of the model: the outermost that is running.

        An encoder by `generate`, a text decoder by BLIP's `generate`, a block by hand.
        """
        outermost, path = None, ""
        while python is not None:
            if python.f_code is CALL:
                names = python.f_locals
                part = self.parts.known.get(id(names["self"]._forward_pre_hooks))
                if part is not None and part.path:
                    outermost, path = names, part.path
            python = python.f_back
        if outermost is None or self._begun in outermost:
            return
        if torch._C._current_graph_task_id() != -1:
            return  # gradient checkpointing runs parts again during backward
        outermost[self._begun] = True
        if mode.deferred is not None:
            mode.deferred.look()
        mode.cached = cache_length(outermost["kwargs"])
        mode.begin(Mark("step" if mode.cached else "part", path), outermost["args"], outermost["kwargs"])
