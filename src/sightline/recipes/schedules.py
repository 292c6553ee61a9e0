"""Values that follow the step of a run."""

import math


def cosine(start: float, end: float, step: int, steps: int, *, warm: int = 0) -> float:
    """Computes end + (start - end) (1 + cos(π t)) / 2, t going from 0 to just below 1 over the steps after `warm`.

    Over the first `warm` steps the value grows evenly from 0 to `start` (DINO's cosine_scheduler).
    """
    if step < warm:
        return start * step / max(1, warm - 1)
    past = min(1.0, (step - warm) / max(1, steps - warm))
    return end + (start - end) * (1 + math.cos(math.pi * past)) / 2


def climb_and_fall(step: int, steps: int, *, warm: int) -> float:
    """Gives the share of the highest rate: linear up to 1 over the first `warm` steps, then a cosine down to 0."""
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def ramp(start: float, end: float, step: int, warm: int) -> float:
    """Goes evenly from `start` to `end`, which step `warm - 1` reaches, and stays there (DINO's temperature)."""
    return start + (end - start) * (min(1.0, step / (warm - 1)) if warm > 1 else 1.0)
