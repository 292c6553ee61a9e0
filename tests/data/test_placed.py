"""Digits on photographs: they stand out where they are said to be, the grounds of a split are its own."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.data.placed import DIM, LIGHT, Placed, boxes_of, open_placed


def test_digits_lie_where_the_layout_says_and_stand_out(placed_spec: str) -> None:
    data = open_placed(placed_spec, "val")
    chosen = torch.arange(24)
    layout, digits = data.layout.take(chosen), data.digits[chosen]
    pictures, bare, ink = data.pictures(digits, layout), data.bare(layout), data.ink(digits, layout)
    assert pictures.shape == (24, 3, 40, 40)
    for picture, ground, digit, mask, (top, left) in zip(
        pictures, bare, digits, ink, layout.corner.tolist(), strict=True
    ):
        inside = torch.zeros(40, 40, dtype=torch.bool)
        inside[top : top + 28, left : left + 28] = True
        assert torch.equal(picture[:, ~inside], ground[:, ~inside])
        assert mask.sum() == (digit > 76).sum()
        assert not mask[~inside].any()
        full = picture[:, top : top + 28, left : left + 28][:, digit == 255].float() / 255
        assert full.std(dim=1).max() < 0.01  # one colour
        assert full.min() >= LIGHT - 0.01
        assert ground.max() <= 255 * DIM


def test_boxes_hold_the_ink_and_nothing_more() -> None:
    masks = torch.zeros(2, 6, 7, dtype=torch.bool)
    masks[0, 1, 2] = masks[0, 4, 5] = masks[1, 0, 0] = True
    boxes = boxes_of(masks)
    assert boxes[0].nonzero().min(dim=0).values.tolist() == [1, 2]
    assert boxes[0].nonzero().max(dim=0).values.tolist() == [4, 5]
    assert boxes[0].sum() == 16
    assert boxes[1].sum() == 1


def test_held_out_pictures_are_fixed_and_training_ones_are_not(placed_spec: str) -> None:
    first, second = open_placed(placed_spec, "val"), open_placed(placed_spec, "val")
    layouts = zip(first.layout, second.layout, strict=True)
    assert all(torch.equal(one, other) for one, other in layouts)
    train = open_placed(placed_spec, "train")
    assert train.layout is None
    torch.manual_seed(0)
    one, other = train.draw(5), train.draw(5)
    assert not torch.equal(one.corner, other.corner)


def test_grounds_of_a_split_are_its_own(placed_spec: str) -> None:
    train, held = open_placed(placed_spec, "train"), open_placed(placed_spec, "val")
    assert (len(train.grounds), len(held.grounds)) == (8, 2)
    for ground in held.grounds:
        assert not any(torch.equal(ground, other) for other in train.grounds)


def test_digits_reach_every_place(placed_spec: str) -> None:
    corners = open_placed(placed_spec, "train").draw(2000).corner
    assert corners.min() == 0
    assert corners.max() == 12


def test_bad_specs_are_named(placed_spec: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected placed64:ITEMS"):
        open_placed("placed64:mnist", "train")
    items = placed_spec.split(":", 1)[1].split("+")[0]
    with pytest.raises(ValueError, match="no room for a digit of 28"):
        open_placed(placed_spec.replace("placed40", "placed20"), "train")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "one.png")
    with pytest.raises(ValueError, match="1 photographs; at least five"):
        Placed(40, items, tmp_path, "train")
