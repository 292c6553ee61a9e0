"""Attention over many layers as one map: rollout, for one sequence and for an encoder with a decoder.

Everything here multiplies a few rows through the layers, from the last to the first, and reads each layer by
blocks of rows.  So the class token's rollout over N tokens holds a row and one block, never an N x N matrix.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Fusion = Literal["mean", "max", "min"]
Rows = int | Sequence[int] | Tensor | None


@torch.no_grad()
def rollout(
    sites: Sequence[Any],
    *,
    rows: Rows = None,
    fusion: Fusion = "mean",
    discard: float = 0.0,
    residual: float = 0.5,
    start: int = 0,
) -> Float[Tensor, "batch rows tokens"]:
    """Attention rollout: how much of each input token is mixed into the tokens `rows` after the last layer.

    Â_l = residual · I + (1 - residual) · A_l and R = Â_L ··· Â_2 Â_1 (Abnar & Zuidema 2020, "Quantifying
    Attention Flow in Transformers"), where A_l is layer l's attention fused over heads.  Each row of R sums
    to 1.

    sites     self- or joint-attention sites over the same tokens, all rows kept; they are multiplied in the
              order in which they ran, whatever the order given here.
    rows      which rows of R: a position, several, or None for all of them.  The cost is O(rows x N) memory
              and O(rows x N²) time a layer, so None holds the full N x N matrix.  Negative positions count
              from the end.
    fusion    over heads: "mean" as published; "max" or "min", after which each row is divided by its sum.
    discard   share, 0 <= discard < 1: in each row of A_l, the floor(discard · n) smallest of its n non-zero
              weights become 0 and the row is divided by its new sum; no key is exempt, and the largest weight
              always stays.  The well-known script instead cuts the lowest share of the whole matrix, for the
              first image of the batch only, exempts the pair (0, 0), and adds I before it divides.
    residual  weight of the skip connection, 0 <= residual <= 1.
    start     leave out the first `start` sites.

    A row that attends to nothing (fully masked) passes its own token on.  Windowed attention, put back in place, can
    be combined within a stage.  Raises ValueError where sites keep only some rows, are cross-attention, or differ in
    tokens or batch.
    """
    _check_share("residual", residual, top=1.0)
    chain = layers(sites, start=start)
    state = starting_rows(chain[0], rows)
    for site in reversed(chain):
        state = _through(state, site, fusion, discard, residual)
    return state


@dataclass(frozen=True)
class CrossRollout:
    """Relevance of the source (encoder) and target (decoder) tokens for each chosen row of the decoder.

    source  (batch, rows, source tokens);  target  (batch, rows, target tokens).
    """

    source: Tensor
    target: Tensor


@torch.no_grad()
def cross_rollout(
    encoder: Sequence[Any],
    decoder: Sequence[Any],
    cross: Sequence[Any],
    *,
    rows: Rows = None,
    fusion: Fusion = "mean",
    discard: float = 0.0,
    residual: float = 0.5,
) -> CrossRollout:
    """Attention rollout through an encoder-decoder: each decoder row mixed from source and target tokens.

    With ρ = residual, R_tt = I, R_ts = 0 at the start and R_ss = rollout(encoder):
        decoder self-attention   R_tt <- (ρI + (1-ρ)A) R_tt        R_ts <- (ρI + (1-ρ)A) R_ts
        cross-attention          R_tt <- ρ R_tt                    R_ts <- ρ R_ts + (1-ρ) A R_ss
    which is rollout (Abnar & Zuidema 2020) of the block matrix of both sequences: source and target parts of
    a row sum to 1 together.  Computed from the last layer to the first on the chosen rows, so nothing of size
    S x S is held.

    `encoder` and `decoder` may be empty (features of a CNN; a decoder without self-attention), `cross` may
    not. Decoder and cross sites are interleaved in the order in which they ran.  Raises ValueError as
    `rollout` does.
    """
    _check_share("residual", residual, top=1.0)
    encoder, steps = paired(encoder, decoder, cross)
    target = starting_rows(cross[0], rows)
    source = target.new_zeros(*target.shape[:2], cross[0].keys)
    for site, crosses in reversed(steps):
        if not crosses:
            target = _through(target, site, fusion, discard, residual)
            continue
        for index, block in _fused(site, fusion, discard):
            source += (1 - residual) * target[:, :, index] @ block
            target[:, :, index] *= _kept(block, residual)
    for site in reversed(encoder):
        source = _through(source, site, fusion, discard, residual)
    return CrossRollout(source=source, target=target)


def _through(state: Tensor, site: Any, fusion: Fusion, discard: float, residual: float) -> Tensor:
    """state @ (residual · I + (1 - residual) · A), reading A by blocks of rows."""
    moved = torch.zeros_like(state)
    for index, block in _fused(site, fusion, discard):
        part = state[:, :, index]
        moved[:, :, index] += part * _kept(block, residual)
        moved += (1 - residual) * part @ block
    return moved


def _kept(block: Tensor, residual: float) -> Tensor:
    """What each row keeps of its own token, (batch, 1, r): `residual`, or all where it attends to nothing."""
    alive = (block.sum(-1) > 0).to(block.dtype)
    return (1 - (1 - residual) * alive)[:, None]


def _fused(site: Any, fusion: Fusion, discard: float) -> Iterator[tuple[Tensor, Tensor]]:
    """(query positions, fused rows that sum to 1 or are all 0) by blocks."""
    if fusion not in ("mean", "max", "min"):
        raise ValueError(f'fusion={fusion!r} is not known: choose "mean", "max" or "min".')
    _check_share("discard", discard, top=1.0, open_top=True)
    for numbers, block in site.blocks():
        rows = block.mean(1) if fusion == "mean" else getattr(block, f"a{fusion}")(dim=1)
        if discard:
            rows = drop_lowest(rows, discard)
        total = rows.sum(-1, keepdim=True)
        yield site.query_index.to(numbers.device)[numbers], rows / total.where(total > 0, 1.0)


def drop_lowest(rows: Float[Tensor, "*batch rows keys"], share: float) -> Float[Tensor, "*batch rows keys"]:
    """Rows whose floor(share · n) smallest of n non-zero weights are 0; not divided by the new sum."""
    order = rows.argsort(dim=-1, stable=True)
    seen = (rows > 0).sum(-1, keepdim=True)
    last = rows.shape[-1] - seen + (seen * share).floor().long()
    rank = torch.empty_like(order).scatter_(-1, order, torch.arange(rows.shape[-1]).to(order).expand_as(order))
    return rows.where(rank >= last, 0.0)


def layers(sites: Sequence[Any], *, start: int = 0) -> list[Any]:
    """The sites in the order they ran, checked to be square maps over the same tokens with all rows kept."""
    chain = sorted(sites, key=lambda site: site.index)
    if not 0 <= start < max(len(chain), 1):
        raise ValueError(f"start={start} leaves no layer of {len(chain)}: give a start from 0 to {len(chain) - 1}.")
    chain = chain[start:]
    if not chain:
        raise ValueError("No site to combine: record attention first, or widen `sites=`.")
    _one_pass(chain)
    for site in chain:
        check_complete(site)
        if site.kind == "cross" or site.queries != site.keys:
            raise ValueError(
                f"{site.name} is {site.kind} attention of {site.queries} queries to {site.keys} keys; "
                f"rollout multiplies square maps over one sequence. Leave it out with sites=..., or use "
                f"cross_rollout."
            )
    if len({(site.batch, site.queries) for site in chain}) > 1:
        told = ", ".join(f"{site.name}: {site.queries} tokens, batch {site.batch}" for site in _changes(chain))
        raise ValueError(
            f"These sites do not see the same tokens ({told}), so their maps cannot be multiplied (pooling between "
            f"stages, or two towers or models in one recording). Choose sites of one size: {_alike(chain)}."
        )
    return chain


def _one_pass(chain: Sequence[Any]) -> None:
    """Raise where the sites come from several runs of the model: their layers do not follow each other."""
    passes = getattr(getattr(chain[0], "recording", None), "passes", [])
    found = [i for i, sites in enumerate(passes) if any(site is other for site in chain for other in sites)]
    if len(found) > 1:
        raise ValueError(
            f"These sites come from {len(found)} runs of the model in one recording. Combine one, such as "
            f"seen.passes[{found[0]}]."
        )


def paired(
    encoder: Sequence[Any], decoder: Sequence[Any], cross: Sequence[Any]
) -> tuple[list[Any], list[tuple[Any, bool]]]:
    """Encoder sites, and (decoder or cross site, is it cross?), in running order, checked."""
    if not cross:
        raise ValueError("No cross-attention site given: use rollout for a single sequence.")
    first = layers(encoder) if encoder else []
    own = layers(decoder) if decoder else []
    _one_pass([*first, *own, *cross])
    for site in cross:
        check_complete(site)
        if site.keys != cross[0].keys or site.queries != cross[0].queries or site.batch != cross[0].batch:
            raise ValueError(
                f"{site.name} joins {site.queries} queries to {site.keys} keys, {cross[0].name} "
                f"{cross[0].queries} to {cross[0].keys}: give cross sites of one pass over one source."
            )
    if first and (first[0].queries, first[0].batch) != (cross[0].keys, cross[0].batch):
        raise ValueError(
            f"{cross[0].name} reads {cross[0].keys} source tokens (batch {cross[0].batch}), the encoder's "
            f"{first[0].name} makes {first[0].queries} (batch {first[0].batch}): they do not belong together."
        )
    if own and (own[0].queries, own[0].batch) != (cross[0].queries, cross[0].batch):
        raise ValueError(
            f"{cross[0].name} has {cross[0].queries} queries (batch {cross[0].batch}), the decoder's "
            f"{own[0].name} {own[0].queries} (batch {own[0].batch}): they do not belong together."
        )
    steps = [(site, False) for site in own] + [(site, True) for site in cross]
    return first, sorted(steps, key=lambda step: step[0].index)


def check_complete(site: Any) -> None:
    """Raise where a site keeps only some of its rows."""
    if site.rows != site.queries:
        raise ValueError(
            f"{site.name} kept {site.rows} of {site.queries} rows, but combining layers needs all of them. "
            f"Record with queries=None: it keeps q and k, O(N·d), not the N x N matrix."
        )


def starting_rows(site: Any, rows: Rows) -> Float[Tensor, "batch rows tokens"]:
    """One-hot rows of the identity for the chosen positions, on the site's device and in its precision."""
    _, block = next(iter(site.blocks(1)))
    chosen = chosen_rows(rows, site.queries).to(block.device)
    one_hot = block.new_zeros(len(chosen), site.queries)
    one_hot[torch.arange(len(chosen)), chosen] = 1
    return one_hot.expand(site.batch, -1, -1).clone()


def chosen_rows(rows: Rows, count: int) -> Int[Tensor, "rows"]:
    """Positions 0..count-1 that `rows` names; IndexError where one lies outside."""
    if rows is None:
        return torch.arange(count)
    chosen = torch.as_tensor(rows, dtype=torch.long).reshape(-1)
    if not len(chosen) or bool(((chosen < -count) | (chosen >= count)).any()):
        raise IndexError(f"rows={rows} does not name positions of a sequence of {count} tokens.")
    return chosen % count


def _changes(chain: list[Any]) -> list[Any]:
    kept = chain[:1]
    for site in chain:
        if (site.queries, site.batch) != (kept[-1].queries, kept[-1].batch):
            kept.append(site)
    return kept


def _alike(chain: list[Any]) -> str:
    """For each size that there is, a choice of the sites that see so many tokens, in the order in which they ran."""
    groups: dict[tuple[int, int], list[Any]] = {}
    for site in chain:
        groups.setdefault((site.queries, site.batch), []).append(site)
    return " or ".join(_of_size(alike, chain) for alike in groups.values())


def _of_size(alike: list[Any], chain: list[Any]) -> str:
    """These sites as a pattern, where one fits them and no other of the chain, else by their paths."""
    parts = alike[-1].path.split(".")
    number = max((i for i, part in enumerate(parts) if part.isdigit()), default=None)
    pattern = ".".join("*" if i == number else part for i, part in enumerate(parts))
    others = [site.path for site in chain if not any(site is one for one in alike)]
    fits = all(fnmatchcase(site.path, pattern) for site in alike)
    if fits and not any(fnmatchcase(path, pattern) for path in others):
        return f'sites="{pattern}" ({alike[-1].queries} tokens)'
    return "those of " + ", ".join(site.path for site in alike)


def _check_share(name: str, value: float, *, top: float, open_top: bool = False) -> None:
    if not 0 <= value <= top or (open_top and value == top):
        raise ValueError(f"{name}={value} must lie from 0 to {top:g}{' (not included)' if open_top else ''}.")
