"""Attention calls that are noted while a model runs on a GPU, and looked at together when it has ended.

There a pass lasts as long as Python takes to ask for it, and between two layers each line of Python finds the caches of
the processor full of something else: it takes several times as long as in a loop.  So a plain call of fused attention
is noted with what it was given, and everything else is done for all calls at once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NamedTuple
from weakref import WeakSet

import torch
from torch import Tensor, nn

from sightline.lens.frame import Frame
from sightline.lens.key import unseen
from sightline.lens.select import Plan
from sightline.lens.stack import CALL

EVERYWHERE = False  # for tests: on other devices too
# bytes of what is kept alive for them at most, by one call (with more the GPU has work meanwhile) and by all
SMALL, LIMIT = 3 * 2**24, 3 * 2**25

_stream_of: Callable[[int], int] = getattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 0)
_writers = WeakSet[nn.Module]()  # models that wrote to what they gave an attention call


def may_defer(plan: Plan) -> bool:
    """Whether calls of such a recording may be noted: something is kept, no graph is needed, and a GPU is in use."""
    return plan.hold and not plan.gradients and (EVERYWHERE or torch.cuda.is_initialized())


class Noted(NamedTuple):
    """A call: what it was given, the state of that, and the module call that made it."""

    args: tuple
    kwargs: dict[str, Any]
    state: tuple[int, ...]
    token: object  # one for each module call
    module: nn.Module
    given: tuple  # what the module was given
    named: dict[str, Any]


class Deferred:
    """The calls of one recording that have not been looked at yet."""

    def __init__(self, mode: Any) -> None:
        self.mode = mode
        self.calls: list[Noted] = []
        self.active = False  # does the model itself run?
        self._bytes = 0
        self._where = (-1, 0)  # device and number of the stream in which the calls were made
        self._stream: Any = None
        self._name = f"{mode.stack.name} noted"
        self._last: tuple[Any, Any] = None, None  # the module call looked at last: its token, its frame

    def begin(self) -> None:
        """The model itself begins to run."""
        # what inference_mode makes does not tell whether it was written to since
        self.active = not torch.is_inference_mode_enabled()
        with suppress(TypeError):  # a model that compares by its values has no hash
            self.active = self.active and self.mode.model not in _writers

    def end(self) -> None:
        """The model has ended."""
        self.active = False
        self.look()
        self._last = None, None

    def look(self) -> None:
        """Looks at the calls; those whose query, key or mask was written to since are lost, and told in a warning."""
        if not self.calls:
            return
        calls, self.calls, self._bytes = self.calls, [], 0
        mode = self.mode
        with unseen(), self._in_its_stream(), mode.alike.together():
            for call in calls:
                frame = self._frame(call.token) or mode.stack.frame_of(call.module, call.given, call.named)
                self._last = call.token, frame
                if _state(*call.args) == call.state:
                    mode.take(frame, call.args, call.kwargs)
                    continue
                mode.lost.append(f"a call in {frame.path}, whose query, key or mask was written to after it")
                with suppress(TypeError):
                    _writers.add(mode.model)

    def frame_of(self, names: Any) -> Frame | None:
        """The module call that runs with these locals, if it is the one looked at last."""
        return self._frame(names.get(self._name))

    def _frame(self, token: object) -> Frame | None:
        before, frame = self._last
        return frame if token is not None and token is before else None

    def defer(self, args: tuple, kwargs: dict[str, Any], python: FrameType | None) -> bool:
        """Notes a call that this Python has made.  False where it has to be looked at now."""
        query = args[0]
        if not self.active or not (query.is_cuda or EVERYWHERE) or type(query) is not Tensor:
            return False
        try:
            size = sum([one.nbytes for one in args[:4] if one is not None])
            state = _state(*args)
        except RuntimeError:  # tensors that do not tell
            return False
        while python is not None and python.f_code is not CALL:
            python = python.f_back
        if size > SMALL or python is None:
            return False
        names = python.f_locals
        module = names["self"]
        if self.mode.stack.name in names or not self.mode.stack.is_plain(module):
            return False
        device = query.get_device()
        where = device, _stream_of(device)
        if where != self._where or not self.calls:
            self.look()
            self._where, self._stream = where, torch.cuda.current_stream(device) if query.is_cuda else None
        token = names.get(self._name)
        if token is None:
            token = names[self._name] = object()
        self.calls.append(Noted(args, kwargs, state, token, module, names["args"], names["kwargs"]))
        self._bytes += size
        if self._bytes > LIMIT:
            self.look()
        return True

    @contextmanager
    def _in_its_stream(self) -> Iterator[None]:
        """Works where the GPU made what is looked at, and lets the present stream wait for it."""
        device, number = self._where
        if _stream_of(device) == number:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream(device).wait_stream(self._stream)


def _state(query: Tensor, key: Tensor, _value: Tensor, mask: Tensor | None = None, *_: Any) -> tuple[int, ...]:
    """What shows that query, key or mask were written to, or their memory given back; not what `.data` was used for."""
    found = query._version, key._version, query.data_ptr(), key.data_ptr()
    return found if mask is None else (*found, mask._version, mask.data_ptr())
