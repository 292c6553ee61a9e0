"""PS-ViT: equal to the published implementation at every look, points that move only as told, published sizes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import sightline
from sightline.attention.progressive import grid_points, sample
from sightline.checkpoints import load_checkpoint
from sightline.systems import ps_vit
from sightline.systems.ps_vit import PSViT


def small(**sizes: object) -> PSViT:
    torch.manual_seed(0)
    usual = {"image_size": 32, "points": 3, "iterations": 3, "dim": 12, "depth": 5, "heads": 2, "classes": 7}
    return PSViT(**(usual | {"stem": (4, 4, 6, 4)} | sizes)).eval()  # type: ignore[arg-type]


def moving(model: PSViT) -> PSViT:
    """Gives the offsets of a fresh model something to say."""
    torch.manual_seed(1)
    for step in model.steps:
        if step.offset is not None:
            torch.nn.init.normal_(step.offset.weight, std=1.0)
    return model


def test_equal_to_the_published_implementation_at_every_look(shared: Path) -> None:
    kit = shared / "golden" / "psvit"
    config = json.loads((kit / "config.json").read_text("utf-8"))
    model = load_checkpoint(kit / "weights.safetensors", heads=3)
    assert isinstance(model, PSViT)
    stored, images = load_file(kit / "outputs.safetensors"), load_file(kit / "inputs.safetensors")["images"]

    def check(name: str, mine: Tensor) -> None:
        assert mine.shape == stored[name].shape
        most = max(1e-5, 1e-5 * stored[name].abs().max().item())
        assert (mine - stored[name]).abs().max() <= min(most, config["outputs"][name]["atol"]), name

    with torch.no_grad():
        features = model.stem(images)
        check("stem", features)
        points = grid_points(model.grid, tuple(features.shape[-2:])).expand(len(images), -1, -1)
        check("initial_points", points[:1])
        tokens = None
        for number, step in enumerate(model.steps):
            check(f"sampled_at_{number}", points)
            check(f"points_{number}", points)
            tokens, offset = step(features, points, model.position(points / 8), tokens)
            check(f"tokens_{number}", tokens)
            assert (offset is None) == (number == 2)
            if offset is not None:
                check(f"offsets_{number}", offset)
                points = model.move(points, offset)
        sampled = model.look(features)
        for number in range(3):
            check(f"points_{number}", sampled.points[:, number])
        check("tokens_2", sampled.tokens)
        check("logits", model(images))
        model.head = torch.nn.Identity()
        check("feature", model(images))


def test_an_untrained_network_reads_the_grid() -> None:
    model, images = small(), torch.randn(2, 3, 32, 32)
    features = model.stem(images)
    grid = grid_points((3, 3), (8, 8))
    assert torch.equal(model.look(features).points, grid.expand(2, 3, -1, -1))
    first = model.steps[0].layer(sample(features, grid.expand(2, -1, -1)) + model.position(grid / 8))
    model.steps = model.steps[:1]
    torch.testing.assert_close(model.look(features).tokens, first)


def test_points_move_by_what_was_read_at_them() -> None:
    model = moving(small())
    features = model.stem(torch.randn(2, 3, 32, 32))
    _, offset = model.steps[0](
        features, grid := grid_points((3, 3), (8, 8)).expand(2, -1, -1), model.position(grid / 8), None
    )
    path = model.look(features).points
    torch.testing.assert_close(path[:, 1] - path[:, 0], offset)
    assert (path[0, 1] - path[1, 1]).abs().max() > 1e-3  # each image has its own way


def test_gradients_reach_every_parameter_and_learn_the_offsets_through_reading_alone() -> None:
    model = moving(small()).train()
    batch = {"images": torch.randn(6, 3, 32, 32), "labels": torch.randint(0, 7, (6,))}
    model.loss(batch)["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0 or name.endswith("key.bias"), name
    assert small().steps[-1].offset is None
    # where a look read is a constant to the next: the way is learned through the reading alone
    points = grid_points((3, 3), (8, 8)).expand(6, -1, -1).clone().requires_grad_()
    moved = model.move(points, torch.ones(6, 9, 2))
    assert not moved.requires_grad


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (64, 20)])
def test_any_image_size_runs(height: int, width: int) -> None:
    model = moving(small())
    features = model.stem(torch.randn(1, 3, height, width))
    assert features.shape[-2:] == (-(-height // 4), -(-width // 4))
    assert model(torch.randn(1, 3, height, width)).shape == (1, 7)
    first = model.look(features).points[0, 0]
    assert first[:, 0].mean().item() == pytest.approx(features.shape[-2] / 2)


@pytest.mark.parametrize(
    ("name", "millions", "points"),
    [("tiny_14", 4.8, 14), ("base_10", 21.3, 10), ("base_14", 21.3, 14), ("base_16", 21.3, 16), ("base_18", 21.3, 18)],
)
def test_published_sizes(name: str, millions: float, points: int) -> None:
    with torch.device("meta"):
        model = getattr(ps_vit, f"ps_vit_{name}")()
    count = sum(parameter.numel() for parameter in model.parameters())
    assert round(count / 1e6, 1) == millions
    assert model.grid == (points, points)
    if name == "base_14":
        assert count == 21_344_302  # of the published code


@pytest.mark.parametrize("wrong", [{"iterations": 6}, {"iterations": 0}, {"points": 0}, {"stem": (4, 4)}, {"heads": 5}])
def test_sizes_that_do_not_fit_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"given .*\d"):
        small(**wrong)


def test_the_lens_sees_where_every_look_read() -> None:
    model, images = moving(small()), torch.randn(1, 3, 32, 32)
    with sightline.record(model) as seen:
        model(images)
    looks = [site for site in seen if site.path.endswith("points")]
    assert [site.path for site in looks] == [f"steps.{number}.points" for number in range(3)]
    assert [(site.kind, site.weights.shape) for site in looks] == [("cross", (1, 1, 9, 64))] * 3
    path = model.look(model.stem(images)).points
    cells = torch.stack(torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij"), dim=2).view(64, 2)
    inside = ((path[0] >= 0) & (path[0] <= 7)).all(dim=2)
    for number, site in enumerate(looks):
        middle = site.weights[0, 0] @ cells
        torch.testing.assert_close(middle[inside[number]], path[0, number][inside[number]], atol=1e-4, rtol=0)
    layout = seen.layout(looks[0])
    assert (layout.height, layout.width, layout.prefix) == (8, 8, 0)
