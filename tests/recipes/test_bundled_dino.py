"""The bundled DINO: small, measurable again, above its controls, and what `look` uses."""

import json

import pytest
import torch
from PIL import Image

from sightline.checkpoints.bundled import bundled, bundled_card, bundled_folder, bundled_names
from sightline.data.cutouts import Cutouts
from sightline.data.photographs import sample_photographs
from sightline.metrics.objects import ObjectScores, attention_on_objects
from sightline.recipes.weights import recipe_around
from sightline.systems.vit import VisionTransformer
from sightline.tasks.look import look
from sightline.tasks.methods import usual_model
from sightline.tasks.vision_model import open_vision_model

pytestmark = pytest.mark.skipif("dino" not in bundled_names(), reason="DINO's weights are not in this build yet")


def scores(model: VisionTransformer, count: int = 40) -> ObjectScores:
    images, masks = Cutouts(500, 128, seed=1).pictures(range(count))
    prepare = open_vision_model("dino").resized
    assert prepare is not None
    shown = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    pixels = torch.cat([prepare(128)(picture)[0] for picture in shown])
    return attention_on_objects(model, [(pixels, [mask[None] for mask in masks])])


def test_it_is_small_and_says_how_it_was_made() -> None:
    card, network = bundled_card("dino"), bundled("dino")
    assert sum(parameter.numel() for parameter in network.parameters()) == card["parameters"]
    assert sum(file.stat().st_size for file in bundled_folder("dino").iterdir()) < 12e6
    assert card["command"].startswith("sightline train dino --data")
    assert "/tmp/" not in json.dumps(card)
    assert card["passes"] == card["settings"]["steps"] * card["settings"]["batch"]


def test_its_features_are_measured_beside_chance_weights_and_labels() -> None:
    card = bundled_card("dino")
    learned, drawn, told = (
        {part["name"]: part for part in parts}
        for parts in (
            card["measured"]["parts"],
            card["control"]["random"]["parts"],
            card["control"]["supervised"]["parts"],
        )
    )
    assert list(learned) == list(drawn) == list(told) == ["cifar10", "tiny_imagenet", "world"]
    for name, part in learned.items():
        for other in (drawn[name], told[name]):
            assert (part["pictures"], part["known"]) == (other["pictures"], other["known"])
        assert learned[name]["knn"] > drawn[name]["knn"] + 0.06
        assert learned[name]["linear"] > drawn[name]["linear"] + 0.07
    assert card["control"]["supervised"]["passes"] == pytest.approx(card["passes"], rel=1e-3)


@pytest.mark.xfail(strict=True, reason="the floor is not reached: +9.0 CIFAR-10, +7.3 Tiny ImageNet, +6.6 on scenes")
def test_its_features_are_ten_points_above_chance_weights() -> None:
    card = bundled_card("dino")
    drawn = {part["classes"]: part for part in card["control"]["random"]["parts"]}
    for learned in card["measured"]["parts"]:
        other = drawn[learned["classes"]]
        assert (learned["pictures"], learned["known"]) == (other["pictures"], other["known"])
        assert learned["knn"] > other["knn"] + 0.1, (learned, other)


def test_its_masks_are_above_those_of_labels_and_of_chance_weights() -> None:
    for masks in bundled_card("dino")["masks"].values():
        assert masks["dino"]["jaccard"] > max(masks["supervised"]["jaccard"], masks["random"]["jaccard"])


def test_its_attention_lies_on_things_more_than_that_of_chance_weights() -> None:
    torch.manual_seed(0)
    known = json.loads((bundled_folder("dino") / "config.json").read_text("utf-8"))
    drawn = VisionTransformer(**known)
    learned, chance = scores(bundled("dino")), scores(drawn.eval())
    assert learned.jaccard.value > chance.jaccard.value
    assert learned.jaccard.value > learned.moved.value
    told = bundled_card("dino")["masks"]["cutouts"]
    assert learned.jaccard.value == pytest.approx(told["dino"]["jaccard"], abs=0.08)  # 40 of its 500 pictures


def test_it_can_be_measured_again() -> None:
    _, recipe = recipe_around(bundled_folder("dino"))
    assert recipe.side == bundled_card("dino")["image_size"]
    features = recipe.kept.eval()(torch.zeros(1, 3, 64, 64))
    torch.testing.assert_close(features, bundled("dino")(torch.zeros(1, 3, 64, 64)))


def test_look_uses_it_and_shows_a_mask_for_each_head() -> None:
    assert usual_model() == "dino"
    seen = look(sample_photographs()[0])
    assert seen.model == "dino"
    assert seen.method == "threshold"
    assert seen.masks is not None
    assert len(seen.masks) == bundled_card("dino")["heads"]
