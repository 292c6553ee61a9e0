"""Does a metric agree with people?  Kendall's rank correlation, as captions' metrics are judged by it."""

from collections.abc import Sequence

import numpy as np


def kendall(
    scores: Sequence[float | int] | np.ndarray, ratings: Sequence[float | int] | np.ndarray, *, variant: str = "b"
) -> float:
    """Kendall's τ between two rankings with ties, from -1 to 1.

    With C pairs in the same order and D in the opposite one: τ_b = (C - D) / √((n₀ - n₁)(n₀ - n₂)), where n₀ is the
    number of pairs and n₁, n₂ those tied in one ranking; τ_c = 2 m (C - D) / (n² (m - 1)), m the smaller number of
    different values.  Time O(k² n log n), k that smaller number: meant for ratings in a few steps.  Flickr8k-Expert is
    published with "c", Flickr8k-CF with "b".

    Raises ValueError for lengths that differ, another variant, values that are no numbers, or a ranking all tied.
    """
    first, second = np.asarray(scores, dtype=np.float64), np.asarray(ratings, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"{first.shape} scores and {second.shape} ratings; expected two rows of the same length")
    if variant not in ("b", "c"):
        raise ValueError(f"variant must be 'b' or 'c', given {variant!r}")
    if not np.isfinite(first).all() or not np.isfinite(second).all():
        raise ValueError("scores and ratings must be finite numbers")
    ties = [np.unique(one, return_counts=True)[1] for one in (first, second)]
    fewer = min(len(counts) for counts in ties)
    if fewer < 2:
        raise ValueError("every pair is tied in one of the rankings; a correlation needs two different values in each")
    if len(ties[0]) < len(ties[1]):
        first, second = second, first
    difference = _agreements(first, second)
    size = len(first)
    if variant == "c":
        return 2 * fewer * difference / (size**2 * (fewer - 1))
    pairs = size * (size - 1) // 2
    untied = [pairs - int((counts * (counts - 1) // 2).sum()) for counts in ties]
    return difference / float(np.sqrt(float(untied[0]) * float(untied[1])))


def _agreements(values: np.ndarray, levels: np.ndarray) -> int:
    """C - D, level against level: how often a value of the higher level exceeds one of the lower, less the opposite."""
    by_level = [np.sort(values[levels == level]) for level in np.unique(levels)]
    total = 0
    for place, low in enumerate(by_level):
        for high in by_level[place + 1 :]:
            below = np.searchsorted(low, high, "left").sum()
            above = len(low) * len(high) - np.searchsorted(low, high, "right").sum()
            total += int(below - above)
    return total
