"""Squares of pictures that stay in memory: read once, of one side at a time, and not kept beyond `MOST`."""

from typing import Any

import numpy as np
import pytest
import torch

from sightline.data.pixels import to_square
from sightline.recipes import banks
from sightline.recipes.banks import Squares


class Drawn:
    """Pictures of noise that count how often they are read."""

    classes = ("a", "b")

    def __init__(self) -> None:
        self.labels, self.read = np.arange(5) % 2, [0] * 5

    def __len__(self) -> int:
        return 5

    def image(self, index: int) -> np.ndarray:
        self.read[index] += 1
        return np.random.default_rng(index).integers(0, 256, (20, 30, 3)).astype(np.uint8)


def squares_of(indices: list[int], side: int) -> torch.Tensor:
    return torch.stack([to_square(Drawn().image(index), side) for index in indices])


def test_squares_are_read_once_until_another_side_is_asked_for() -> None:
    data: Any = Drawn()
    kept = Squares(data)
    for indices in ([3, 0, 3], [0, 4]):
        assert torch.equal(kept.squares(np.array(indices), 8), squares_of(indices, 8))
    assert data.read == [1, 0, 0, 1, 1]
    assert torch.equal(kept.squares(np.array([4]), 12), squares_of([4], 12))
    assert data.read == [1, 0, 0, 1, 2]


def test_what_is_too_much_is_read_again_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(banks, "MOST", 5 * 3 * 8 * 8)
    data: Any = Drawn()
    kept = Squares(data)
    for _ in range(2):
        assert torch.equal(kept.squares(np.array([1, 2]), 9), squares_of([1, 2], 9))
    assert data.read == [0, 2, 2, 0, 0]
    for _ in range(2):
        kept.squares(np.array([1, 2]), 8)
    assert data.read == [0, 3, 3, 0, 0]
