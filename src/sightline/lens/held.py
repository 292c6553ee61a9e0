"""Attention calls that are held while a model runs on a GPU, and looked at together when it has ended.

There a pass lasts as long as Python takes to ask for it, and between two layers each line of Python finds the caches of
the processor full of something else: it takes several times as long as in a loop.  So a plain call of fused attention
is noted with what it was given, and everything else is done for all calls at once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from sightline.lens.frame import Frame
from sightline.lens.key import unseen
from sightline.lens.parts import Part
from sightline.lens.stack import CALL

HOLDS_ALL = False  # for tests: on other devices too
# bytes of queries and keys that are held at most, of one call (with more the GPU has work meanwhile) and of all
SMALL, LIMIT = 2**25, 2**26

_stream_of: Callable[[int], int] = getattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 0)
_writers = WeakSet[type]()  # classes of models that write to what they gave an attention call


class Held:
    """The calls that one recording holds."""

    def __init__(self, mode: Any) -> None:
        self.mode = mode
        self.calls: list[tuple] = []
        self.bytes = self.stream = 0  # the number of the stream in which they were made
        self._stream: Any = None
        self.known: dict[int, Part] = {}
        self.holds = False
        self.name = mode.stack.name
        self._last: tuple[Any, Any] = None, None  # the module call looked at last: its named arguments, its frame

    def begin(self) -> None:
        """The model itself begins to run, and will be seen to end."""
        # what inference_mode makes does not tell whether it was written to since
        self.holds = type(self.mode.model) not in _writers and not torch.is_inference_mode_enabled()
        self.known = self.mode.stack.parts.known

    def end(self) -> None:
        """The model has ended."""
        self.holds = False
        self.look()
        self._last = None, None

    def look(self) -> None:
        """Looks at the calls that are held.  Raises RuntimeError where a query or key was written to since."""
        if not self.calls:
            return
        calls, self.calls, self.bytes = self.calls, [], 0
        for written, args, *_ in calls:
            same = args[0]._version == written[0] and args[1]._version == written[1]
            if not same or (len(written) > 2 and args[3]._version != written[2]):
                _writers.add(type(self.mode.model))
                raise RuntimeError(
                    f"{type(self.mode.model).__name__} writes to a query, key or mask after its attention call; record "
                    "once more: from now on the lens takes what it needs of such a model during each call"
                )
        mode = self.mode
        with unseen(), self._in_its_stream(calls[-1][1][0].get_device()), mode.alike.together():
            for _, args, kwargs, module, given, named in calls:
                frame = self.frame_of(named) or mode.stack.frame_of(module, given, named)
                self._last = named, frame
                mode.take(frame, args, kwargs)

    def frame_of(self, named: dict[str, Any]) -> Frame | None:
        """The module call with these named arguments, a dictionary of its own, if it is the one looked at last."""
        before, frame = self._last
        return frame if named is before else None

    def hold(self, args: tuple, kwargs: dict[str, Any], python: FrameType | None) -> bool:
        """Holds a call that this Python has made.  False where it has to be looked at now."""
        query, key = args[0], args[1]
        if not self.holds or not (query.is_cuda or HOLDS_ALL) or type(query) is not Tensor:
            return False
        mask = args[3] if len(args) > 3 else None
        try:
            size = query.nbytes + key.nbytes
            written = (query._version, key._version) if mask is None else (query._version, key._version, mask._version)
        except RuntimeError:  # tensors that do not tell
            return False
        if size > SMALL:
            return False
        while python is not None and python.f_code is not CALL:
            python = python.f_back
        if python is None:
            return False
        names = python.f_locals
        module = names["self"]
        part = self.known.get(id(module._forward_pre_hooks))
        if part is None or part.windowed or self.name in names:
            return False
        stream = _stream_of(query.get_device())
        if stream != self.stream or not self.calls:
            self.look()
            self.stream = stream
            self._stream = torch.cuda.current_stream(query.get_device()) if query.is_cuda else None
        self.calls.append((written, args, kwargs, module, names["args"], names["kwargs"]))
        self.bytes += size
        if self.bytes > LIMIT:
            self.look()
        return True

    @contextmanager
    def _in_its_stream(self, device: int) -> Iterator[None]:
        """Works where the GPU made what is held, and lets the present stream wait for it."""
        if _stream_of(device) == self.stream:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream(device).wait_stream(self._stream)
