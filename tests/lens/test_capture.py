"""Products of recorded calls become weights: many together as each by itself."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sightline.lens import capture
from sightline.lens.capture import Call, settle

HIDDEN = torch.ones(1, 1, 1, 6, dtype=torch.bool).tril()
HIDDEN[..., -2:] = False
ADDED = torch.randn(1, 1, 1, 6, generator=torch.Generator().manual_seed(1))
BLIND = torch.full((1, 1, 3, 6), float("-inf"))


def calls() -> list[Call]:
    """Sixteen calls: alike in twos and threes, apart in one thing or another, one too large to be put together."""
    random = torch.Generator().manual_seed(0)
    rows = [0, 2, 5]
    kinds: list[dict[str, Any]] = [{}, {}, {}]  # one group
    kinds += [{"scale": 0.5}, {"scale": 0.5}, {"scale": 2.0}]
    kinds += [{"mask": HIDDEN}, {"mask": HIDDEN}, {"mask": ADDED}, {"mask": ADDED}, {"mask": BLIND}]
    kinds += [{"causal": True}, {"causal": True, "rows": [1, 2, 3]}, {"causal": True}]
    kinds += [{"batch": 2}, {"batch": 300}]
    made = []
    for kind in kinds:
        batch = kind.get("batch", 1)
        known = {"rows": rows, "scale": 0.3} | {name: value for name, value in kind.items() if name != "batch"}
        weights = torch.randn(batch, 4, 3, 6, generator=random)
        place = {"source": "sdpa", "path": "", "hint": "", "frame": 0, "place": (0,)}
        made.append(Call(**place, batch=batch, heads=4, queries=6, keys=6, weights=weights, **known))
    return made


@pytest.fixture
def softmaxes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes whose softmax was taken."""
    taken: list[tuple[int, ...]] = []
    compute: Callable[..., torch.Tensor] = capture._weights

    def watched(scores: torch.Tensor, *given: Any) -> torch.Tensor:
        taken.append(tuple(scores.shape))
        return compute(scores, *given)

    monkeypatch.setattr(capture, "_weights", watched)
    return taken


def test_calls_settled_together_are_calls_settled_singly(
    softmaxes: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "_SMALL", 2**12)
    single, together = calls(), calls()
    for call in single:
        call.settle()
    assert len(softmaxes) == 16
    softmaxes.clear()
    settle(together)
    assert sorted(len(shape) for shape in softmaxes) == [4] * 5 + [5] * 5  # five alone, five groups
    assert sum(shape[0] for shape in softmaxes if len(shape) == 5) == 11
    for one, other in zip(single, together, strict=True):
        assert one.weights is not None
        assert other.weights is not None
        torch.testing.assert_close(other.weights, one.weights, rtol=0, atol=1e-6)
        assert other.mask is None
    assert (together[10].weights == 0).all()  # rows that may attend nowhere, not NaN
    assert (together[11].weights[:, :, 0, 1:] == 0).all()


def test_alike_but_large_calls_are_settled_one_by_one(
    softmaxes: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "_SMALL", 71)
    settle(calls()[:3])  # of 72 numbers
    assert softmaxes == [(1, 4, 3, 6)] * 3
