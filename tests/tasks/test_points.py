"""`look` through a model that moves its points: where they went, what the answer read, and the files that show it."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import sightline
from sightline.data.photographs import sample_photographs
from sightline.systems.ps_vit import PSViT
from sightline.tasks.look import look
from sightline.tasks.points import PointsLook
from sightline.tasks.vision_model import open_vision_model

CAT = sample_photographs()[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PS-ViT whose points move to the right and away from one another, as a training run leaves it."""
    place = tmp_path_factory.mktemp("ps_vit")
    torch.manual_seed(0)
    model = PSViT(image_size=32, points=3, iterations=3, dim=12, depth=5, heads=2, stem=(4, 4, 6, 4), classes=3)
    for step in model.steps[:-1]:
        torch.nn.init.normal_(step.offset.weight, std=0.5)
        step.offset.bias.data = torch.tensor([0.0, 0.5])
    model.save_pretrained(place)
    card = {"system": "ps_vit", "image_size": 32, "mean": [0.5] * 3, "std": [0.25] * 3, "classes": ["a", "b", "c"]}
    card["knows"] = "three letters"
    (place / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return place


def test_the_ways_are_those_of_the_model(folder: Path) -> None:
    seen = look(CAT, model=folder)
    assert isinstance(seen, PointsLook)
    opened = open_vision_model(folder)
    pixels, image = opened.prepare(Image.open(CAT).convert("RGB"))
    with torch.no_grad():
        points = opened.model.read(pixels).points[0]
    places = torch.as_tensor(seen.points.places).float()
    torch.testing.assert_close(places, ((points * 4 + 0.5) / 32).flip(2))
    assert torch.tensor(seen.summary["points"]).shape == (3, 9, 2)
    assert seen.image.size == image.size
    assert {name for name, _ in seen.labels} == {"a", "b", "c"}
    assert seen.sentence.startswith("In 3 looks the points went ")
    assert "beyond the edge" not in seen.sentence
    opened.model.steps[1].offset.bias += torch.tensor([0.0, 3.0])  # a spacing of the grid, to the right
    gone = look(CAT, model=opened)
    outside = int((gone.points.places[-1] > 1).any(axis=1).sum())
    assert 0 < outside < 9
    assert f" {outside} of 9 lie beyond the edge" in gone.sentence
    assert repr(seen).startswith("Look(cat.jpg, ")
    assert "\n" not in repr(seen)


def test_the_map_lays_the_rollout_of_the_class_token_on_the_cells_read_last(folder: Path) -> None:
    seen = look(CAT, model=folder)
    opened = open_vision_model(folder)
    pixels = opened.prepare(Image.open(CAT).convert("RGB"))[0]
    with sightline.record(opened.model) as recording:
        opened.model(pixels)
    rolled = torch.eye(10)
    for site in recording:
        if site.path.startswith("layers."):
            rolled = (site.weights[0].mean(0) + torch.eye(10)) / 2 @ rolled
    shares = rolled[0, 1:] / rolled[0, 1:].sum()
    last = next(site for site in recording if site.path == "steps.2.points").weights[0, 0]
    torch.testing.assert_close(seen.heat, (shares @ last).view(8, 8), atol=1e-6, rtol=1e-5)
    assert seen.method == "rollout"
    with pytest.raises(ValueError, match=r"layer 9: \d layers follow the last look"):
        look(CAT, model=folder, method="raw", layer=9)
    raw = look(CAT, model=folder, method="raw", layer=0, head=1)
    weights = next(site for site in recording if site.path.startswith("layers.0")).weights[0, 1, 0, 1:]
    torch.testing.assert_close(torch.as_tensor(raw.points.weights).float(), weights, atol=1e-6, rtol=1e-5)


def test_files(folder: Path, tmp_path: Path) -> None:
    seen = look(CAT, model=folder)
    for name in ("a.png", "b.gif", "deep/c.html"):
        assert seen.save(tmp_path / name).stat().st_size > 5_000
    with Image.open(tmp_path / "b.gif") as animation:
        assert animation.n_frames > 6
    page = (tmp_path / "deep" / "c.html").read_text("utf-8")
    assert seen.sentence.split(" Attention")[0] in page
    assert "It knows three letters." in page
    assert seen.summary["note"] == "It knows three letters."
    with pytest.raises(ValueError, match=r"\.html, \.gif, \.png"):
        seen.save(tmp_path / "a.tiff")
    assert "data:image/png" in seen._repr_html_()


def test_check_masks_what_was_read(folder: Path) -> None:
    seen = look(CAT, model=folder, check=True)
    assert 0 < float(seen.check.effect.area.float().mean()) < 1
    assert seen.summary["check"]["verdict"]


def test_what_points_cannot_be_asked(folder: Path) -> None:
    with pytest.raises(ValueError, match="not for models that move their points"):
        look(CAT, model=folder, method="gradient")
    with pytest.raises(ValueError, match="no fixed row and column"):
        look(CAT, model=folder, query=(1, 2))


def test_the_lens_does_not_take_points_for_a_grid(folder: Path) -> None:
    opened = open_vision_model(folder)
    pixels = opened.prepare(Image.open(CAT).convert("RGB"))[0]
    with sightline.record(opened.model) as seen:
        opened.model(pixels)
    with pytest.raises(ValueError, match="points that PSViT moves over the image"):
        seen.layout(seen.site("layers.1.attention"))
    assert seen.heat().shape == (8, 8)  # of the last look's points, which are placed on the feature map
