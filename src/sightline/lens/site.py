"""A site: one place in a model where attention happens, put together from the calls that were seen there."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.lens.capture import Call
from sightline.lens.given import Mark
from sightline.lens.products import in_full_precision

_CROSS = re.compile(
    r"cross|encoder_attn|encdec|enc_dec|encoder_decoder|multihead_attn|src_attn|context_attn", re.IGNORECASE
)
_SECOND = re.compile(r"(^|[._])attn2($|[._])")  # cross attention in a UNet; in SD3.5 the image's own, given alone


class Site:
    """Attention at one place of the model, over one pass.

    Several calls become one site when they are windows of one attention (rows side by side, zero between windows)
    or the steps of one generation (rows below each other, zero for keys that did not exist yet).

    Attributes:
        path: module path, "encoder.layer.3.attention.attention".
        name: path, with "#2" for the second call of a module that runs twice in one pass.
        index: position in the recording.  layer: number among the sites of its family (paths alike but for numbers).
        kind: "self", "cross" or "joint".  source: "sdpa", "softmax" or "observe".
        batch, heads: sizes of what is kept.  queries, keys: sizes of the whole attention.  rows: query rows kept.
        steps: rows of each call, in order: (5, 1, 1) for a prompt of 5 and two generated tokens.
        dropout: probability that the model applied after these weights; maps are before dropout.
    """

    def __init__(self, calls: Sequence[Call], *, steps: bool, recording: Any, given: Mark, windows: Any = None) -> None:
        first = calls[0]
        self.calls = list(calls)
        self.recording = recording  # a Recording: typed loosely, since that module imports this one
        self.given = given  # what this pass of the model was given
        self.path = self.name = first.path
        self.index = self.layer = 0
        self.source = first.source
        self.heads = len(first.kept_heads) if first.kept_heads is not None else first.heads
        self.all_heads = first.heads
        self.dropout = first.dropout
        self.windows = windows
        self.stepped = steps
        self.steps = tuple(call.count for call in calls)
        self._offsets(calls, steps)
        self.batch = first.batch
        if windows is not None:
            self.batch = given.batch or first.batch
            self.queries = self.keys = windows.tokens
            self._placed = windows.rows(recording.plan.queries)
        self.kind = self._kind(first, steps)

    def _offsets(self, calls: Sequence[Call], steps: bool) -> None:
        """Where each call's queries and keys begin in the whole attention."""
        self._first_query, self._first_key = [], []
        self.queries = self.keys = 0
        for call in calls:
            grown = call.cached > 0 and (steps or call.keys > call.queries) and not (_is_cross(call) and not steps)
            first_query = call.cached if grown else 0 if steps else self.queries
            # a sliding cache holds the last keys only; one of fixed size holds more than there are tokens so far
            first_key = max(first_query + call.queries - call.keys, 0) if grown and not _is_cross(call) else 0
            self._first_query.append(first_query)
            self._first_key.append(first_key if steps or grown else self.keys)
            self.queries = first_query + call.queries
            self.keys = max(self._first_key[-1] + call.keys, self.keys)

    def _kind(self, first: Call, steps: bool) -> str:
        if first.hint.startswith("joint:"):
            return "joint" if first.queries == first.keys == int(first.hint[6:]) else "cross"
        if first.hint in ("self", "cross"):
            return first.hint
        if _is_cross(first):
            return "cross"
        if first.hint == "alone":
            return "self"
        if first.queries != first.keys and not first.causal and not re.search("self", first.path, re.IGNORECASE):
            return "self" if steps or self.recording.cached else "cross"
        return "self"

    @property
    def query_index(self) -> Int[Tensor, " rows"]:
        """Which query positions the kept rows are, in 0..queries-1."""
        if self.windows is not None:
            return self._placed
        parts = [first + call.positions() for first, call in zip(self._first_query, self.calls, strict=True)]
        return torch.cat(parts)

    @property
    def rows(self) -> int:
        """Number of query rows kept."""
        return len(self._placed) if self.windows is not None else sum(self.steps)

    @property
    def bytes(self) -> int:
        """Bytes that this site keeps."""
        return sum(call.nbytes() for call in self.calls)

    @property
    def weights(self) -> Float[Tensor, "batch heads rows keys"]:
        """Softmax rows, before dropout.  Computed from the kept query and key when that was the smaller thing to keep.

        Raises ValueError when the matrix would exceed the recording's `limit`: read `blocks()` or `row(i)` instead.
        """
        size = self.batch * self.heads * self.rows * self.keys * 4
        if size > self.recording.plan.limit:
            raise ValueError(
                f"{self.name}: the whole matrix is {size:,} bytes, above limit={self.recording.plan.limit:,}; "
                "read site.blocks() or site.row(i), which hold a few rows at a time, or raise limit= in record(...)"
            )
        if len(self.calls) == 1 and self.windows is None:
            return self._pad(self.calls[0].row_weights(), self._first_key[0])
        parts = [block for _, block in self.blocks(size=max(self.rows, 1))]
        if not parts:
            return torch.zeros(self.batch, self.heads, 0, self.keys)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    def row(self, query: int) -> Float[Tensor, "batch heads keys"]:
        """The row of one query position, (batch, heads, keys).  Raises ValueError when it was not kept."""
        query = query + self.queries if query < 0 else query
        found = (self.query_index == query).nonzero().flatten().tolist()
        if not found:
            raise ValueError(f"{self.name}: row {query} was not kept (kept: {_few(self.query_index.tolist())})")
        return next(self.blocks(rows=found[:1]))[1][:, :, 0]

    def blocks(
        self, size: int = 256, rows: Sequence[int] | None = None
    ) -> Iterator[tuple[Int[Tensor, " block"], Float[Tensor, "batch heads block keys"]]]:
        """Row numbers (into the kept rows) and their weights, at most `size` rows at a time; `rows` picks some."""
        if self.windows is not None:
            yield from self._window_blocks(size, rows)
            return
        number = 0
        for call, first_key in zip(self.calls, self._first_key, strict=True):
            count = call.count
            chosen = None if rows is None else [r - number for r in rows if number <= r < number + count]
            if chosen is not None:
                for r in chosen:
                    yield torch.tensor([number + r]), self._pad(call.row_weights(r, r + 1), first_key)
            else:
                for start in range(0, count, size):
                    stop = min(start + size, count)
                    yield (
                        torch.arange(number + start, number + stop),
                        self._pad(call.row_weights(start, stop), first_key),
                    )
            number += count

    def _pad(self, weights: Tensor, first_key: int) -> Tensor:
        missing = self.keys - weights.shape[-1] - first_key
        return torch.nn.functional.pad(weights, (first_key, missing)) if first_key or missing else weights

    def _window_blocks(self, size: int, rows: Sequence[int] | None) -> Iterator[tuple[Tensor, Tensor]]:
        raw = torch.cat([call.row_weights() for call in self.calls], dim=2)
        numbers = torch.arange(len(self._placed)) if rows is None else torch.tensor(list(rows))
        for part in numbers.split(size):
            yield part, self.windows.place(raw, self.batch, self._placed[part])

    @property
    def grid(self) -> Any:
        """How this site's keys lie on the image (`sightline.lens.place.Layout`), or an error that says what to give."""
        return self.recording.layout(self)

    def weight_gradient(self, score: Float[Tensor, ""]) -> Float[Tensor, "batch heads rows keys"]:
        """d score / d weights of the kept rows.

        From the fused kernel's own output O: dL/dA = (dL/dO) V^T, exact when dropout is 0, with no graph of the
        N x N matrix.  Needs `record(..., gradients=True)` and a model that ran with gradients on.
        """
        return torch.cat([block for _, block in self.gradient_blocks(score, size=max(self.rows, 1))], dim=2)

    def gradient_blocks(
        self, score: Float[Tensor, ""], size: int = 256
    ) -> Iterator[tuple[Int[Tensor, " block"], Float[Tensor, "batch heads block keys"]]]:
        """`weight_gradient`, at most `size` rows at a time, in the order of `blocks`."""
        if self.windows is not None or len(self.calls) > 1:
            raise ValueError(f"{self.name}: gradients of windowed or step-by-step attention are not supported")
        call = self.calls[0]
        gradient = self.recording.gradient(self, score)
        positions = call.positions()
        for start in range(0, len(positions), size):
            stop = min(start + size, len(positions))
            rows = positions[start:stop].to(gradient.device)
            part = gradient.reshape(call.batch, call.heads, call.queries, -1)[:, :, rows]
            heads = call.kept_heads if call.kept_heads is not None else list(range(call.heads))
            part = part[:, heads]
            if call.value is not None:
                group = call.heads // call.value.shape[1]
                value = call.value[:, [h // group for h in heads]]
                with in_full_precision(part):
                    part = part.float() if part.dtype in (torch.float16, torch.bfloat16) else part
                    part = part @ value.to(part.dtype).transpose(-2, -1)
            yield torch.arange(start, stop), part

    def __repr__(self) -> str:
        return (
            f"Site({self.name!r}, {self.kind}, {self.heads} heads, {self.queries} x {self.keys}, {self.rows} rows kept)"
        )


def _is_cross(call: Call) -> bool:
    return call.hint == "cross" or _named_cross(call.path, call.hint == "alone")


@lru_cache(maxsize=4096)
def _named_cross(path: str, alone: bool) -> bool:
    return bool(_CROSS.search(path) or (not alone and _SECOND.search(path)))


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:8])) + (", …" if len(numbers) > 8 else "") if numbers else "none"
