from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from sightline.recipes import pictures, vit, vit_control


def recipe(**settings: object) -> vit.Recipe:
    given = vit.Settings(**{"steps": 80, **settings})
    return vit.Recipe(vit.build(None, classes=3, image_size=64, dim=24, depth=1), given, None)


def test_pictures_grow_to_full_size() -> None:
    growing = recipe(small=40)
    sides = [growing.side_at(step) for step in range(80)]
    assert sides == sorted(sides)
    assert set(sides) == {40, 48, 56, 64}
    assert sides[60:] == [64] * 20
    for small in (64, 99):
        constant = recipe(small=small)
        assert {constant.side_at(step) for step in range(80)} == {64}


def test_the_rate_warms_up_and_ends_near_zero() -> None:
    made = recipe().configure_optimizers()
    schedule, optimizer = made["lr_scheduler"]["scheduler"], made["optimizer"]
    rates = []
    for _ in range(80):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates.index(max(rates)) == 3
    assert abs(max(rates) - 1e-3) < 1e-9
    assert rates[-1] < 1e-5


def test_only_matrices_decay() -> None:
    made = recipe()
    decayed, kept = made.configure_optimizers()["optimizer"].param_groups
    names = {id(p): name for name, p in made.system.named_parameters()}
    assert all("bias" not in names[id(p)] and "norm" not in names[id(p)] for p in decayed["params"])
    assert kept["weight_decay"] == 0
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


def test_the_kept_network_follows_the_trained_one() -> None:
    made = recipe(average=0.9)
    with torch.no_grad():
        made.system.head.bias.fill_(1.0)
    for _ in range(60):
        made.average.update_parameters(made.system)
    assert abs(made.kept.head.bias - 1).max() < 0.05
    torch.testing.assert_close(made.kept.positions.table, made.system.positions.table)


def test_titles_of_samples_are_no_wider_than_their_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = ("golden_retriever_seen_from_far_behind", "potters_wheel_with_a_heap_of_clay", "cup")
    for name in classes:
        for number in range(10):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (64, 64), (number, 90, 90)).save(tmp_path / name / f"{number}.png")
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, dpi: drawn.append(figure))
    made = recipe()
    made.classes = classes
    pictures.draw_samples(made, pictures.open_data(f"folder:{tmp_path}", "val"), tmp_path / "samples.png")
    figure: Any = drawn[0]
    figure.draw_without_rendering()
    axes = [axis for axis in figure.axes if axis.get_title()]
    assert len(axes) == 3
    widths = [(axis.title.get_window_extent().width, axis.get_window_extent().width) for axis in axes]
    assert all(title <= picture for title, picture in widths), widths
    told = [" ".join(axis.get_title().split()) for axis in axes]
    assert all(any(one.startswith(name.replace("_", " ")) for name in classes) for one in told)


def test_the_control_has_as_many_parameters() -> None:
    sizes = [sum(p.numel() for p in module.build(None, classes=50).parameters()) for module in (vit, vit_control)]
    assert abs(sizes[1] / sizes[0] - 1) < 0.1


def test_the_control_takes_any_size() -> None:
    network = vit_control.ResidualNetwork(width=4, blocks=1, classes=7)
    assert network(torch.rand(2, 3, 40, 64)).shape == (2, 7)


def test_running_statistics_are_averaged_with_the_weights() -> None:
    network = vit_control.ResidualNetwork(width=4, blocks=1, classes=3)
    made = vit.Recipe(network, vit.Settings(average=0.5), None)
    kept = made.kept.get_submodule("stem_norm")
    for value in (0.0, 1.0, 1.0):
        with torch.no_grad():
            network.stem_norm.running_mean.fill_(value)
            network.stem_norm.bias.fill_(value)
        made.average.update_parameters(network)
    assert 0.2 < kept.running_mean[0] < 0.99
    torch.testing.assert_close(kept.running_mean, kept.bias)
