"""Attention written out: a softmax over the last axis, and what happens to its result until it multiplies values."""

from collections import deque
from typing import Any

from torch import Tensor

from sightline.lens.capture import Call, by_head, same_tensor
from sightline.lens.frame import ELSEWHERE, Frame

_PRODUCT = {"matmul", "__matmul__", "bmm", "einsum", "mm"}
# what may stand between a softmax and the product with the values without changing which attention it is
_CARRY = {
    "dropout", "dropout_", "to", "type_as", "type", "float", "half", "bfloat16", "contiguous", "view", "reshape",
    "permute", "transpose", "swapaxes", "flatten", "unflatten", "clone", "mul", "__mul__", "nan_to_num",
    "masked_fill", "squeeze", "unsqueeze",
}  # fmt: skip


def see_softmax(mode: Any, frame: Frame, result: Any, args: tuple, kwargs: dict[str, Any]) -> None:
    """Begins to follow a softmax over the last axis of three or more."""
    axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
    known = isinstance(result, Tensor) and result.dim() >= 3 and frame is not ELSEWHERE
    if known and axis in (-1, result.dim() - 1):
        mode.softmaxes.append((result, result, frame.path))
        if len(mode.softmaxes) > 2:
            tell_unfollowed(mode, mode.softmaxes.popleft())


def forget_softmax(mode: Any, frame: Frame) -> None:
    """A mechanism that reports itself is not seen once more through the softmax that it computes."""
    last = mode.calls[-1] if mode.calls else None
    if isinstance(last, Call) and last.source == "softmax" and last.frame == frame.serial >= 0:
        mode.kept -= last.nbytes()
        mode.calls.pop()
    mode.softmaxes = deque(entry for entry in mode.softmaxes if entry[2] != frame.path)


def tell_unfollowed(mode: Any, entry: tuple[Tensor, Tensor, str]) -> None:
    """A softmax that never met values is no attention, unless its module is named for it."""
    if "att" in entry[2].lower():
        mode.opaque.append(f"a softmax in {entry[2]} whose product with values was not recognised")


def follow(mode: Any, name: str, result: Any, args: tuple) -> None:
    """Has a softmax's result just been multiplied with values, or only been carried on its way there?"""
    for number, (now, weights, path) in enumerate(mode.softmaxes):
        if name in _PRODUCT:
            operands = [a for a in args if isinstance(a, Tensor)]
            # values come in batches as their weights do; a softmax times a plain matrix is a soft choice among rows
            if any(same_tensor(o, now) for o in operands) and all(o.dim() >= min(now.dim(), 3) for o in operands):
                frame = mode._frame()
                mode._keep_weights(frame, weights, by_head(weights.detach(), now, frame.heads))
                del mode.softmaxes[number]
                return
        elif name == "__getitem__" and same_tensor(args[0], now) and result.shape[:-1] == now.shape[:-1]:
            mode.softmaxes[number] = (result, result, path)  # the weight of a learned sink is dropped
            return
        elif name in _CARRY and same_tensor(args[0], now) and result.numel() == now.numel():
            mode.softmaxes[number] = (result, weights, path)
            return
