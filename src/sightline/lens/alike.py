"""Keeps attention calls that are like one before: the layers of a model differ in their numbers alone.

What was decided for the first (its rows, what keeping them costs, how scores are scaled) holds for all that are given
tensors of the same shapes in the same way.  Between two large matrix products each line of Python finds the processor's
caches full of something else, so that what need not be asked again is not.
"""

from typing import Any

import torch
from torch import Tensor

from sightline.lens.capture import Call, in_full_precision, products, whereabouts
from sightline.lens.frame import Frame
from sightline.lens.select import Plan


class Alike:
    """The calls of one recording whose likes can be kept at once: products of rows that follow each other, no mask."""

    def __init__(self, plan: Plan) -> None:
        self.serves = plan.hold and not plan.gradients and plan.heads is None and not callable(plan.queries)
        self._known: dict[tuple, tuple[dict[str, Any], int, int, int]] = {}

    def learn(self, mode: Any, frame: Frame, args: tuple, kwargs: dict[str, Any], before: int) -> None:
        """Remembers how the call just seen was kept, where others may follow it; `before`: bytes kept without it."""
        kept = mode.kept - before
        if not self.serves or not kept or len(args) < 3 or frame.group > 1:
            return
        call = mode.calls[-1]
        rows = call.rows
        given = tuple(args[0].shape) == (call.batch, call.heads, call.queries, call.width) and args[1].dim() == 4
        plain = call.weights is not None and call.mask is None and not call.undecided and call.past == 0
        if given and plain and len(args[1]) == call.batch and isinstance(rows, slice) and rows.step in (None, 1):
            fields = {**vars(call), "weights": None}
            self._known[_sign(mode, frame, args, kwargs)] = fields, rows.start, call.count, kept

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
        known = self._known.get(_sign(mode, frame, args, kwargs))
        if known is None or query.requires_grad or key.requires_grad:
            return False
        fields, start, count, cost = known
        last, place = mode.calls[-1], whereabouts(query, key)
        if not place or mode.kept + cost > mode.plan.limit or (type(last) is Call and last.frame == frame.serial):
            return False  # the last: it may be the next window of the same call
        # the lens's own arithmetic is nobody's attention: an outer recording shall not see it
        with torch._C.DisableTorchFunction(), in_full_precision(query):
            weights = products(query.narrow(2, start, count), key)
        mode.kept += cost
        call = Call.__new__(Call)
        call.__dict__ = {
            **fields, "path": frame.path, "hint": frame.hint, "frame": frame.serial, "place": place, "weights": weights,
        }  # fmt: skip
        mode.calls.append(call)
        mode.unsettled.append(call)
        return True


def _sign(mode: Any, frame: Frame, args: tuple, kwargs: dict[str, Any]) -> tuple:
    """What two calls without a mask have in common that are kept alike."""
    query, key, value = args[0], args[1], args[2]
    shapes = query.shape, key.shape, value.shape, query.dtype, key.dtype
    return *shapes, mode.cached, frame.group, args[3:], *kwargs.items()
