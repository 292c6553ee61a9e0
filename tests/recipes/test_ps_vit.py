"""The recipe of PS-ViT and its controls: a tiny run learns, controls keep their points, shares are counted right."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.recipes import placed_digits, ps_vit, ps_vit_control
from sightline.recipes.train import evaluate, train


def test_a_tiny_run_learns_and_its_points_go_to_the_signs(placed_spec: str, tmp_path: Path) -> None:
    run = train("ps_vit", placed_spec, out=tmp_path / "run", tiny=True)
    card = json.loads((run / "weights" / "card.json").read_text("utf-8"))
    found = card["measured"]
    assert found["top1"] > 0.7  # chance: 0.33
    assert found["blind"] < 0.5
    assert len(found["box"]) == len(found["ink"]) == 3
    assert found["box"][2] > 1.2 * found["box"][0]  # the share of points on the signs: 0.157 of 0.121 when written
    assert card["image_size"] == 40
    assert evaluate(run / "weights", placed_spec) == found
    with Image.open(run / "samples.png") as picture:
        assert picture.width > 1000


@pytest.mark.parametrize("kind", ["grid", "random"])
def test_controls_are_trained_alike_and_keep_their_points(placed_spec: str, tmp_path: Path, kind: str) -> None:
    run = train("ps_vit_control", placed_spec, out=tmp_path / "run", tiny=True, steps=25, kind=kind)
    found = json.loads((run / "metrics.json").read_text("utf-8"))
    box = found["measured"]["box"]
    data = placed_digits.open_data(placed_spec, "train")
    same = sum(parameter.numel() for parameter in ps_vit.build(data, **ps_vit.TINY_SYSTEM).parameters())
    assert found["parameters"] == same
    assert (box[0] == box[1] == box[2]) is (kind == "grid")
    assert evaluate(run / "weights", placed_spec) == found["measured"]


def test_labelled_photographs_are_learned_from_too(patterns: Path, tmp_path: Path) -> None:
    run = train("ps_vit", f"folder:{patterns}", out=tmp_path / "run", tiny=True, steps=60)
    card = json.loads((run / "weights" / "card.json").read_text("utf-8"))
    assert card["measured"]["top1"] > 0.6  # chance: 0.33
    assert card["classes"] == ["across", "disc", "down"]
    assert evaluate(run / "weights", f"folder:{patterns}") == card["measured"]


def test_random_points_move_as_far_as_told_and_the_grid_never() -> None:
    images = torch.randn(64, 3, 64, 64)
    torch.manual_seed(0)
    system = ps_vit_control.Control(kind="random", spread=0.25, dim=16, heads=2, depth=4, stem=(4, 4, 8, 4))
    points = system.read(images).points
    steps = points[:, 1:] - points[:, :-1]
    assert steps.std().item() == pytest.approx(0.25 * 16 / 4, rel=0.03)
    assert system.grid == (4, 4)
    with pytest.raises(ValueError, match="grid or random, and spread 0 or more, given 'still'"):
        ps_vit_control.Control(kind="still")


def test_share_inside_counts_points_on_the_masks() -> None:
    masks = torch.zeros(2, 10, 20, dtype=torch.bool)
    masks[0, 0:5, 10:20] = True
    points = torch.tensor([[0.55, 0.1], [0.99, 0.49], [0.45, 0.1], [0.6, 1.2]]).expand(2, 3, 4, 2).clone()
    points[0, 2] = torch.tensor([0.75, 0.25])
    share = placed_digits.share_inside(points, masks)
    assert share.tolist() == [0.25, 0.25, 0.5]  # the second picture has no mask


def test_the_same_step_sees_the_same_pictures(placed_spec: str) -> None:
    data = placed_digits.open_data(placed_spec, "train")
    recipe = ps_vit.Recipe(ps_vit.build(data, **ps_vit.TINY_SYSTEM), ps_vit.Settings(), data)
    batch = placed_digits.read_batch(data, np.arange(8), recipe)
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(recipe.training_step(batch, 0).item())
    assert losses[0] == losses[1] != losses[2]


def test_the_side_is_that_of_the_pictures(placed_spec: str) -> None:
    data = placed_digits.open_data(placed_spec, "val")
    assert ps_vit.build(data).image_size == 40
    with pytest.raises(ValueError, match="image_size=64: the data's pictures have 40 pixels"):
        ps_vit.build(data, image_size=64)
