"""Labels that are not quite sure: Szegedy et al. 2016 (arXiv 1512.00567), section 7; Vaswani et al. 2017, section 5.4.

Two readings are in use. `smoothed_cross_entropy` spreads the share over all words, the right one included, as
tensor2tensor and torch do; `smoothed_divergence` over all but the right one and padding, as the Annotated Transformer
does, and counts from the least value that can be reached, so that a perfect answer costs nothing.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def smoothed_cross_entropy(
    logits: Float[Tensor, "rows words"], wanted: Int[Tensor, " rows"], *, smoothing: float = 0.1, ignore: int = 0
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Computes (-(1 - s) log p(wanted) - s mean_w log p(w), and -log p(wanted) alone), each averaged over rows.

    Rows whose wanted word is `ignore` do not count; half-precision logits are widened first. Raises ValueError for a
    smoothing outside [0, 1).
    """
    _check(smoothing)
    wide = logits if logits.dtype == torch.float64 else logits.float()
    log_probs, counts = wide.log_softmax(dim=1), wanted != ignore
    plain = F.nll_loss(log_probs, wanted, ignore_index=ignore)
    if smoothing == 0:
        return plain, plain
    spread = log_probs.mean(dim=1).where(counts, 0.0).sum() / counts.sum()
    return (1 - smoothing) * plain - smoothing * spread, plain


def smoothed_divergence(
    log_probs: Float[Tensor, "rows words"], wanted: Int[Tensor, " rows"], *, smoothing: float = 0.1, pad: int = 0
) -> Float[Tensor, ""]:
    """Computes sum_rows KL(q || p), q = 1 - s at the wanted word, s / (words - 2) at all others, 0 at `pad`.

    Rows whose wanted word is `pad` count nothing. Divide by the number of words for the loss of a word. Raises
    ValueError for a smoothing outside [0, 1) and for fewer than three words.
    """
    _check(smoothing)
    words = log_probs.shape[1]
    if words < 3:
        raise ValueError(f"the Annotated Transformer's smoothing needs three words or more, given {words}")
    share, counts = smoothing / (words - 2), wanted != pad
    right = log_probs.gather(1, wanted[:, None])[:, 0]
    others = log_probs.sum(dim=1) - right - log_probs[:, pad]
    known = (1 - smoothing) * math.log(1 - smoothing) + (smoothing * math.log(share) if share else 0.0)
    cost = known - (1 - smoothing) * right - (share * others if share else 0.0)
    return cost.where(counts, 0.0).sum()


def _check(smoothing: float) -> None:
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing is a share in [0, 1), given {smoothing}")
