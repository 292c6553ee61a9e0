"""The exact rows of one attention call, from its own operands.

`rows(...)` computes softmax(scale * q k^T + mask) for the chosen rows only: O(rows x keys) memory, whatever fused
kernel computed the output.  It follows `torch.nn.functional.scaled_dot_product_attention` where that is peculiar:
a causal mask is aligned top left, a row that may attend nowhere is zero (not NaN), grouped key heads repeat.
"""

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils._python_dispatch
from torch import Tensor

from sightline.lens.key import unseen
from sightline.lens.products import in_full_precision, products

# a name of torch's own, there from 2.9 to 2.13
no_modes: Any = getattr(torch.utils._python_dispatch, "_disable_current_modes", nullcontext)

_settling = threading.Lock()
_SMALL = 2**18  # numbers of a call that is put together with others before its softmax: a copy of 1 MB


@dataclass
class Call:
    """One attention call as it was seen.  `weights` are kept rows, or None where `query` and `key` are kept instead."""

    source: str  # "sdpa" | "softmax" | "observe"
    path: str
    hint: str  # what the module's arguments said: "", "cross", "joint"
    frame: int  # serial number of the module call it happened in; -1 inside torch.compile
    place: tuple[int, ...]  # where query and key lie in memory (`whereabouts`)
    batch: int
    heads: int
    queries: int
    keys: int
    rows: slice | list[int]  # kept query rows of this call
    past: int = 0  # tokens that came before the first query: windows already seen
    weights: Tensor | None = None  # (batch, heads, rows, keys); query key^T alone until `settle`
    query: Tensor | None = None  # (batch, heads, rows, width)
    key: Tensor | None = None  # (batch, key_heads, keys, width)
    mask: Tensor | None = None  # broadcasts to (batch, heads, rows, keys); boolean True = may attend, or added
    causal: bool = False
    scale: float = 1.0
    width: int = 0  # of one query vector
    dropout: float = 0.0
    output: Tensor | None = None  # what the call returned, in the autograd graph: for gradients
    value: Tensor | None = None  # (batch, key_heads, keys, width)
    kept_heads: list[int] | None = None
    cached: int = 0  # tokens that the key-value cache of the running pass held before
    mask_bytes: int = 0
    undecided: bool = False  # all rows are kept until the windows around this call are known
    waiting: "list[Call] | None" = None  # calls, this one among them, whose products become weights when one is read

    def keep_rows(self, rows: list[int]) -> None:
        """Lets go of all kept rows but these (all of them are kept so far)."""
        self.rows = rows
        if self.weights is not None:
            self.weights = self.weights[:, :, rows]
        if self.query is not None:
            self.query = self.query[:, :, rows]
        if self.mask is not None and self.mask.shape[-2] != 1:
            self.mask = self.mask[..., rows, :]

    def positions(self) -> Tensor:
        """Kept rows as indices into this call's queries, (rows,)."""
        if isinstance(self.rows, slice):
            return torch.arange(self.rows.start, self.rows.stop, self.rows.step or 1)
        return torch.tensor(self.rows, dtype=torch.long)

    @property
    def count(self) -> int:
        """Number of kept rows."""
        rows = self.rows
        return len(range(rows.start, rows.stop, rows.step or 1)) if isinstance(rows, slice) else len(rows)

    def row_weights(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Softmax rows number `start` to `stop` of the kept ones, (batch, heads, rows, keys), float32."""
        if self.waiting is not None:
            settle_waiting(self)
        if self.weights is not None:
            kept = self.weights[:, :, start:stop]
            return kept.float() if kept.dtype in (torch.float16, torch.bfloat16) else kept
        if self.query is None or self.key is None:
            raise RuntimeError(f"{self.path}: a survey keeps no weights; use sightline.record to keep some")
        query, mask = self.query, self.mask
        if start or stop is not None:
            query = query[:, :, start:stop]
            mask = mask if mask is None or mask.shape[-2] == 1 else mask[..., start:stop, :]
        positions = self.positions()[start:stop].to(query.device) if self.causal else None
        # the lens's own arithmetic is nobody's attention: an outer recording shall not see it
        with unseen(), in_full_precision(query):
            return softmax_rows(query, self.key, mask=mask, positions=positions, scale=self.scale)

    def settle(self) -> None:
        """Makes weights of the products that were kept while the model ran."""
        if self.weights is None:
            return
        positions = self.positions().to(self.weights.device) if self.causal else None
        # a product taken under inference_mode may not be written to outside it: scaling makes a tensor of our own
        self._settled(_weights((self.weights * self.scale).contiguous(), self.mask, positions))

    def _settled(self, weights: Tensor) -> None:
        """In one step, so that a reader who is interrupted, or out of memory, finds no weights taken for products."""
        self.weights, self.mask, self.waiting = weights, None, None

    def nbytes(self) -> int:
        """Bytes that this call keeps."""
        return sum(t.numel() * t.element_size() for t in self.tensors())

    def tensors(self) -> list[Tensor]:
        """The tensors that this call keeps."""
        return [t for t in (self.weights, self.query, self.key, self.mask, self.value, self.output) if t is not None]


def settle(calls: Sequence[Call]) -> None:
    """Makes weights of the products of many calls: small ones that are alike together, with one softmax for all.

    A layer's class row is a few thousand numbers, and twelve softmaxes of those take twelve times as long as one.
    """
    alike: dict[tuple, list[Call]] = {}
    for number, call in enumerate(calls):
        assert call.weights is not None, "a call without products has nothing to settle"
        kept = call.weights
        rows = (call.rows.start, call.rows.stop, call.rows.step) if isinstance(call.rows, slice) else tuple(call.rows)
        small = kept.numel() <= _SMALL
        sign = (kept.shape, kept.dtype, kept.device, call.scale, call.causal and rows, id(call.mask))
        alike.setdefault(sign if small else (number,), []).append(call)
    for group in alike.values():
        if len(group) == 1:
            group[0].settle()
            continue
        first, scores = group[0], torch.stack([call.weights for call in group if call.weights is not None])
        positions = first.positions().to(scores.device) if first.causal else None
        done = _weights(scores.mul_(first.scale), first.mask, positions)
        for call, weights in zip(group, done.unbind(), strict=True):
            call._settled(weights)


def settle_waiting(call: Call) -> None:
    """Makes weights of the products that wait together with this call's."""
    with _settling:  # two threads may read
        if call.waiting is not None:
            # whatever the first reader is about, the others read these weights too
            with unseen(), no_modes(), torch.inference_mode(False), torch.no_grad():
                settle([other for other in call.waiting if other.waiting is not None])


def softmax_rows(query: Tensor, key: Tensor, *, mask: Tensor | None, positions: Tensor | None, scale: float) -> Tensor:
    """softmax(scale * query key^T + mask), (batch, heads, rows, keys) in float32 (float64 stays).

    query (batch, heads, rows, width), key (batch, key_heads, keys, width) with key_heads dividing heads,
    positions (rows,): which query each row is, under a causal mask (row i sees keys 0..i); None without one.
    """
    return _weights(products(query, key, scale), mask, positions)


def _weights(scores: Tensor, mask: Tensor | None, positions: Tensor | None) -> Tensor:
    """softmax(scores + mask).  The scores are the lens's own, and large: everything happens in them."""
    if positions is not None:
        keys = torch.arange(scores.shape[-1], device=scores.device)
        scores.masked_fill_(keys > positions[:, None], float("-inf"))
    if mask is not None:
        scores = scores.masked_fill_(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
        # the fused kernels answer 0 for a row that may attend nowhere, where a plain softmax says NaN
        blind = scores.amax(-1, keepdim=True) == float("-inf")
        return scores.softmax(-1).masked_fill_(blind, 0.0)
    in_place = not (torch.compiler.is_compiling() or scores.requires_grad)
    return torch.softmax(scores, -1, out=scores) if in_place else scores.softmax(-1)


def same_lead(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Query, key and value with equal axes before the heads: SDPA lets them broadcast (views, nothing is copied)."""
    first = tensors[0].shape[:-3]
    for tensor in tensors[1:]:
        if tensor.shape[:-3] != first:
            break
    else:
        return tensors
    lead = torch.broadcast_shapes(*(t.shape[:-3] for t in tensors))
    return tuple(t.expand(*lead, *t.shape[-3:]) for t in tensors)


def rows_of(tensor: Tensor, rows: slice | list[int]) -> Tensor:
    """The chosen rows of (batch, heads, rows, width)."""
    if isinstance(rows, slice) and rows.step in (None, 1):
        return tensor.narrow(2, rows.start, max(rows.stop - rows.start, 0))  # three times as fast as an index
    return tensor[:, :, rows]


def without_copies(mask: Tensor) -> Tensor:
    """A mask with the axes along which it was only expanded cut back to one."""
    for axis, (size, stride) in enumerate(zip(mask.shape, mask.stride(), strict=True)):
        if stride == 0 and size > 1:
            mask = mask.narrow(axis, 0, 1)
    return mask


class Copies:
    """Copies of masks, one for all layers that are given the same unchanged mask."""

    def __init__(self) -> None:
        self._made: dict[tuple, tuple[Tensor, Tensor]] = {}

    def of(self, mask: Tensor) -> Tensor:
        """A copy of this mask."""
        if mask.is_inference():
            return mask.clone()
        sign = (mask.data_ptr(), mask._version, mask.shape, mask.stride(), mask.dtype)
        if sign not in self._made:
            self._made[sign] = (mask, mask.clone())  # the mask itself is held so that its address stays its own
        return self._made[sign][1]


def as_four(tensor: Tensor) -> Tensor:
    """(..., length, width) as (batch, heads, length, width): three axes have one head, more than four flatten."""
    if tensor.dim() == 4:
        return tensor
    if tensor.dim() == 2:
        return tensor[None, None]
    if tensor.dim() == 3:
        return tensor[:, None]
    return tensor.reshape(-1, *tensor.shape[-3:])


def mask_rows(mask: Tensor, lead: tuple[int, ...], rows: slice | list[int]) -> Tensor:
    """The chosen rows of a mask that broadcasts to (*lead, queries, keys), with four axes."""
    if mask.shape[-2] != 1:
        mask = mask[..., rows, :]
    if len(lead) == 1 and mask.dim() == 3:  # (batch, queries, keys): the head axis is missing
        return mask[:, None]
    if mask.dim() <= 4:
        mask = mask[(None,) * (4 - mask.dim())]
    return mask if len(lead) <= 2 else mask.expand(*lead, *mask.shape[-2:]).reshape(-1, lead[-1], *mask.shape[-2:])


def operands_of(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, float, bool, float | None]:
    """What an SDPA call was given, by position or by name: it has the signature of the call itself."""
    return query, key, value, attn_mask, dropout_p or 0.0, bool(is_causal), scale


def by_head(weights: Tensor, now: Tensor, heads: int) -> Tensor:
    """Softmax output as (batch, heads, queries, keys).

    A model that folds heads into the batch axis shows (batch * heads, queries, keys): a view on the way to the product
    or the module's own number of heads tells them apart; else they are kept as batch items with one head.
    """
    if weights.dim() == 5 and heads and weights.shape[1] == heads:  # Hiera: (batch, heads, units, queries, keys)
        weights = weights.movedim(1, 2)
    if weights.dim() == 3 and now.dim() == 4 and now.shape[-2:] == weights.shape[-2:]:
        return weights.view(now.shape)
    if weights.dim() == 3 and heads > 1 and weights.shape[0] % heads == 0:
        return weights.unflatten(0, (-1, heads))
    return as_four(weights)


def unpack_group(
    query: Tensor, key: Tensor, mask: Tensor | None, heads: int, group: int
) -> tuple[Tensor, Tensor | None]:
    """(batch, key heads, group, width) as (batch, heads, 1, width).

    `transformers` lays the heads of a group along the query axis when there is one query and a mask.
    """
    shape = tuple(query.shape)
    if group < 2 or len(shape) != 4 or shape[1] != key.shape[1] or shape[2] != group:
        return query, mask
    if shape[1] * shape[2] != heads:
        return query, mask
    if mask is not None and mask.dim() == 4 and mask.shape[1] != 1:
        mask = mask.reshape(mask.shape[0], -1, 1, mask.shape[-1])
    return query.reshape(shape[0], -1, 1, shape[3]), mask


def projected(args: tuple, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Query, key and additive mask inside a call of `F.multi_head_attention_forward`, or None with added keys.

    Its first arguments are query (queries, batch, width), key, value, width, heads, packed weight and bias.  For
    compiled code only, where the fused call inside cannot be watched.
    """
    query, key, _, width, heads, weight, bias, bias_k, _, zero = args[:10]
    if bias_k is not None or zero or kwargs.get("static_k") is not None or query.dim() != 3:
        return None
    if kwargs.get("use_separate_proj_weight"):
        weights = kwargs["q_proj_weight"], kwargs["k_proj_weight"]
    else:
        weights = weight[:width], weight[width : 2 * width]
    biases = (None, None) if bias is None else (bias[:width], bias[width : 2 * width])
    q, k = (
        F.linear(x, w, b).view(*x.shape[:2], heads, width // heads).permute(1, 2, 0, 3)
        for x, w, b in zip((query, key), weights, biases, strict=True)
    )
    mask = _added(kwargs.get("attn_mask"))
    if mask is not None and mask.dim() == 3:
        mask = mask.view(-1, heads, *mask.shape[1:])
    padding = _added(kwargs.get("key_padding_mask"))
    if padding is not None:
        mask = padding[:, None, None] if mask is None else mask + padding[:, None, None]
    return q, k, mask


def _added(mask: Tensor | None) -> Tensor | None:
    """torch's own module masks (True = hidden) as numbers to add."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill(mask, float("-inf"))


def whereabouts(query: Tensor, key: Tensor) -> tuple[int, ...]:
    """Of query and of key: address, number in the storage where it begins, length of the sequence in it, item size.

    () where they have no storage of their own, as under `torch.func.vmap`.
    """
    try:
        return (  # type: ignore[return-value]  # plain numbers where no graph is traced
            query.data_ptr(), query.storage_offset(), query.shape[-2] * query.stride(-2), query.element_size(),
            key.data_ptr(), key.storage_offset(), key.shape[-2] * key.stride(-2), key.element_size(),
        )  # fmt: skip
    except RuntimeError:
        return ()


def same_tensor(one: Any, other: Tensor) -> bool:
    """Whether two are one tensor: a subclass of Tensor wraps what an operator gave in an object of its own."""
    if one is other or not isinstance(one, Tensor) or type(one) is type(other):
        return one is other
    alike = one.shape == other.shape and one.stride() == other.stride()
    return alike and bool(torch._C._is_alias_of(one, other))  # type: ignore[attr-defined]


def follows(place: tuple[int, ...], before: tuple[int, ...]) -> bool:
    """Whether query and key begin where the sequence of those before would go on, in the same storages."""
    for (address, begin, _, size), (address_before, begin_before, length, size_before) in (
        (place[:4], before[:4]),
        (place[4:], before[4:]),
    ):
        if begin != begin_before + length or address - begin * size != address_before - begin_before * size_before:
            return False
    return True
