"""Keeps attention calls that are like one before: the layers of a model differ in their numbers alone.

What was decided for the first (its rows, what keeping them costs, how scores are scaled) holds for all that are given
tensors of the same shapes in the same way, in later recordings too.  Between two large matrix products each line of
Python finds the processor's caches full of something else, so that what need not be asked again is not: a layer that
makes the very call that it made in the pass before is kept by `Alike.again`, without finding out what it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sightline.lens.bundle import Bundle, Kept, Kind
from sightline.lens.capture import whereabouts
from sightline.lens.frame import Frame
from sightline.lens.select import Plan, Row
from sightline.lens.stack import CALL

_MOST = 4096  # kinds that are remembered
_known: dict[tuple, Kind] = {}  # of all recordings that ask for one row or for all; a kind holds no tensor


class Before(NamedTuple):
    """The first attention call of a module call, as the module made it last; holds no tensor."""

    sign: tuple  # of the call and of what the module was given, which the rest follows from
    kind: Kind
    path: str
    hint: str
    items: tuple[int, ...]


class Alike:
    """The calls of one recording whose likes can be kept at once: rows that follow each other, no mask."""

    def __init__(self, plan: Plan) -> None:
        self.serves = plan.hold and not plan.gradients and plan.heads is None and not callable(plan.queries)
        one = isinstance(plan.queries, Row | int)
        self._asked = plan.queries if one else None
        self._known: dict[tuple, Kind] = _known if self.serves and (one or plan.queries is None) else {}
        self._repeats = self._known is _known and plan.sites == "*"
        self._bundles: dict[Kind, Bundle] = {}
        self._together = False
        self._anew: tuple[int, tuple] | None = None  # module (by its hooks) and sign of the call that is looked at

    def again(self, mode: Any, args: tuple, kwargs: dict[str, Any], python: FrameType | None) -> bool:
        """Keeps a call whose like the innermost module in `python` made before, given the like of what it is given now.

        False where it has to be looked at, which has changed nothing.
        """
        self._anew = None
        while python is not None and python.f_code is not CALL:
            python = python.f_back
        if python is None or not self._repeats or len(args) < 3 or (len(args) > 3 and args[3] is not None):
            return False
        names, stack, query, key = python.f_locals, mode.stack, args[0], args[1]
        # with a key-value cache each step has other lengths than the one before
        if stack.name in names or not mode.frames or mode.traced or mode.cached:
            return False
        try:
            sign = (
                type(query), type(key), query.shape, key.shape, args[2].shape, query.dtype, key.dtype,
                key.get_device(), query.requires_grad, key.requires_grad, self._asked, args[3:], *kwargs.items(),
                *[(v.shape, v.dtype) if isinstance(v, Tensor) else None for v in names["args"]],
                *[(n, v.shape, v.dtype) for n, v in names["kwargs"].items() if isinstance(v, Tensor)],
            )  # fmt: skip
        except RuntimeError:  # a nested tensor tells no shape
            return False
        module = names["self"]
        number = id(module._forward_pre_hooks)
        before = stack.parts.before.get(number)
        if before is None or before.sign != sign or mode.kept + before.kind.cost > mode.plan.limit:
            self._anew = number, sign
            return False
        if not (place := whereabouts(query, key)):
            return False
        _, kind, path, hint, items = before
        bundle = self._bundle(kind)
        bundle.add(query, key, place)
        stack.serial += 1
        names[stack.name] = Frame(path, hint, stack.serial, False, True, module, None, items)
        mode.kept += kind.cost
        mode.calls.append(Kept(bundle, bundle.count - 1, path, hint, stack.serial))
        return True

    def remember(self, mode: Any, frame: Frame) -> None:
        """Remembers how the call was made that has just been looked at, if it was kept like others."""
        if self._anew is None:
            return
        (number, sign), self._anew = self._anew, None
        call = mode.calls[-1] if mode.calls else None
        if type(call) is not Kept or call.frame != frame.serial or frame.module is None:
            return
        if isinstance(frame.module, nn.MultiheadAttention):  # told by whether query and key are one tensor
            return
        if number == id(frame.module._forward_pre_hooks):
            mode.stack.parts.before[number] = Before(sign, call.bundle.kind, frame.path, frame.hint, frame.items)

    def learn(self, mode: Any, frame: Frame, args: tuple, kwargs: dict[str, Any], before: int) -> None:
        """Remembers how the call just seen was kept, where others may follow it; `before`: bytes kept without it."""
        kept = mode.kept - before
        if not self.serves or not kept or len(args) < 3 or frame.group > 1:
            return
        call = mode.calls[-1]
        rows = call.rows
        given = tuple(args[0].shape) == (call.batch, call.heads, call.queries, call.width) and args[1].dim() == 4
        plain = call.mask is None and not call.undecided and call.past == 0
        if given and plain and len(args[1]) == call.batch and isinstance(rows, slice) and rows.step in (None, 1):
            products = call.weights is not None
            fields = {**vars(call), "weights": None, "query": None, "key": None, "waiting": None}
            full = args[0].dtype in (torch.float32, torch.float64) and args[0].device.type == "cpu"
            direct = products and full and call.batch == 1 and args[1].shape[1] == call.heads
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[self._sign(mode, frame, args, kwargs)] = Kind(
                fields, rows.start, call.count, kept, products, direct
            )

    def keep(self, mode: Any, frame: Frame, args: tuple, kwargs: dict[str, Any]) -> bool:
        """Keeps the call if it is like one before.  False where it has to be looked at, which has changed nothing."""
        if not self._known or len(args) < 3 or frame.windowed or not frame.wanted or mode.traced:
            return False
        if (len(args) > 3 and args[3] is not None) or any(isinstance(value, Tensor) for value in kwargs.values()):
            return False
        query, key = args[0], args[1]
        # of nested tensors no shape may be asked, and a graph or a subclass needs care
        if type(query) is not Tensor or type(key) is not Tensor or query.is_nested:
            return False
        kind = self._known.get(self._sign(mode, frame, args, kwargs))
        if kind is None or query.requires_grad or key.requires_grad or mode.kept + kind.cost > mode.plan.limit:
            return False
        if mode.calls and mode.calls[-1].frame == frame.serial:
            return False  # it may be the next window of the same call
        place = () if self._together else whereabouts(query, key)
        if not (place or self._together):  # without storage of their own, as under `torch.func.vmap`
            return False
        kept = self._bundle(kind)
        if self._together:
            kept.wait(query, key)
        else:
            kept.add(query, key, place)
        mode.kept += kind.cost
        mode.calls.append(Kept(kept, kept.count - 1, frame.path, frame.hint, frame.serial))
        return True

    def _bundle(self, kind: Kind) -> Bundle:
        bundle = self._bundles.get(kind)
        if bundle is None:
            bundle = self._bundles[kind] = Bundle(kind)
        return bundle

    @contextmanager
    def together(self) -> Iterator[None]:
        """Takes products of the calls that are kept meanwhile, of each kind at once."""
        self._together = True
        try:
            yield
            for kept in self._bundles.values():
                kept.multiply()
        finally:
            self._together = False

    def _sign(self, mode: Any, frame: Frame, args: tuple, kwargs: dict[str, Any]) -> tuple:
        """What two calls without a mask have in common that are kept alike."""
        query, key, value = args[0], args[1], args[2]
        shapes = query.shape, key.shape, value.shape, query.dtype, key.dtype, key.get_device()
        return *shapes, self._asked, mode.cached, frame.group, args[3:], *kwargs.items()
