"""Attention weighted by what the answer gains from it (Chefer, Gur & Wolf, CVPR and ICCV 2021).

The gradient of the score with respect to a weight needs no N x N graph: O = A V, so dL/dA = (dL/dO) Vᵀ, row
by row.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.lens.rollout import CrossRollout, Rows, chosen_rows, layers, paired, starting_rows


def raw_gradient(site: Any, score: Tensor) -> Float[Tensor, "batch rows keys"]:
    """Mean over heads of dL/dA at one site, signed: which weights would raise the score if they grew.

    score   scalar or one number per image, from the pass that was recorded with gradients=True.
    Raises ValueError where gradients were not recorded or the score does not depend on the site.
    """
    return _streamed(site, score, weighted=False)


def grad_weighted(site: Any, score: Tensor) -> Float[Tensor, "batch rows keys"]:
    """Gradient-weighted attention of one site: Ā = E_h[(∇A ⊙ A)⁺] (Chefer et al., ICCV 2021, eq. 5).

    Not normalised: a row that did nothing for the score is 0.  Dividing each row by its sum would hide that.

    score   scalar or one number per image (such as `logits[:, 285]`), from the pass recorded with
            gradients=True.

    Trap: only rows on the way to the score have a gradient; in a ViT's last block that is the class row.
    Raises ValueError where gradients were not recorded or the score does not depend on the site.
    """
    return _streamed(site, score, weighted=True)


def grad_rollout(
    sites: Sequence[Any], score: Tensor, *, rows: Rows = None, start: int = 0, identity: bool = True
) -> Float[Tensor, "batch rows tokens"]:
    """Gradient rollout: relevance of each input token for `rows`, R <- R + Ā_l R over layers from R = I.

    R = (I + Ā_L) ··· (I + Ā_1) with Ā_l = E_h[(∇A_l ⊙ A_l)⁺] (Chefer et al., ICCV 2021, eq. 5-6, on attention
    weights), computed as row · (I + Ā_L) ··· (I + Ā_1), so nothing of size N x N is held for a few rows.
    Each layer's weights meet that same layer's gradient; layers run in the order in which they were recorded.

    rows, start   as in `rollout`.
    identity      False takes the starting I away again (R - I), which leaves a token's relevance for itself
                  comparable to that for others.
    Raises ValueError as `rollout` does, and where gradients were not recorded or reach no site.
    """
    chain = layers(sites, start=start)
    total = _one_number(score)
    state = starting_rows(chain[0], rows)
    gained = _gain(state, chain, total)
    return state + gained if identity else gained


def grad_cross_rollout(
    encoder: Sequence[Any], decoder: Sequence[Any], cross: Sequence[Any], score: Tensor, *, rows: Rows = None
) -> CrossRollout:
    """Relevance of source and target tokens in an encoder-decoder (Chefer et al., ICCV 2021, eq. 5-10).

    R_ss = grad_rollout(encoder); R_tt = I and R_ts = 0 at the start; then, in the decoder's running order,
        self-attention     R_tt <- R_tt + Ā R_tt        R_ts <- R_ts + Ā R_ts          (eq. 6, 7)
        cross-attention    R_ts <- R_ts + R̄_ttᵀ Ā R̄_ss                              (eq. 10)
    where R̄ = I + (R - I) with each row divided by its sum (eq. 8, 9; a zero row stays zero).  The transpose
    is the paper's.  T x T and T x S are held (the decoder is short), S x S never: R̄_ss is applied to the
    chosen rows.

    `encoder` and `decoder` may be empty, `cross` may not.  Raises ValueError as `cross_rollout` does.
    """
    encoder, steps = paired(encoder, decoder, cross)
    total = _one_number(score)
    eye = starting_rows(cross[0], None)
    own = torch.zeros_like(eye)  # R_tt - I: the gain alone, far smaller than 1, keeps its digits
    source = eye.new_zeros(*eye.shape[:2], cross[0].keys)  # R_ts before R̄_ss, which is linear in it
    for site, crosses in steps:
        if crosses:
            mixed = eye + _by_sum(own, own.sum(-1, keepdim=True))
            for index, block in _relevance(site, total):
                source += mixed[:, index].transpose(1, 2) @ block
        else:
            own = own + _onto(site, total, eye + own)
            source = source + _onto(site, total, source)
    chosen = chosen_rows(rows, cross[0].queries).to(eye.device)
    reached = _normalised_product(source[:, chosen], encoder, total)
    return CrossRollout(source=reached, target=(eye + own)[:, chosen])


def _one_number(score: Tensor) -> Tensor:
    """The sum over images: one backward pass serves a batch of independent images."""
    if score.ndim > 1:
        raise ValueError(
            f"score has shape {tuple(score.shape)}; give a scalar or one number per image, such as logits[:, label]."
        )
    if not score.requires_grad:
        raise ValueError(
            "score carries no gradient: run the recorded pass without torch.no_grad, and compute score from its "
            "output without detach()."
        )
    return score if score.ndim == 0 else score.sum()


def _streamed(site: Any, score: Tensor, *, weighted: bool) -> Tensor:
    total = _one_number(score)
    parts = []
    for (_, slope), (_, block) in zip(site.gradient_blocks(total), site.blocks(), strict=True):
        parts.append((slope * block).detach().clamp(min=0).mean(1) if weighted else slope.detach().mean(1))
    return torch.cat(parts, dim=1).to(block.dtype)


def _relevance(site: Any, score: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(query positions, rows of Ā = E_h[(∇A ⊙ A)⁺]) by blocks."""
    for (numbers, slope), (_, block) in zip(site.gradient_blocks(score), site.blocks(), strict=True):
        relevance = (slope * block).detach().clamp(min=0).mean(1).to(block.dtype)
        yield site.query_index.to(numbers.device)[numbers], relevance


def _gain(state: Tensor, chain: Sequence[Any], score: Tensor) -> Tensor:
    """state @ (R - I), last layer first; without `state`, so that a small gain keeps its digits."""
    gained = torch.zeros_like(state)
    for site in reversed(chain):
        arriving, leaving = state + gained, gained.clone()
        for index, block in _relevance(site, score):
            leaving += arriving[:, :, index] @ block
        gained = leaving
    return gained


def _onto(site: Any, score: Tensor, state: Tensor) -> Tensor:
    """Ā @ state."""
    moved = torch.zeros_like(state)
    for index, block in _relevance(site, score):
        moved[:, index] = block @ state
    return moved


def _normalised_product(state: Tensor, encoder: Sequence[Any], score: Tensor) -> Tensor:
    """state @ R̄_ss without R_ss: its row sums are (R_ss - I) · 1, and the rest is a rollout of few rows."""
    ones = state.new_ones(state.shape[0], state.shape[-1], 1)
    sums = torch.zeros_like(ones)
    for site in encoder:
        sums = sums + _onto(site, score, ones + sums)
    return state + _gain(_by_sum(state, sums.transpose(1, 2)), encoder, score)


def _by_sum(numerator: Tensor, total: Tensor) -> Tensor:
    """numerator / total, 0 where the total is 0: such a row gained nothing."""
    return torch.where(total > 0, numerator / total.where(total > 0, 1.0), 0.0)
