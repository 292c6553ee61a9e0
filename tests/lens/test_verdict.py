"""Mask effect and curves in one call, on a model whose only evidence is known."""

import pytest
import torch
from torch import Tensor, nn

from sightline.lens.check import deletion_insertion, mask_effect
from sightline.lens.verdict import Check, check


class Corner(nn.Module):
    """Says class 1 the surer, the brighter the top left quarter is; looks at nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.seen_training: list[bool] = []

    def forward(self, pixels: Tensor) -> Tensor:
        self.seen_training.append(self.training)
        lit = pixels[:, :, :8, :8].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(lit), 6 * lit - 2], dim=1)


def bright_corner(size: int = 24) -> Tensor:
    picture = torch.zeros(1, 3, size, size)
    picture[:, :, :8, :8] = 1
    return picture


def heat_at(row: int, column: int) -> Tensor:
    heat = torch.full((6, 6), 1e-4)
    heat[row : row + 2, column : column + 2] = 1
    return heat


def test_the_right_place_matters_and_another_does_not() -> None:
    right = check(Corner().eval(), bright_corner(), heat_at(0, 0), fill="zero", seeds=6)
    assert float(right.effect.drop) > 0.3  # the region holds 0.6 of the map, so a part of the evidence stays
    assert "lowers the score" in right.verdict or "as much as a random one" in right.verdict
    assert "no more than removing a random one" not in right.verdict
    wrong = check(Corner().eval(), bright_corner(), heat_at(4, 4), fill="zero", seeds=6)
    assert "does not lower the score" in wrong.verdict
    assert float(right.curves.auc("deletion")) < float(wrong.curves.auc("deletion"))
    assert float(right.curves.auc("insertion")) > float(wrong.curves.auc("insertion"))
    assert right.verdict in right.summary()
    assert "probability of class 1" in right.summary()


def test_both_parts_are_what_they_are_alone() -> None:
    model, pixels, heat = Corner().eval(), bright_corner(), heat_at(0, 1)
    both = check(model, pixels, heat, steps=5, seeds=3, fill="mean", seed=4)
    effect = mask_effect(model, pixels, heat, seeds=3, fill="mean", seed=4)
    curves = deletion_insertion(model, pixels, heat, steps=5, seeds=3, fill="mean", seed=4)
    for name in ("whole", "empty", "without", "only", "random_without", "centre_only", "region"):
        assert torch.equal(getattr(both.effect, name), getattr(effect, name))
    for name in ("fractions", "deletion", "insertion", "random_deletion", "centre_insertion"):
        assert torch.equal(getattr(both.curves, name), getattr(curves, name))


def test_page_curves_are_the_curves() -> None:
    found = check(Corner().eval(), bright_corner(), heat_at(0, 0), steps=4, seeds=3)
    drawn = {(curve.group, curve.name): curve for curve in found.page_curves()}
    assert len(drawn) == 6
    for group in ("deletion", "insertion"):
        own = drawn[group, "this map"]
        assert own.scores == getattr(found.curves, group)[0].tolist()
        assert own.fractions == [0, 0.25, 0.5, 0.75, 1]
        assert own.auc == pytest.approx(float(torch.trapezoid(torch.tensor(own.scores), dx=0.25)), abs=1e-6)
        chance = drawn[group, "random places"]
        assert chance.scores == pytest.approx(getattr(found.curves, f"random_{group}")[0].mean(0).tolist())
        assert drawn[group, "centre"].scores == getattr(found.curves, f"centre_{group}")[0].tolist()
    assert drawn["deletion", "this map"].scores[0] == pytest.approx(float(found.effect.whole))
    assert drawn["insertion", "this map"].scores[-1] == pytest.approx(float(found.effect.whole))


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_asked_in_eval_mode_and_left_as_it_was(training: bool) -> None:
    model = Corner().train(training)
    check(model, bright_corner(), heat_at(0, 0), steps=2, seeds=2)
    assert not any(model.seen_training)
    assert model.training is training
    with pytest.raises(ValueError, match="same everywhere"):
        check(model, bright_corner(), torch.ones(6, 6))
    assert model.training is training


def test_choices_reach_both_and_wrong_ones_are_refused() -> None:
    model = Corner().eval()
    found = check(model, bright_corner(), heat_at(0, 0), steps=3, seeds=2, score=lambda out: out[:, 1])
    assert isinstance(found, Check)
    assert found.effect.measure == found.curves.measure == "score"
    assert found.effect.random_without.shape == (1, 2)
    assert found.curves.random_deletion.shape == (1, 2, 4)
    for choice, message in (
        ({"seeds": 1}, "2 or more"), ({"steps": 1}, "2 or more"), ({"fill": "green"}, "not known"),
        ({"score": "loudness"}, "not known"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            check(model, bright_corner(), heat_at(0, 0), **choice)
    with pytest.raises(ValueError, match="NaN"):
        check(model, bright_corner(), torch.full((6, 6), torch.nan))
