"""Which of two ways shows a recording its calls: torch's dispatcher, asked by key, or a mode between Python and torch.

Each thread has its own keys and its own stack of modes; both are read by torch at every call.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.utils._device import DeviceContext

# the topmost key, which belongs to nobody: no tensor carries it, a thread asks for it
KEY_NAME = "TESTING_ONLY_GenericMode"
KEY: Any = None
try:
    from torch.overrides import _len_torch_function_stack, _pop_mode, _push_mode

    KEY = torch._C._dispatch_key_parse(KEY_NAME)
except (ImportError, AttributeError, RuntimeError):  # a torch outside the tested range: each recording by the mode
    pass
FAST = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


_recording: list[tuple[int, int]] = []  # thread and model of each recording under way


@contextmanager
def recording_here(model: nn.Module) -> Iterator[None]:
    """Makes it known that this thread records this model."""
    here = get_ident(), id(model)
    _recording.append(here)
    try:
        yield
    finally:
        _recording.remove(here)


def elsewhere(mode: Any) -> bool:
    """Whether this runs in another thread than the recording; noted unless that one records the model by itself."""
    thread = get_ident()
    if thread == mode.thread:
        return False
    if (thread, id(mode.model)) not in _recording:
        mode.other_thread = True
    return True


def ask(wanted: bool) -> None:
    """From now on, kernels under the key are called in this thread, or are not."""
    torch._C._dispatch_tls_set_dispatch_key_included(KEY, wanted)


def ask_again(mode: Any) -> None:
    """Asks once more where the dispatcher serves: a block of `inference_mode` that ended has taken the key away."""
    if mode.below and not mode.up:
        ask(True)


@contextmanager
def unseen() -> Iterator[None]:
    """For the lens's own arithmetic, which is nobody's attention: no recording of this thread sees it."""
    with torch._C.DisableTorchFunction():
        if KEY is None:
            yield
            return
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(KEY)):
            yield


def has_fast_path(module: nn.Module) -> bool:
    """Whether torch may run the whole module as one kernel, which it leaves undone while a mode is up."""
    return isinstance(module, FAST) and bool(getattr(module, "batch_first", True))


def put_up(mode: Any) -> None:
    """From now on the mode itself sees this thread's calls.

    It goes to the bottom of the stack (torch's own default device stays below), so that other modes, which are taken
    off the top when their blocks end, come and go as if it were not there.
    """
    stack = [_pop_mode() for _ in range(_len_torch_function_stack())]
    if not any(other is mode for other in stack):
        stack.insert(len(stack) - (bool(stack) and isinstance(stack[-1], DeviceContext)), mode)
    for other in reversed(stack):
        _push_mode(other)
    mode.up = True
    ask(False)


def settle_down(mode: Any) -> None:
    """The dispatcher serves again, unless a softmax is under way or a module with a fast path is still running."""
    if mode.softmaxes or any(frame.module is not None and has_fast_path(frame.module) for frame in mode.frames):
        return
    if take_down(mode):  # else this runs inside the mode's own call, and the next module that ends will do it
        mode.up = False
        ask(True)


def take_down(mode: Any) -> bool:
    """Removes the mode from wherever it is among this thread's modes; False where it is not there."""
    if not _len_torch_function_stack():
        return False
    stack = [_pop_mode() for _ in range(_len_torch_function_stack())]
    for other in reversed(stack):
        if other is not mode:
            _push_mode(other)
    return any(other is mode for other in stack)
