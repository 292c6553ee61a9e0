"""Sees every attention call of a running model, whichever way it is called.

`F.scaled_dot_product_attention` in each of its spellings, `F.multi_head_attention_forward` (with the fused call inside
it), and, for models that compute attention by hand, a softmax over the last axis whose result multiplies values.
Kernels that hide their operands are named instead.  The model's own call runs unchanged; the rows asked for are
computed beside it.  Python's stack (`lens.stack`) or hooks (`lens.attach`) say where in the model a call happened.

Calls are shown by torch's dispatcher (`lens.dispatch`) or, where that is not enough, by the `TorchFunctionMode` below,
which stands between Python and torch and is handed each call of a torch function, whatever it is.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable
from types import FrameType, FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.overrides import TorchFunctionMode

from sightline.lens.alike import Alike
from sightline.lens.bundle import Kept
from sightline.lens.capture import (
    Call,
    Copies,
    as_four,
    follows,
    mask_rows,
    operands_of,
    rows_of,
    same_lead,
    settle,
    unpack_group,
    whereabouts,
    without_copies,
)
from sightline.lens.compiled import see_compiled, take_compiled
from sightline.lens.deferred import Deferred
from sightline.lens.dispatch import meaning_of
from sightline.lens.frame import ELSEWHERE, Frame
from sightline.lens.given import Caches, Mark
from sightline.lens.hooks import Hooks
from sightline.lens.key import ask, unseen
from sightline.lens.products import in_full_precision, products
from sightline.lens.select import Plan, Row, SiteInfo, resolve
from sightline.lens.stack import Stack, beside
from sightline.lens.written import follow, forget_softmax, see_softmax, tell_unfollowed

_MEANING: dict[Any, str] = {}  # what each torch function means to the lens, found once


def _meaning(func: Any) -> str:
    if func is F.scaled_dot_product_attention:
        return "fused"
    return "heads" if func is F.multi_head_attention_forward else meaning_of(getattr(func, "__name__", ""))


class Interceptor(TorchFunctionMode):
    """Collects a `Call` for each attention call made while it is active, in this thread."""

    def __init__(self, plan: Plan, model: nn.Module, *, below: bool = False) -> None:
        super().__init__()
        self.plan = plan
        self.below = below  # the dispatcher shows the calls, and
        self.up = False  # this mode only where that is not enough
        self.stack = Stack(plan) if below else None  # tells where a call happens; else hooks do
        self.ends: Hooks | None = None  # where the mode may come down
        self.frames: list[Frame] = []
        self.calls: list[Call | Kept | Mark] = []  # a mark begins a pass, a step or a part called on its own
        self.mark: Mark | None = None
        self.caches = Caches()
        self.cached = 0  # tokens in the key-value cache that this pass was given
        self.skipped: list[str] = []  # paths of calls that `sites` left out
        self.beside: list[str] = []  # classes of modules that made calls and are no part of the model
        self.model = model
        self._own: set[int] | None = None  # all modules of the model, found when one is asked for
        self.opaque: list[str] = []  # what hides its operands
        self.lost: list[str] = []  # calls that were noted, and could not be read when they were looked at
        self.unsettled: list[Call] = []  # whose weights are products still
        self.alike = Alike(plan)
        self.deferred: Deferred | None = None  # calls that are looked at later
        self.kept = self.serial = 0  # bytes, and module calls so far
        self.lowered = self.paused = False  # did compiled code call a backend kernel directly?
        self.thread = threading.get_ident()
        self.traced: list[tuple] = []  # what compiled code saw
        self.traced_row = plan.queries.position if isinstance(plan.queries, Row) else None
        self.softmaxes: deque[tuple[Tensor, Tensor, str]] = deque()  # (as it is now, output, module path)
        self._rows_before: tuple[tuple[int, int], slice | list[int]] | None = None  # the layers of a model ask alike
        self.masks = Copies()
        self.other_thread = False

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if is_compiling():
            return see_compiled(self, func, args, kwargs or {})
        if self.up:
            ask(False)  # a block of `inference_mode` that ended has put the key back
        meaning = _MEANING.get(func)
        if self.paused or (meaning == "other" and not self.softmaxes):  # nearly every call of a model
            return func(*args, **kwargs) if kwargs else func(*args)
        meaning = meaning or _MEANING.setdefault(func, _meaning(func))
        kwargs = kwargs or {}
        if meaning == "fused":
            return self._fused(func, args, kwargs)
        if meaning == "heads":
            return self._multi_head(args, kwargs)
        result = func(*args, **kwargs)
        if meaning == "softmax":
            see_softmax(self, self._frame(), result, args, kwargs)
        elif meaning == "lowered":
            self.lowered = True
        elif meaning == "opaque":
            self._hidden(func.__name__, self._frame())
        else:
            follow(self, getattr(func, "__name__", ""), result, (*args, *kwargs.values()))
        return result

    def begin(self, mark: Mark, args: tuple, kwargs: dict[str, Any]) -> None:
        """A pass of the model, a step of it or a part of it begins with these arguments."""
        self.settle()
        mark.note(args, kwargs)
        self.mark = mark
        self.calls.append(mark)

    def owns(self, module: nn.Module) -> bool:
        """Whether a module is the model or part of it."""
        if self._own is None:
            self._own = {id(one) for one in self.model.modules()}
        return id(module) in self._own

    def remove(self) -> None:
        """Leaves caches and modules as they were; copies of the model made meanwhile have dead hooks."""
        self.paused = True
        self.caches.remove()
        if self.ends is not None:
            self.ends.remove()

    def settle(self) -> None:
        """Makes weights of the rows seen so far: done together, when the model does not run.

        Between two large matrix products every line here finds the processor's caches full of something else: product,
        scale and softmax of one row took 170 microseconds there and 28 one after another; only the product must be.
        """
        if self.unsettled:
            with unseen():
                settle(self.unsettled)
            self.unsettled.clear()

    def _hidden(self, what: str, frame: Frame) -> None:
        """Notes what cannot be recorded, and where."""
        if frame is not ELSEWHERE:
            self.opaque.append(f"{what} in {frame.path}" if frame.path else what)

    def _leave_out(self, frame: Frame) -> None:
        if frame is not ELSEWHERE:
            self.skipped.append(frame.path)

    def _frame(self, caller: FrameType | None = None) -> Frame:
        """The module call that is running."""
        if self.deferred is not None:
            self.deferred.look()  # calls come in their order
        if self.stack is not None:
            return self.stack.frame(self, caller or sys._getframe(1))
        return self.frames[-1].settled() if self.frames else beside(self, sys._getframe(1))

    # -- scaled_dot_product_attention ---------------------------------------------------------------------------------

    def _fused(self, func: Callable, args: tuple, kwargs: dict[str, Any], frame: Frame | None = None) -> Any:
        output = func(*args, **kwargs)
        self.take(frame or self._frame(), args, kwargs, output)
        return output

    def take(self, frame: Frame, args: tuple, kwargs: dict[str, Any], output: Tensor | None = None) -> None:
        """Keeps what is asked for of a call that has been made."""
        if self.alike.keep(self, frame, args, kwargs):
            return
        query, key, value, mask, dropout, causal, scale = operands_of(*args, **kwargs)
        if query.is_nested:
            self._hidden("nested (jagged) tensors", frame)
            return
        if not frame.wanted:
            self._leave_out(frame)
            return
        if frame.group > 1:
            query, mask = unpack_group(query, key, mask, frame.heads, frame.group)
        before = self.kept
        try:
            self._keep(frame, query, key, value, output, mask, causal, dropout, scale)
            self.alike.learn(self, frame, args, kwargs, before)
        except RuntimeError as error:
            shapes = [tuple(t.shape) for t in (query, key, value)] + ([] if mask is None else [tuple(mask.shape)])
            raise RuntimeError(
                f"sightline could not read the attention call in {frame.path or 'the model'} (query, key, value, "
                f"mask: {shapes}); leave it out with sites=['*', '!{frame.path}'], and please report the shapes"
            ) from error

    def _keep(
        self, frame: Frame, query: Tensor, key: Tensor, value: Tensor, output: Tensor | None, mask: Tensor | None,
        causal: bool, dropout: float, scale: float | None,
    ) -> None:  # fmt: skip
        """Adds one call that has a query and a key: keeps the smaller of its rows and its operands."""
        if self.traced:
            take_compiled(self)
        if not (place := whereabouts(query, key)):
            self._hidden("torch.func (vmap, grad)", frame)
            return
        if not query.dim() == key.dim() == value.dim() == 4:
            query, key, value = same_lead(query, key, value)
            q, k = as_four(query), as_four(key)
        elif query.shape[0] == key.shape[0] == value.shape[0]:
            q, k = query, key
        else:
            q, k, value = same_lead(query, key, value)
        batch, heads, queries, width = q.shape
        keys = k.shape[2]
        past = self._past(frame, place)
        rows = self._rows(frame, batch, heads, queries, keys, past)
        kept_heads = None if self.plan.heads is None else self.plan.head_list(heads)
        call = Call(
            "sdpa", frame.path, frame.hint, frame.serial, place, batch, heads, queries, keys, rows, past,
            causal=causal, scale=width**-0.5 if scale is None else float(scale), width=width, dropout=dropout,
            kept_heads=kept_heads, cached=self.cached, undecided=frame.windowed,
        )  # fmt: skip
        if self.plan.hold:
            mask = None if mask is None else mask_rows(mask.detach(), tuple(query.shape[:-2]), rows)
            self._hold(call, _plain(q), _plain(k), value, output, mask)
        elif mask is not None:
            call.mask_bytes = _bytes(without_copies(mask))
        self.calls.append(call)

    def _hold(
        self, call: Call, q: Tensor, k: Tensor, v: Tensor | None, output: Tensor | None, mask: Tensor | None
    ) -> None:
        q, key_heads = rows_of(q, call.rows), k.shape[1]
        if call.kept_heads is not None:
            group = call.heads // key_heads
            q, k = q[:, call.kept_heads], k[:, [h // group for h in call.kept_heads]]
            key_heads = k.shape[1]
            if mask is not None and mask.shape[1] != 1:
                mask = mask[:, call.kept_heads]
        batch, count, row_count, width = q.shape
        mask = None if mask is None else without_copies(mask)
        operands = (count * row_count + key_heads * call.keys) * width * q.element_size()
        operands += 0 if mask is None else _bytes(mask) // batch + 1
        weights = count * row_count * call.keys * 4
        self.kept += batch * min(weights, operands)
        if self.kept > self.plan.limit:
            raise ValueError(self._refusal(call))
        if weights <= operands:
            # the lens's own arithmetic is nobody's attention: an outer recording shall not see it
            with torch._C.DisableTorchFunction(), in_full_precision(q):
                call.weights = products(q, k)
            self.unsettled.append(call)
        else:
            # copies: a KV cache is written to in place, and a view would keep the whole projection alive;
            # head by head, since a product would copy them so each time
            layout = torch.contiguous_format
            call.query, call.key = q.clone(memory_format=layout), k.clone(memory_format=layout)
        if mask is not None:
            call.mask = self.masks.of(mask)
        if self.plan.gradients and output is not None and v is not None:
            call.output, call.value = output, as_four(v).detach()
            self.kept += _bytes(output) + _bytes(v)
            if self.kept > self.plan.limit:
                raise ValueError(self._refusal(call))

    def _refusal(self, call: Call) -> str:
        return self.plan.refusal(self.kept, [c for c in self.calls if not isinstance(c, Mark)] + [call])

    def _rows(self, frame: Frame, batch: int, heads: int, queries: int, keys: int, past: int) -> slice | list[int]:
        if frame.windowed:  # rows are chosen when the windows have been put back in place
            return slice(0, queries)
        choice, offset = self.plan.queries, past or self.cached
        if callable(choice):
            return resolve(choice(SiteInfo(frame.path, batch, heads, queries, keys)), queries, offset)
        if self._rows_before is None or self._rows_before[0] != (queries, offset):
            self._rows_before = (queries, offset), resolve(choice, queries, offset)
        return self._rows_before[1]

    def _past(self, frame: Frame, place: tuple[int, ...]) -> int:
        """Tokens in the windows that this module call has already seen.

        Windows are cut from one tensor, each beginning where the one before ended; two attentions that share a query,
        or take halves of its width, are not windows.  Nor are items of a batch one by one, which lie in memory alike.
        """
        last = self.calls[-1] if self.calls else None
        if last is None or isinstance(last, Mark) or not 0 <= frame.serial == last.frame or not last.place:
            return 0
        joined = follows(place, last.place) and frame.items[1:] != (last.queries,)
        return last.past + last.queries if joined else 0

    # -- nn.MultiheadAttention ----------------------------------------------------------------------------------------

    def _multi_head(self, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Runs torch's own code with two of its names bound to ours, so that its result is its own to the last bit."""
        original = F.multi_head_attention_forward
        query, key = args[0], args[1] if len(args) > 1 else kwargs["key"]
        heads = args[4] if len(args) > 4 else kwargs["num_heads"]
        frame = self._frame()
        before, frame.hint = frame.hint, frame.hint or ("self" if query is key else "cross")

        def fused(*a: Any, **k: Any) -> Tensor:
            return self._fused(F.scaled_dot_product_attention, a, k)

        def softmax(scores: Tensor, dim: int) -> Tensor:
            weights = F.softmax(scores, dim=dim)
            self._keep_weights(frame, weights, weights.detach().unflatten(0, (-1, heads)))
            return weights

        names = {**original.__globals__, "scaled_dot_product_attention": fused, "softmax": softmax}
        # another mode on the stack (torch.device) would be handed the original function
        names["has_torch_function"] = lambda _: False
        twin = FunctionType(original.__code__, names, "twin", original.__defaults__, original.__closure__)
        twin.__kwdefaults__ = original.__kwdefaults__
        try:
            return twin(*args, **kwargs)
        finally:
            frame.hint = before

    def finish(self) -> None:
        """Takes in what is still under way when the recording ends."""
        take_compiled(self)
        if any(call.mask is not None or call.undecided for call in self.unsettled):
            self.settle()
        for call in self.unsettled:
            call.waiting = self.unsettled  # a softmax is soon made when somebody reads
        while self.softmaxes:
            tell_unfollowed(self, self.softmaxes.popleft())
        self.masks = Copies()

    def _keep_weights(self, frame: Frame, graph: Tensor, weights: Tensor, source: str = "softmax") -> None:
        """Adds a call whose whole matrix exists already: keeps the rows asked for."""
        if not frame.wanted:
            self._leave_out(frame)
            return
        take_compiled(self)
        batch, heads, queries, keys = weights.shape
        rows = self._rows(frame, batch, heads, queries, keys, 0)
        kept_heads = self.plan.head_list(heads)
        call = Call(
            source, frame.path, frame.hint, frame.serial, (), batch, heads, queries, keys, rows,
            kept_heads=kept_heads, cached=self.cached, undecided=frame.windowed,
        )  # fmt: skip
        if self.plan.hold:
            weights = weights if kept_heads is None else weights[:, kept_heads]
            call.weights = weights[:, :, rows].clone()
            self.kept += call.nbytes()
            if self.kept > self.plan.limit:
                raise ValueError(self._refusal(call))
            if self.plan.gradients:
                call.output = graph
        self.calls.append(call)

    def observed(self, weights: Tensor, kind: str, name: str) -> None:
        """Listener for `sightline.attention.observe`: a mechanism that is not dot-product attention reports itself."""
        frame = self._frame()
        path = f"{frame.path}.{name}".strip(".") if name else frame.path
        forget_softmax(self, frame)
        if frame is ELSEWHERE:
            return
        frame = Frame(path, kind, frame.serial, False, self.plan.wants(path))
        self._keep_weights(frame, weights, weights.detach(), "observe")


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach() if tensor.requires_grad else tensor


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
