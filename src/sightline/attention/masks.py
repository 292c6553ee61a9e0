"""Attention masks, built here and nowhere else: boolean, True = may attend.

Every mask has four axes that broadcast to (batch, heads, queries, keys).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def causal(
    queries: int, keys: int | None = None, *, start: int = 0, device: torch.device | str | None = None
) -> Bool[Tensor, "1 1 queries keys"]:
    """Lets query i attend to keys 0 .. start + i.

    `start` is how many keys came before the first query (the length of a key cache); `keys` defaults to
    start + queries.  Raises ValueError where a length is not positive or `start` is negative.
    """
    keys = start + queries if keys is None else keys
    if queries < 1 or keys < 1 or start < 0:
        raise ValueError(f"a causal mask needs positive lengths, given {queries=}, {keys=}, {start=}")
    rows = torch.arange(queries, device=device)[:, None] + start
    return (torch.arange(keys, device=device)[None, :] <= rows)[None, None]


def padding(lengths: Int[Tensor, " batch"], keys: int | None = None) -> Bool[Tensor, "batch 1 1 keys"]:
    """Lets every query of example b attend to its first lengths[b] keys.

    `keys` (default: the longest length) is the padded length.  Raises ValueError for a length below 1
    (nothing could be attended to) or above `keys`.
    """
    if lengths.numel() == 0:
        raise ValueError("padding() needs at least one length, given an empty tensor")
    shortest, longest = int(lengths.min()), int(lengths.max())
    keys = longest if keys is None else keys
    if shortest < 1 or longest > keys:
        raise ValueError(f"lengths must lie in 1 .. {keys}, given {shortest} .. {longest}")
    return (torch.arange(keys, device=lengths.device)[None, :] < lengths[:, None])[:, None, None]


def window(
    queries: int, radius: int, *, device: torch.device | str | None = None
) -> Bool[Tensor, "1 1 queries queries"]:
    """Lets position i attend to positions j with |i - j| <= radius; ValueError for a negative radius."""
    if queries < 1 or radius < 0:
        raise ValueError(f"a window mask needs queries >= 1 and radius >= 0, given {queries=}, {radius=}")
    place = torch.arange(queries, device=device)
    return ((place[:, None] - place[None, :]).abs() <= radius)[None, None]


def block_diagonal(
    lengths: Sequence[int], *, device: torch.device | str | None = None
) -> Bool[Tensor, "1 1 queries queries"]:
    """Lets positions attend within their own block only; blocks of the given lengths lie one after another.

    Raises ValueError where no length is given or one is below 1.
    """
    if not lengths or min(lengths) < 1:
        raise ValueError(f"block_diagonal() needs lengths of 1 or more, given {list(lengths)}")
    sizes = torch.tensor(list(lengths), device=device)
    block = torch.repeat_interleave(torch.arange(len(lengths), device=device), sizes)
    return (block[:, None] == block[None, :])[None, None]


def check(mask: Tensor, batch: int, heads: int, queries: int, keys: int) -> Tensor:
    """Returns `mask` unchanged if it is boolean and broadcasts to (batch, heads, queries, keys).

    Raises ValueError otherwise: a mask is never guessed at, so a two-axis mask is refused (it may mean
    (queries, keys) or (batch, keys)).
    """
    if mask.dtype != torch.bool:
        raise ValueError(
            f"a mask is boolean, True = may attend; given {mask.dtype}. Convert it: additive masks by "
            "`mask == 0`, 0/1 masks by `mask.bool()`"
        )
    wanted = (batch, heads, queries, keys)
    if mask.ndim != 4 or any(have not in (1, want) for have, want in zip(mask.shape, wanted, strict=True)):
        raise ValueError(
            f"a mask must broadcast to (batch, heads, queries, keys) = {wanted}, given {tuple(mask.shape)}. "
            "Add the axes explicitly, for example mask[:, None, None, :] for (batch, keys)"
        )
    return mask


def combine(*masks: Tensor | None) -> Tensor | None:
    """Allows what every given mask allows; None stands for "all allowed" and is the answer if all are None.

    Raises ValueError for masks that are not boolean, not four-axed, or that do not broadcast together.
    """
    given = [mask for mask in masks if mask is not None]
    if not given:
        return None
    for mask in given:
        if mask.dtype != torch.bool or mask.ndim != 4:
            raise ValueError(
                "masks to combine must be boolean with axes (batch, heads, queries, keys), given "
                f"{mask.dtype} of shape {tuple(mask.shape)}"
            )
    try:
        torch.broadcast_shapes(*(mask.shape for mask in given))
    except RuntimeError as error:
        shapes = ", ".join(str(tuple(mask.shape)) for mask in given)
        raise ValueError(f"these masks do not broadcast together: {shapes}") from error
    result = given[0]
    for mask in given[1:]:
        result = result & mask
    return result
