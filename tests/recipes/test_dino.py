"""The recipe of DINO: views, what moves at which step, and that a tiny run learns."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sightline.recipes import dino
from sightline.recipes.backbone import build
from sightline.recipes.banks import open_data
from sightline.recipes.train import evaluate, train
from sightline.recipes.views import View, Views
from sightline.systems.resnet import ResNet
from sightline.systems.vit import VisionTransformer

SMALL: dict[str, Any] = {"image_size": 16, "patch": 8, "dim": 24, "depth": 1, "heads": 3}


def recipe(**settings: Any) -> dino.Recipe:
    torch.manual_seed(0)
    given = {"steps": 20, "batch": 4, "prototypes": 16, "hidden": 16, "bottleneck": 8, "crops": 3, **settings}
    return dino.Recipe(build(None, **SMALL), dino.Settings(**given), None)


def test_views_are_in_range_of_their_sizes_and_follow_the_seed() -> None:
    images = torch.rand(4, 3, 32, 32)
    cut = Views(views=[View(24, (0.3, 1.0), blur=1.0), View(12, (0.05, 0.3), count=3, solarise=0.5, strong=True)])
    torch.manual_seed(3)
    first = cut(images)
    assert [tuple(view.shape) for view in first] == [(4, 3, 24, 24)] + [(4, 3, 12, 12)] * 3
    assert all(float(view.min()) >= 0 and float(view.max()) <= 1 for view in first)
    torch.manual_seed(3)
    for one, other in zip(first, cut(images), strict=True):
        torch.testing.assert_close(one, other)
    assert (first[1] - first[2]).abs().mean() > 0.01


def test_a_view_with_nothing_random_is_the_picture() -> None:
    images = torch.rand(3, 3, 16, 16)
    views = Views(views=[View(16, (1.0, 1.0), colour=0.0, grey=0.0, blur=0.0)])
    for seed in range(20):
        torch.manual_seed(seed)
        (cut,) = views(images[:1])
        if any((cut - one).abs().max() < 1e-3 for one in (images[:1], images[:1].flip(3))):
            return
    pytest.fail("a crop of the whole picture, mirrored or not, is never the picture")


def test_step_by_step() -> None:
    made = recipe(frozen=0.2, momentum=0.9)
    images = {"images": torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)}
    loss = made.train().training_step(images, 0)
    loss.backward()
    head = made.method.student.head.last
    assert head.direction.grad is not None
    for parameter in made.method.student.backbone.parameters():
        parameter.grad.mul_(1e6)
    made.configure_gradient_clipping(None)
    assert head.direction.grad is None
    norms = [float(p.grad.norm()) for p in made.method.student.backbone.parameters()]
    assert max(norms) < 3.01
    assert sum(norm > 2.9 for norm in norms) > 3  # each by itself
    before = made.kept.class_token.clone()
    with torch.no_grad():
        made.method.student.backbone.class_token.add_(1.0)
    made.moved(0)
    torch.testing.assert_close(made.kept.class_token, before + 0.1)
    made.moved(20)
    torch.testing.assert_close(made.kept.class_token, before + 0.1)  # at the end it stays


def test_the_backbone_is_kept_and_teachers_do_not_learn_by_gradient() -> None:
    made = recipe()
    assert made.kept is made.method.teacher.backbone
    learned = {id(p) for group in made.configure_optimizers().param_groups for p in group["params"]}
    assert not learned & {id(p) for p in made.method.teacher.parameters()}
    decayed = {id(p) for p in made.configure_optimizers().param_groups[0]["params"]}
    names = {name for name, p in made.method.student.named_parameters() if id(p) in decayed}
    assert not any("bias" in name or "norm" in name or "class_token" in name for name in names)


def test_either_backbone_is_built() -> None:
    assert isinstance(build(None, **SMALL), VisionTransformer)
    network = build(None, blocks=(1, 1, 1, 1), width=8)
    assert isinstance(network, ResNet)
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 64)


@pytest.mark.timeout(180)
def test_a_tiny_run_learns_and_is_measured_again(tints: str, tmp_path: Path) -> None:
    random = train("supervised", tints, tiny=True, out=tmp_path / "random", steps=1, rate=0.0)
    folder = train("dino", tints, tiny=True, out=tmp_path / "run")
    figures = evaluate(folder / "weights", tints)
    at_random = evaluate(random / "weights", tints)
    assert figures["parts"][0]["chance"] == pytest.approx(1 / 3)
    assert figures["knn"] > at_random["knn"] + 0.05, (figures, at_random)
    assert (folder / "samples.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="split val"):
        evaluate(folder / "weights", tints, split="train")
    assert len(open_data(tints, "val").banks()[0]) == 240
