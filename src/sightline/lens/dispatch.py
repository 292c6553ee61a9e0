"""Sees attention where every way of calling it ends: in torch's dispatcher, at no cost to a model's other calls.

A name imported early, a closure, a method, a script: each looks its operator up, by key, in a table of kernels.  Under
a key of its own the lens lays a kernel for each operator of attention; all others fall through, and a thread asks for
the key only while it records.

A `TorchFunctionMode` (`intercept.Interceptor`) also sees what happens to a softmax afterwards and keeps torch's fast
paths off, but takes Python's time at each torch call, hundreds in a pass.  So it is put up where it is needed: from a
softmax until its product with values, around modules that have a fast path, and for whole recordings of what the
dispatcher would not show (`shows_all`).
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from types import FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.library import Library, fallthrough_kernel
from torch.utils._device import DeviceContext

from sightline.lens.attach import follow_ends
from sightline.lens.deferred import Deferred, may_defer
from sightline.lens.key import KEY, KEY_NAME, ask, put_up, take_down
from sightline.lens.stack import CALL, READABLE
from sightline.lens.written import see_softmax

try:
    from torch._guards import CompileContext
    from torch._higher_order_ops.flex_attention import flex_attention as _flex_operator
    from torch._ops import _HIGHER_ORDER_OP_DEFAULT_FALLTHROUGH_DISPATCH_KEYS as _PASSED_BY_NEW_OPERATORS
    from torch._ops import OpOverloadPacket, _higher_order_ops, _OpNamespace
    from torch.overrides import _get_current_function_mode_stack as _mode_stack
    from torch.overrides import _len_torch_function_stack

    KNOWN_TORCH = KEY is not None
except ImportError:  # names of torch's own, there from 2.9 to 2.13: without them each recording goes by the mode
    KNOWN_TORCH = False

MODE_ALWAYS = False  # for tests and benchmarks: every recording by the mode alone

_SOFTMAX = {"softmax", "_softmax", "_safe_softmax"}
# kernels whose operands we cannot read: named so that a recording without them is never silently short
_OPAQUE = ("flash_attn", "flash_attention_", "efficient_attention", "cudnn_attention", "sageattn", "xformers_flash")
_FAST = {"_native_multi_head_attention", "_transformer_encoder_layer_fwd", "_triton_multi_head_attention"}
_HEADS = F.multi_head_attention_forward.__code__
_OF_SOFTMAX, _OF_F = F.softmax.__code__, F.__dict__
_include: Any = getattr(torch._C, "_dispatch_tls_set_dispatch_key_included", None)  # `ask`, one function less

_recording: dict[int, Any] = {}  # the interceptor of each thread that records through the dispatcher
_kernels: list[Library] = []  # kernels last as long as these
_lock = threading.Lock()
_harmless: dict[str, tuple[int, str]] = {}  # how far names of other people's operators were found to mean nothing
_reached, _known = 0, -1  # names of operators that Python has reached since it is counted, and when all were known
_laid: set[str] = set()  # those that mean attention and have their kernels


def meaning_of(name: str) -> str:
    """What an operator or function of this name is to the lens."""
    if name.startswith("scaled_dot_product_attention"):
        return "fused"
    if name in _SOFTMAX:
        return "softmax"
    if name.startswith("_scaled_dot_product"):
        return "lowered"
    return "opaque" if any(word in name for word in _OPAQUE) else "other"


@contextmanager
def watching(mode: Any) -> Iterator[None]:
    """Lets `mode` see each attention call of this thread: in the dispatcher if it is `below`, else as a mode."""
    if not mode.below:
        with mode:
            yield
        return
    _recording[mode.thread] = mode
    mode.deferred = Deferred(mode) if may_defer(mode.plan) else None
    ask(True)
    try:
        yield
        if mode.deferred is not None:
            mode.deferred.end()
    finally:
        del _recording[mode.thread]
        if mode.thread == get_ident():  # else a generator was closed elsewhere: kernels find no recording
            ask(False)
            take_down(mode)
        # what came meanwhile may have been called without being seen
        mode.opaque += [f"{name} (defined during the recording)" for name in _foreign()]
        if _compilations():  # there was none when this began
            mode.opaque.append("code compiled during the recording (record once more)")


def shows_all(model: nn.Module) -> bool:
    """Whether the dispatcher shows all that a mode would, of this model in this process and thread.

    It does not see into compiled code, nor what another mode answers in torch's place.  A recording inside another one
    leaves the key to that one.
    """
    return not (
        MODE_ALWAYS
        or not (KNOWN_TORCH and READABLE)
        or nn.Module._call_impl.__code__ is not CALL  # somebody runs modules in another way
        or get_ident() in _recording
        or _compilations()  # what was compiled may be part of any model
        or isinstance(model, torch.jit.ScriptModule)  # whose parts cannot tell where a call happened
        or (_len_torch_function_stack() and any(type(mode) is not DeviceContext for mode in _mode_stack()))
        or not _prepare()
    )


def _compilations() -> int:
    """How often `torch.compile` was called in this process."""
    frames = sys.modules.get("torch._dynamo.eval_frame")  # transformers imports it, and compiles nothing
    if frames is None:
        return 0
    try:
        asked = frames.TorchPatcher.patch.cache_info()  # each call asks for it once more
    except AttributeError:
        return 1  # not to be known in this torch
    return asked.hits + asked.misses


def _foreign() -> list[str]:
    """Operators that mean attention and are not torch's own, of those that Python has reached and we have not."""
    global _known
    reached_now = _reached
    if reached_now == _known:
        return []
    found = []
    for space, names in list(vars(torch.ops).items()):
        if type(names) is not _OpNamespace or space == "aten":
            continue
        reached = vars(names)
        sign = len(reached), next(reversed(reached))  # the newest comes last
        if _harmless.get(space) != sign:
            operators = {f"{space}::{name}" for name, one in reached.items() if isinstance(one, OpOverloadPacket)}
            meant = {name for name in operators if meaning_of(name) != "other"} - _laid
            _harmless.update({} if meant else {space: sign})
            found += sorted(meant)
    _known = -1 if found else reached_now
    return found


def _count_names() -> None:
    """Counts from now on whenever Python reaches an operator of a new name: to look through all places takes long."""
    original = _OpNamespace.__getattr__

    def __getattr__(names: Any, name: str) -> Any:
        global _reached
        found = original(names, name)
        _reached += 1
        return found

    _OpNamespace.__getattr__ = __getattr__  # type: ignore[method-assign]


def _lay(space: str, name: str) -> Library:
    """Lays kernels for the overloads of one operator; they last as long as what is given back."""
    library, packet = Library(space, "IMPL"), getattr(getattr(torch.ops, space), name)
    meaning = "opaque" if name in _FAST or space != "aten" else meaning_of(name)
    for operator in [getattr(packet, kind) for kind in packet.overloads() if kind != "Dimname"]:
        library.impl(operator, _kernel(operator, meaning), KEY_NAME)
    return library


def _prepare() -> bool:
    """Lays the kernels that are missing.  False where somebody else has taken the key."""
    with _lock:
        if not _kernels:
            rest = Library("_", "IMPL")
            try:
                rest.fallback(fallthrough_kernel, KEY_NAME)
            except RuntimeError:
                return False
            _kernels.append(rest)
            _count_names()
            _PASSED_BY_NEW_OPERATORS.append(KEY)
            for operator in list(_higher_order_ops.values()):
                operator.fallthrough(KEY)
            _flex_operator.py_impl(KEY)(_kernel(_flex_operator, "opaque"))
            names = {n[6:].partition(".")[0] for n in torch._C._dispatch_get_all_op_names() if n[:6] == "aten::"}
            wanted = [n for n in names if (n in _FAST or meaning_of(n) != "other") and "backward" not in n]
            _kernels.extend(_lay("aten", name) for name in wanted)
        for name in _foreign():
            try:
                _kernels.append(_lay(*name.split("::")))
            except RuntimeError:
                return False
            _laid.add(name)
        return True


def _kernel(operator: Any, meaning: str) -> Callable:
    run = getattr(operator, "_op", operator)  # without one more Python function between
    if meaning == "fused" and operator is torch.ops.aten.scaled_dot_product_attention.default:
        run = torch._C._nn.scaled_dot_product_attention  # reads its arguments in a third of the time

    def kernel(*args: Any, **kwargs: Any) -> Any:
        mode = _recording.get(get_ident())  # none in a worker of autograd, which inherits the key
        _include(KEY, False)
        if mode is not None:
            mode.up = False  # it cannot be, or this would not be called: backward puts keys and modes back
        try:
            if mode is None or mode.paused or _beside_the_pass(args):
                return run(*args, **kwargs)
            caller = sys._getframe(1)
            if meaning != "fused" or caller.f_globals is _OF_F:
                return _see(mode, operator, run, meaning, args, kwargs, caller)
            output = run(*args, **kwargs)
            if mode.deferred is not None:
                if not mode.deferred.defer(args, kwargs, caller):
                    mode.take(mode._frame(caller), args, kwargs, output)
            elif not mode.alike.again(mode, args, kwargs, caller):
                frame = mode._frame(caller)
                mode.take(frame, args, kwargs, output)
                mode.alike.remember(mode, frame)
            return output
        finally:
            if mode is None or not mode.up:
                _include(KEY, True)

    return kernel


def _beside_the_pass(args: tuple) -> bool:
    """Whether backward runs parts of the model again (gradient checkpointing), or code is being compiled."""
    if torch._C._current_graph_task_id() != -1:
        return True
    # what is traced has tensors of classes of its own, but for its constants
    plain = len(args) > 2 and type(args[0]) is type(args[1]) is type(args[2]) is Tensor
    return not plain and (is_compiling() or CompileContext.try_get() is not None)


def _see(
    mode: Any, operator: Any, run: Callable, meaning: str, args: tuple, kwargs: dict[str, Any], caller: FrameType
) -> Any:
    """Runs the operator and tells the interceptor; `caller` is the Python that called it."""
    if caller.f_code is _OF_SOFTMAX and caller.f_back is not None:
        caller = caller.f_back
    heads = caller.f_locals if caller.f_code is _HEADS else None
    if heads is None and caller.f_globals is _OF_F:
        return run(*args, **kwargs)  # part of another function of torch, such as gumbel_softmax
    frame = mode._frame(caller)
    before = frame.hint
    if heads is not None:
        frame.hint = before or ("self" if _same(heads["query"], heads["key"]) else "cross")
    try:
        if meaning == "fused":
            return mode._fused(run, args, kwargs, frame)
        result = run(*args, **kwargs)
        if caller.f_globals.get("__name__", "").startswith("torch.nested"):
            mode._hidden("nested (jagged) tensors", frame)
        elif meaning in ("lowered", "opaque"):
            mode._hidden(operator.__name__.partition(".")[0], frame)
        elif heads is not None:
            mode._keep_weights(frame, result, result.detach().unflatten(0, (-1, heads["num_heads"])))
        elif frame.module is not None:
            see_softmax(mode, frame, result, args, kwargs)
            if mode.softmaxes:
                put_up(mode)
                follow_ends(mode)
        return result
    finally:
        frame.hint = before


def _same(query: Tensor, key: Tensor) -> bool:
    """Whether two tensors are one; torch gives those of a single sequence an axis first, each its own."""
    return query is key or (query.shape == key.shape and query.data_ptr() == key.data_ptr())
