"""Attention calls inside `torch.compile`: what Dynamo traces beside them, and how that becomes calls afterwards.

The module hooks are compiled into the graph too, so paths are constants of it.  Everything here that runs while Dynamo
traces is plain tensor code and appends to one list; choices are made when the compiled code has returned.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sightline.lens.capture import (
    Call,
    as_four,
    mask_rows,
    operands_of,
    projected,
    same_lead,
    softmax_rows,
)
from sightline.lens.frame import OUTSIDE, Frame

try:
    from torch._higher_order_ops.flex_attention import flex_attention as _flex_operator
except ImportError:  # a torch that has it elsewhere, or not at all
    _flex_operator = None  # type: ignore[assignment]


def see_compiled(mode: Any, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
    """What Dynamo traces in place of a torch call: plain enough to become part of the one compiled graph."""
    if func is Tensor.unflatten:  # a Python method whose `super()` call Dynamo cannot trace below a mode
        func = torch.unflatten
    output = func(*args, **kwargs)
    frame = mode.frames[-1] if mode.frames else OUTSIDE
    if func is _flex_operator:
        mode.opaque.append("flex_attention")
    elif func is F.softmax or func is torch.softmax or func is Tensor.softmax:
        if output.dim() >= 3:
            mode.opaque.append(f"softmax inside torch.compile in {frame.path}")
    elif not frame.wanted:
        if func is F.multi_head_attention_forward or func is F.scaled_dot_product_attention:
            mode.skipped.append(frame.path)
    elif func is F.multi_head_attention_forward:
        parts = projected(args, kwargs)
        if parts is None:
            mode.opaque.append("compiled nn.MultiheadAttention with added keys (add_bias_kv, add_zero_attn)")
        else:
            hint = frame.hint or ("self" if args[0] is args[1] else "cross")
            _keep_compiled(mode, frame.path, hint, *parts, False, None, 0.0)
    elif func is F.scaled_dot_product_attention:
        query, key, _, mask, dropout, causal, scale = operands_of(*args, **kwargs)
        _keep_compiled(mode, frame.path, frame.hint, query, key, mask, causal, scale, dropout)
    return output


def _keep_compiled(
    mode: Any, path: str, hint: str, query: Tensor, key: Tensor, mask: Any, causal: bool, scale: Any, dropout: float
) -> None:
    query, key = same_lead(query, key)
    lead, queries = tuple(query.shape[:-2]), query.shape[-2]
    q, k = as_four(query), as_four(key)
    about = (path, hint, q.shape[0], q.shape[1], queries, k.shape[2], q.shape[3], causal, scale, dropout)
    if mode.traced_row is None:
        mask = None if mask is None else mask_rows(mask, lead, slice(0, queries))
        mode.traced.append((about, None, q.clone(), k.clone(), mask))
        return
    start = mode.traced_row % queries
    mask = None if mask is None else mask_rows(mask, lead, slice(start, start + 1))
    weights = softmax_rows(
        q[:, :, start : start + 1], k, mask=mask,
        positions=torch.arange(start, start + 1, device=q.device) if causal else None,
        scale=q.shape[3] ** -0.5 if scale is None else scale,
    )  # fmt: skip
    mode.traced.append((about, weights, None, None, None))


def take_compiled(mode: Any) -> None:
    """Turns what compiled code collected into calls; the same choices of rows and heads, made afterwards."""
    if not mode.traced:
        return
    mode.settle()
    traced, mode.traced = mode.traced, []
    _drop_echo(mode, len(traced))
    for about, weights, q, k, mask in traced:
        path, hint, batch, heads, queries, keys, width, causal, scale, dropout = about
        frame = Frame(path, hint, -1, False, True)
        rows = mode._rows(frame, batch, heads, queries, keys, 0)
        call = Call(
            "sdpa", path, hint, -1, (), batch, heads, queries, keys, rows,
            causal=causal, scale=width**-0.5 if scale is None else scale, width=width, dropout=dropout,
            kept_heads=mode.plan.head_list(heads), cached=mode.cached,
        )  # fmt: skip
        if mode.plan.hold and weights is not None:
            call.weights = weights if call.kept_heads is None else weights[:, call.kept_heads]
            mode.kept += call.nbytes()
            if mode.kept > mode.plan.limit:
                raise ValueError(mode._refusal(call))
        elif mode.plan.hold:
            mask = mask if mask is None or mask.shape[-2] == 1 else mask[..., rows, :]
            mode._hold(call, q.detach(), k.detach(), None, None, mask)
        mode.calls.append(call)


def _drop_echo(mode: Any, count: int) -> None:
    """torch's "eager" debug backend runs the graph as Python, where each call is seen once more, without a path."""
    tail = mode.calls[-count:]
    if len(tail) == count and all(c.path == "" and c.frame == -1 for c in tail):
        mode.kept -= sum(call.nbytes() for call in tail)
        del mode.calls[-count:]
