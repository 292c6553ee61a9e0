"""`look` through a model that gives features, as DINO: each head's mask, the size of the picture, the check."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sightline.data.photographs import sample_photographs
from sightline.lens import view
from sightline.metrics.objects import class_token_maps
from sightline.systems.vit import VisionTransformer
from sightline.tasks import look as look_module
from sightline.tasks.classify import classify
from sightline.tasks.look import look
from sightline.tasks.methods import usual_model
from sightline.tasks.vision_model import ModelError, VisionModel, open_vision_model

CAT = sample_photographs()[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    made = VisionTransformer(image_size=32, patch=8, dim=24, depth=2, heads=3, classes=0, positions="dino")
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("run")
    made.save_pretrained(folder / "weights")
    card = {"system": "dino", "image_size": 32, "mean": [0.48, 0.45, 0.4], "std": [0.27, 0.26, 0.27], "look_size": 40}
    (folder / "weights" / "card.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="module")
def opened(run: Path) -> VisionModel:
    return open_vision_model(run)


def published_mask(attention: torch.Tensor, keep: float) -> torch.Tensor:
    """The published recipe: drop the lowest weights while their running sum stays within 1 - keep."""
    values, order = attention.flatten(1).double().sort()
    running = (values / values.sum(1, keepdim=True)).cumsum(1)
    return (running > 1 - keep).gather(1, order.argsort(1)).view_as(attention)


@pytest.mark.parametrize("mass", [0.3, 0.6])
def test_masks_are_dinos_of_the_last_layer(opened: VisionModel, mass: float) -> None:
    seen = look(CAT, model=opened, mass=mass)
    assert seen.method == "threshold"
    assert seen.masks is not None
    pixels, whole = opened.prepare(Image.open(CAT).convert("RGB"))
    maps = class_token_maps(opened.model, pixels)[0]
    assert torch.equal(seen.masks, published_mask(maps, mass))
    torch.testing.assert_close(seen.heat, maps.mean(0))
    assert whole.size == Image.open(CAT).size  # all of the photograph is seen
    told = seen.summary["masks"]
    assert told["mass"] == mass
    assert told["areas"] == [round(float(mask.float().mean()), 4) for mask in seen.masks]
    assert f"{mass:.0%} of each head's attention" in seen.sentence


def test_masks_of_another_layer_and_of_models_with_classes(opened: VisionModel) -> None:
    early = look(CAT, model=opened, method="threshold", layer=0)
    pixels, _ = opened.prepare(Image.open(CAT).convert("RGB"))
    assert torch.equal(early.masks, published_mask(class_token_maps(opened.model, pixels, layer=0)[0], 0.6))
    assert look(CAT, model="vit", method="threshold").masks is not None
    assert look(CAT, model="vit").masks is None


@pytest.mark.parametrize(("size", "grid"), [(16, (2, 3)), (32, (4, 6)), (44, (6, 8)), (None, (5, 8))])
def test_the_picture_keeps_its_shape_at_any_size(opened: VisionModel, size: int | None, grid: tuple[int, int]) -> None:
    """The cat is 451 x 300 pixels; a card may say at which size a model looks."""
    assert Image.open(CAT).size == (451, 300)
    seen = look(CAT, model=opened, size=size)
    assert tuple(seen.heat.shape) == grid
    assert seen.image.size == (451, 300)


def test_large_pictures_keep_one_row_and_their_page_still_comes(
    opened: VisionModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = look(CAT, model=opened, size=64)
    assert whole.recording[0].rows == whole.recording[0].queries
    monkeypatch.setattr(look_module, "MOST_ROWS", 50)
    seen = look(CAT, model=opened, size=64)
    assert seen.recording[0].rows == 1
    assert torch.equal(seen.masks, whole.masks)
    torch.testing.assert_close(seen.heat, whole.heat)
    page = seen.save(tmp_path / "a.html").read_text("utf-8")
    assert "60% of each head&#x27;s attention" in page or "60% of each head's attention" in page


@pytest.mark.parametrize("query", [(2, 5), 3, -1, "mean"])
def test_of_large_pictures_the_row_that_is_asked_for_is_kept(
    opened: VisionModel, query: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = look(CAT, model=opened, size=64, method="threshold", query=query)
    monkeypatch.setattr(look_module, "MOST_ROWS", 50)
    seen = look(CAT, model=opened, size=64, method="threshold", query=query)
    assert seen.recording[0].rows == (1 if query != "mean" else seen.recording[0].queries)
    assert torch.equal(seen.masks, whole.masks)
    torch.testing.assert_close(seen.heat, whole.heat)
    with pytest.raises(ValueError, match="outside"):
        look(CAT, model=opened, size=64, method="threshold", query=(99, 0))
    with pytest.raises(ValueError, match=r"query 9999: the picture has \d+ tokens, 0 to \d+"):
        look(CAT, model=opened, size=64, method="threshold", query=9999)
    with pytest.raises(ValueError, match="layer 7: 2 sites"):
        look(CAT, model=opened, size=64, method="threshold", query=query, layer=7)


def test_the_check_measures_features_and_says_so(opened: VisionModel) -> None:
    seen = look(CAT, model=opened, check=True, method="threshold")
    told = seen.summary["check"]
    assert told["measure"] == "likeness of its features"
    assert told["effect"]["whole"] == pytest.approx(1, abs=1e-5)
    pixels, _ = opened.prepare(Image.open(CAT).convert("RGB"))
    effect = seen.recording.check(opened.model, pixels, heat=seen.heat, score="similarity", seeds=2).effect
    from sightline.lens.judge import filled

    with torch.no_grad():
        bare = torch.where(effect.region[:, None], filled(pixels, "blur"), pixels)
        likeness = torch.cosine_similarity(opened.model(bare), opened.model(pixels))
    torch.testing.assert_close(effect.without, likeness)


def test_features_are_no_classes(opened: VisionModel) -> None:
    assert look(CAT, model=opened).labels is None
    with pytest.raises(ValueError, match="needs class scores"):
        look(CAT, model=opened, method="gradient")
    with pytest.raises(ModelError, match="no named classes"):
        classify(CAT, model=opened)


@pytest.mark.parametrize("mass", [0, 1, -0.2])
def test_a_mass_is_a_share(opened: VisionModel, mass: float) -> None:
    with pytest.raises(ValueError, match="mass"):
        look(CAT, model=opened, mass=mass)


@pytest.mark.parametrize("size", [4, 100_000])
def test_sizes_that_cannot_be_had(opened: VisionModel, size: int) -> None:
    with pytest.raises(ValueError, match=f"size {size}"):
        look(CAT, model=opened, size=size)


@pytest.mark.parametrize(("names", "usual", "said"), [(["dino"], "dino", "'dino' or 'vit'"), ([], "vit", "'vit'")])
def test_the_usual_model_is_dino_where_it_is_bundled(
    monkeypatch: pytest.MonkeyPatch, names: list[str], usual: str, said: str
) -> None:
    """An error names it only there, too."""
    monkeypatch.setattr("sightline.checkpoints.bundled_names", lambda: ["ram", "vit", *names])
    assert usual_model() == usual
    with pytest.raises(ModelError, match=f"look takes bundled names such as {said}, classify 'vit'"):
        open_vision_model("ram")


def test_the_figure_lights_what_the_masks_say() -> None:
    masks = np.zeros((2, 4, 4), bool)
    masks[0, :2], masks[1, 2:] = True, True
    picture = Image.new("RGB", (300, 300), (200, 60, 60))
    drawn = np.asarray(view.masks(picture, masks, np.ones((4, 4)), labels=["up", "down"], caption="x"), float)
    red = drawn[..., 0] - drawn[..., 1]
    columns = np.flatnonzero((red > 120).any(axis=0))
    upper, lower = (red > 120)[:, : columns.mean().astype(int)], (red > 120)[:, columns.mean().astype(int) :]
    assert np.flatnonzero(upper.any(axis=1)).mean() < np.flatnonzero(lower.any(axis=1)).mean() - 100
    with pytest.raises(ValueError, match="label for each"):
        view.masks(picture, masks, np.ones((4, 4)), labels=["one"])
