"""Scores of chosen rows, query key^T, of one attention call or of many that are alike.

Numbers of half precision are multiplied as they are and summed in float32 where the device can do that (a GPU): to make
float32 of all keys first takes several times as long as the products of one row.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

_COPIED = 2**14  # numbers of a batch item's keys that a CPU copies for longer than a product takes to begin
# bytes of a call's keys below which a GPU copies them together with others', or for themselves, and multiplies at once
_SMALL, _LARGE = 2**22, 2**24
_NO_CHANGE = nullcontext()


def in_full_precision(tensor: Tensor) -> Any:
    """A context in which autocast leaves products of `tensor` alone."""
    if not torch._C._is_any_autocast_enabled():  # 0.2 microseconds; naming the device takes 0.7
        return _NO_CHANGE
    return torch.autocast(tensor.device.type, enabled=False)


def products(query: Tensor, key: Tensor, scale: float | None = None) -> Tensor:
    """scale * query key^T, (batch, heads, rows, keys), a tensor of its own, float32 or float64.

    query (batch, heads, rows, width), key (batch, key_heads, keys, width) with key_heads dividing heads.
    """
    batch, heads, rows, width = query.shape
    key_heads, keys = key.shape[1], key.shape[2]
    on_gpu = key.is_cuda and not torch.compiler.is_compiling()
    half = query.element_size() < 4  # float16, bfloat16
    if half and not (on_gpu and _sums_in_float32(key)):
        query, key, half = query.float(), key.float(), False
    if scale is not None and not half:
        query = query * scale
    if heads != key_heads:
        # consecutive query heads share a key head: stacked under it, no copy of the keys is needed
        query = query.reshape(batch, key_heads, heads // key_heads * rows, width)
    if batch == 1:  # what `matmul` comes to, without its own steps: a fifth less time between two layers
        scores = _multiply(query[0], key[0].mT)
    elif _dear_together(query, key):
        scores = torch.stack([_multiply(q, k.mT) for q, k in zip(query, key, strict=True)])
    elif on_gpu:  # where items lie apart the keys are copied, which takes less than to ask for each product
        scores = _multiply(query.flatten(0, 1), key.flatten(0, 1).mT)
    else:
        scores = torch.matmul(query, key.mT)
    scores = scores.view(batch, heads, rows, keys)
    return scores * scale if half and scale is not None else scores


def products_directly(query: Tensor, key: Tensor, start: int, count: int) -> Tensor:
    """Products of `count` rows from `start` on, (heads, count, keys), where the batch is one and precision is full.

    query (1, heads, queries, width), key (1, heads, keys, width): three steps of torch, for between two layers.
    """
    _, heads, keys, width = key.shape
    _, head, row, column = query.stride()
    begin = query.storage_offset() + start * row if start else None
    rows = query.as_strided((heads, count, width), (head, row, column), begin)
    _, head, row, column = key.stride()
    return torch.bmm(rows, key.as_strided((heads, width, keys), (head, column, row)))


def products_of_many(queries: Sequence[Tensor], keys: Sequence[Tensor], start: int, count: int) -> list[Tensor]:
    """Products of `count` rows from `start` on of many calls alike, in parts of (calls, batch, heads, rows, keys).

    On a GPU each step is short and takes as long to ask for: small calls are copied together and multiplied at once.
    """
    query, key = queries[0], keys[0]
    if len(queries) > 1 and key.numel() * key.element_size() < _SMALL:
        if query.shape[2] <= key.shape[2]:  # else cutting out the rows first is worth its time
            rows = torch.cat(list(queries)).narrow(2, start, count)
        else:
            rows = torch.cat([q.narrow(2, start, count) for q in queries])
        scores = products(rows, torch.cat(list(keys)))
        return [scores.view(len(queries), len(query), *scores.shape[1:])]
    return [products(q.narrow(2, start, count), k)[None] for q, k in zip(queries, keys, strict=True)]


def _multiply(one: Tensor, other: Tensor) -> Tensor:
    """Products of batches of matrices, in float32 where they have half precision."""
    if one.element_size() < 4:
        return torch.bmm(one, other, out_dtype=torch.float32)
    return torch.bmm(one, other)


def _sums_in_float32(tensor: Tensor) -> bool:
    """Whether a tensor's GPU multiplies numbers of its precision with sums in float32."""
    if tensor.dtype == torch.float16 and torch.backends.cuda.matmul.allow_fp16_accumulation:
        return False
    return tensor.element_size() >= 4 or _sums_half(tensor.get_device(), tensor.dtype)


@lru_cache
def _sums_half(device: int, dtype: torch.dtype) -> bool:
    own = torch.version.hip is None
    return own and (dtype == torch.float16 or torch.cuda.get_device_capability(device) >= (8, 0))


def _dear_together(query: Tensor, key: Tensor) -> bool:
    """Whether a few rows of a batch of several are taken faster one item at a time.

    Models lay keys out as (batch, keys, heads, width); one product of batch and heads together copies them all first,
    which takes a CPU four times as long as the products themselves, and a GPU longer where the keys are large.
    """
    if not _apart(key) or torch.compiler.is_compiling():
        return False
    if key.is_cuda:
        return key.numel() * key.element_size() >= _LARGE
    _, heads, keys, width = key.shape
    return key.device.type == "cpu" and heads * keys * width >= _COPIED and query.shape[2] * 4 <= width


def _apart(key: Tensor) -> bool:
    """Whether the heads of one batch item do not lie in memory as if they went on those of the item before."""
    return key.stride(0) != key.shape[1] * key.stride(1)
