"""`record` and `survey`: run a model and see its attention."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sightline.attention import observe
from sightline.lens.attach import attach
from sightline.lens.compiled import take_compiled
from sightline.lens.dispatch import shows_all, watching
from sightline.lens.given import Mark, cache_length, cache_of, evaluating
from sightline.lens.hooks import Hooks
from sightline.lens.intercept import Interceptor
from sightline.lens.key import ask_again, elsewhere, recording_here, settle_down, unseen
from sightline.lens.recording import Recording
from sightline.lens.select import Choice, Plan, plan_of
from sightline.lens.survey import Survey


def record(
    model: nn.Module,
    *,
    queries: Choice = None,
    sites: str | Sequence[str] = "*",
    heads: Sequence[int] | int | None = None,
    gradients: bool = False,
    limit: int = 2**30,
    layout: Any = None,
) -> AbstractContextManager[Recording]:
    """Sees the attention of `model` while the block runs; the model's own kernels and output stay as they are.

    Each `with` begins a recording of its own, so that one `record(model)` may serve several blocks.

    Args:
        model: any `nn.Module`, compiled or not; call it (or its `generate`, or a part of it) inside the block.
        queries: rows to keep at each site: `sightline.CLS`, `sightline.LAST`, an index, indices, a slice, a function
            of `SiteInfo`, or None for all.  All rows of a large site are kept as query and key, O(tokens x width).
        sites: glob or globs on module paths; "!glob" leaves out.
        heads: which heads to keep; None for all.
        gradients: also keep what gradient-weighted maps need (run the model with gradients on).
        limit: most bytes to keep; a choice that needs more is refused while the model runs.
        layout: a `sightline.lens.Layout` where tokens cannot be placed on the image by inspection.

    Returns:
        What gives, at each `with`, a `Recording`, filled when the block ends: a sequence of sites.

    Raises:
        ValueError: bad argument, `gradients` under `torch.inference_mode`, or more than `limit` bytes.
        RuntimeError: no attention was seen; the message says why and what to try.
    """
    if not isinstance(model, nn.Module):
        scripted = isinstance(model, torch.jit.ScriptFunction)
        raise TypeError(
            f"record needs an nn.Module, got {type(model).__name__}"
            + (": TorchScript hides its calls; record the Python model it was made from" if scripted else "")
        )
    plan = plan_of(queries, sites, heads, gradients, limit)
    return _Recorder(lambda: contextmanager(_watch)(model, plan, Recording(model, plan, layout=layout)))


class _Recorder(AbstractContextManager):
    """Begins a recording at each `with`; threads that share one do not end each other's.

    Within a thread blocks end in the opposite order of their beginnings: tasks of asyncio need a `record` each.
    """

    def __init__(self, begin: Callable[[], AbstractContextManager[Recording]]) -> None:
        self._begin = begin
        self._open: list[tuple[int, AbstractContextManager[Recording]]] = []  # each with the thread that began it

    def __enter__(self) -> Recording:
        begun = self._begin()
        recording = begun.__enter__()
        self._open.append((threading.get_ident(), begun))
        return recording

    def __exit__(self, *error: Any) -> bool | None:
        own = [number for number, (thread, _) in enumerate(self._open) if thread == threading.get_ident()]
        _, begun = self._open.pop(own[-1] if own else -1)  # else a generator is closed in another thread
        return begun.__exit__(*error)


def _watch(model: nn.Module, plan: Plan, recording: Recording) -> Iterator[Recording]:
    mode = Interceptor(plan, model, below=shows_all(model))
    handles: list[Any] = [mode]
    try:
        hooks, encoders = attach(model, mode)
        handles += [hooks, *_follow_root(model, mode, hooks), *_keep_fast_path(encoders, mode)]
        with recording_here(model), observe.listen(mode.observed), watching(mode):
            yield recording
    except Exception as error:
        refusals = sys.modules.get("torch._dynamo.exc")  # its import takes seconds: nobody compiled where it is missing
        if refusals is None or not isinstance(error, refusals.Unsupported):
            raise
        raise RuntimeError(
            "torch.compile could not trace this model while it is recorded (torch's own message is above); record "
            "the plain model instead (model._orig_mod, or before compiling), or compile without fullgraph=True"
        ) from error
    finally:
        for handle in reversed(handles):
            handle.remove()
    recording.fill(mode)


def survey(model: nn.Module, *inputs: Any, **named: Any) -> Survey:
    """Runs `model(*inputs, **named)` once, keeps nothing, and tells the sites, their shapes and what keeping costs.

    The model runs in evaluation mode and without gradients, and is left in the mode it was in.
    """
    recording = Recording(model, Plan(hold=False))
    with evaluating(model), torch.no_grad(), contextmanager(_watch)(model, recording.plan, recording):
        model(*inputs, **named)
    recording.forget()
    return Survey(recording)


def _follow_root(model: nn.Module, mode: Interceptor, hooks: Hooks) -> list[Any]:
    """Notes each pass of the model itself, its inputs, and calls from threads that the lens cannot see into."""

    def enter(_module: nn.Module, args: tuple, kwargs: dict[str, Any] | None = None) -> None:
        if kwargs is None:  # another thread called while the recording was being taken down
            return
        if torch.compiler.is_compiling() or mode.paused:
            return
        if elsewhere(mode):
            return
        if torch._C._current_graph_task_id() != -1:
            return  # gradient checkpointing runs parts again during backward
        if mode.plan.gradients and torch.is_inference_mode_enabled():
            raise ValueError(
                "record(..., gradients=True) needs torch.inference_mode to be off: nothing is differentiated under it"
            )
        take_compiled(mode)
        if mode.deferred is not None:
            mode.deferred.look()  # at what an interrupted pass has left
        mode.cached = cache_length(kwargs)
        mode.frames.clear()
        mode.softmaxes.clear()
        if mode.up:  # an earlier pass ended in an exception
            settle_down(mode)
        ask_again(mode)
        mode.caches.watch(cache_of(kwargs))
        mode.begin(Mark("step" if mode.cached else "pass"), args, kwargs)
        if mode.below and mode.mark is not None and mode.mark.pixels is not None:
            hooks.rest()  # nothing is left to be told by the model's first levels
        if mode.deferred is not None:
            mode.deferred.begin()

    def leave(_module: nn.Module, args: tuple, output: Any) -> None:
        if mode.below and not mode.paused and threading.get_ident() == mode.thread:
            hooks.resume()
            if torch._C._current_graph_task_id() == -1:
                mode.frames.clear()  # of a pass that failed on its way
                if mode.up:
                    settle_down(mode)
            if mode.deferred is not None:
                mode.deferred.end()

    root = Hooks([(model, enter, leave)])
    root.surround()
    handles: list[Any] = [root]
    if model._compiled_call_impl is not None:
        handles.append(_BeforeCompiled(model, enter))
    return handles


class _BeforeCompiled:
    """Runs `enter` before a model that was compiled in place (`model.compile()`), whose own hooks are compiled too."""

    def __init__(self, model: nn.Module, enter: Any) -> None:
        self.model = model
        self.compiled: Any = model._compiled_call_impl

        def call(*args: Any, **kwargs: Any) -> Any:
            enter(model, args, kwargs)
            return self.compiled(*args, **kwargs)

        model._compiled_call_impl = call

    def remove(self) -> None:
        self.model._compiled_call_impl = self.compiled


def _keep_fast_path(encoders: list[nn.TransformerEncoder], mode: Interceptor) -> list[Any]:
    """Keeps `nn.TransformerEncoder`'s answer at padded positions.

    With a padding mask, outside training, torch packs the batch and answers zeros where padding was, or what the last
    norm makes of them.  Watching turns that path off, and the plain path answers something else there.  Whether torch
    would have packed is its own decision: so the encoder is run once more, without anybody's hooks.
    """

    def leave(module: Any, args: tuple, kwargs: dict[str, Any], output: Tensor | None = None) -> Tensor | None:
        if output is None:
            return None
        padding = kwargs.get("src_key_padding_mask", args[2] if len(args) > 2 else None)
        if mode.paused or padding is None or module.training or torch.is_grad_enabled() or not module.use_nested_tensor:
            return None
        stashed = [(m, dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in module.modules()]
        for m, _, _ in stashed:
            m._forward_hooks.clear()
            m._forward_pre_hooks.clear()
        mode.paused = True
        try:
            with unseen():
                again = module(*args, **kwargs)
                zero = output.new_zeros(output.shape[-1])
                zero = zero if module.norm is None else module.norm(zero)
        finally:
            mode.paused = False
            for m, after, before in stashed:
                m._forward_hooks.update(after)
                m._forward_pre_hooks.update(before)
        there = (padding if padding.dtype == torch.bool else padding.isneginf())[..., None]
        packed = again.shape == output.shape and torch.equal(again, torch.where(there, zero, again))
        return torch.where(there, zero, output) if packed else None

    return [m.register_forward_hook(leave, with_kwargs=True, prepend=True) for m in encoders]
