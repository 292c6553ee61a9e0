"""Sampled decoding: tokens drawn from the model's distribution, sharpened or cut.

Top-k: Fan et al. 2018 (arXiv 1805.04833). Top-p, "nucleus": Holtzman et al. 2020 (arXiv 1904.09751).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.decoding.step import Decoded, State, Step, block, check_search, device_of, rows_of


@torch.no_grad()
def sample(
    step: Step,
    state: State,
    *,
    start: int,
    end: int,
    max_length: int = 50,
    blocked: Sequence[int] = (),
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    batch: int | None = None,
) -> Decoded:
    """Draws one sequence for each row of `state`.

    Tokens come from softmax(log-probabilities / `temperature`), of which the `top_k` likeliest (0: all), then the
    fewest whose probability reaches `top_p`, are left. Scores are sums of the log-probabilities of the distribution
    that was drawn from, as a policy gradient needs them. The rest is as in `greedy`. Raises ValueError for a
    temperature not above 0, `top_k` below 0 and `top_p` outside (0, 1].
    """
    check_search(max_length, end, blocked)
    if temperature <= 0 or top_k < 0 or not 0 < top_p <= 1:
        raise ValueError(
            f"sampling needs temperature > 0, top_k >= 0 and 0 < top_p <= 1, given {temperature=}, {top_k=}, {top_p=}; "
            "for the likeliest token use greedy()"
        )
    rows, device = batch or rows_of(state), device_of(state)
    last = torch.full((rows,), start, device=device)
    scores = torch.zeros(rows, device=device)
    lengths = torch.zeros(rows, dtype=torch.long, device=device)
    running = torch.ones(rows, dtype=torch.bool, device=device)
    tokens = []
    for _ in range(max_length):
        log_probs, state = step(last, state)
        chances = narrow(block(log_probs, blocked), temperature=temperature, top_k=top_k, top_p=top_p)
        drawn = torch.multinomial(chances.exp(), 1, generator=generator)
        last = drawn.squeeze(1).where(running, end)
        scores = scores + chances.gather(1, drawn).squeeze(1).where(running, 0.0)
        lengths = lengths + running.long()
        tokens.append(last)
        running = running & (last != end)
        if not running.any():
            break
    return Decoded(torch.stack(tokens, dim=1), lengths, scores, end)


def narrow(
    log_probs: Float[Tensor, "rows vocabulary"], *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Float[Tensor, "rows vocabulary"]:
    """Gives the log-probabilities after temperature, top-k and top-p; what was cut is -inf, the rest sums to 1."""
    scaled = (log_probs / temperature).log_softmax(dim=1)
    if 0 < top_k < scaled.shape[1]:
        kept = scaled.topk(top_k, dim=1)  # exactly k, also where several tie for the last place
        scaled = torch.full_like(scaled, float("-inf")).scatter(1, kept.indices, kept.values).log_softmax(dim=1)
    if top_p < 1:
        ordered, places = scaled.sort(dim=1, descending=True)
        chances = ordered.exp()
        before = chances.cumsum(dim=1) - chances  # what the likelier ones hold: the first token is always kept
        ordered = ordered.masked_fill(before >= top_p, float("-inf"))
        scaled = torch.empty_like(scaled).scatter(1, places, ordered).log_softmax(dim=1)
    return scaled
