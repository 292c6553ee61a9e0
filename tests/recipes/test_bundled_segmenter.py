"""The segmenter in the package is the one that its card describes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sightline.checkpoints.bundled import bundled, bundled_card, bundled_folder, bundled_names
from sightline.data.camvid import CLASSES, open_camvid
from sightline.recipes.weights import recipe_around
from sightline.tasks.drawn_street import drawn_street
from sightline.tasks.segment import open_segmenter, segment

NAME = "segmenter_hybrid"
pytestmark = pytest.mark.skipif(NAME not in bundled_names(), reason="this build has no weights of the segmenter")


def test_the_card_fits_the_weights() -> None:
    card, network, opened = bundled_card(NAME), bundled(NAME), open_segmenter()
    assert sum(p.numel() for p in network.parameters()) == card["parameters"]
    assert opened.classes == tuple(card["classes"]) == CLASSES
    assert opened.window == tuple(card["image_size"])
    assert sum(file.stat().st_size for file in bundled_folder(NAME).iterdir()) < 8e6
    assert card["measured"]["miou"] >= 0.55 > card["measured"]["blind"]["miou"]
    assert card["measured"]["pictures"] == 101
    assert card["control"]["figure"]


def test_a_drawn_street_is_a_street() -> None:
    found = segment(drawn_street())
    assert {"Road", "Sky", "Building"} <= set(list(found.areas)[:5])
    height, width = found.mask.shape
    assert found.classes[found.mask[5, width // 2]] == "Sky"
    assert found.classes[found.mask[height - 5, width // 2]] == "Road"


def test_it_is_as_good_as_its_card_says(shared: Path) -> None:
    recipe_file, recipe = recipe_around(bundled_folder(NAME))
    part = open_camvid(shared / "data" / "camvid", "val")
    part.pairs = [part.pairs[index] for index in np.linspace(0, len(part) - 1, 12).astype(int)]
    recipe.settings = type(recipe.settings)(**{**vars(recipe.settings), "multi_scale": False})
    with torch.inference_mode():
        found = recipe_file.measure(recipe, part)
    said = bundled_card(NAME)["measured"]
    assert found["pixel_accuracy"] == pytest.approx(said["pixel_accuracy"], abs=0.03)
    assert found["miou"] == pytest.approx(said["miou"], abs=0.08)
