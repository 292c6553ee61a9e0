"""The Vision Transformer in the package is the one that its card describes."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from sightline.checkpoints.bundled import bundled, bundled_card, bundled_folder
from sightline.data.folder import ImageFolder
from sightline.data.labelled import Union
from sightline.data.photographs import sample_photographs
from sightline.recipes import pictures, vit
from sightline.tasks.classify import classify


def test_the_card_fits_the_weights() -> None:
    card, network = bundled_card("vit"), bundled("vit")
    assert sum(p.numel() for p in network.parameters()) == card["parameters"]
    assert network.head.out_features == len(card["classes"]) == len(set(card["classes"])) == 50
    assert network.image_size == (card["image_size"],) * 2
    assert (tuple(card["mean"]), tuple(card["std"])) == (vit.MEAN, vit.DEVIATION)
    assert sum(file.stat().st_size for file in bundled_folder("vit").iterdir()) < 8e6
    assert card["control"]["passes"] == card["passes"]
    assert abs(card["control"]["parameters"] / card["parameters"] - 1) < 0.1


def test_photographs_are_told_apart() -> None:
    answers = [dict(classify(path, top=50)) for path in sample_photographs()]
    for first, second in pairwise(answers):
        assert max(abs(first[name] - second[name]) for name in first) > 0.05
    assert all(abs(sum(chances.values()) - 1) < 1e-3 for chances in answers)


def test_it_is_as_good_as_its_card_says(shared: Path) -> None:
    card = bundled_card("vit")
    network = bundled("vit")
    recipe = vit.Recipe(network, vit.Settings(), None)
    pictures.load_beside(recipe, bundled_folder("vit"))
    part = ImageFolder(shared / "data" / "tiny_imagenet", "val")
    keep = np.arange(0, len(part), 5)  # 400 pictures, ten of each class
    part.files, part.labels = [part.files[i] for i in keep], part.labels[keep]
    with torch.inference_mode():
        figures = pictures.measure(recipe, Union([part]))
    said = card["measured"]["parts"][0]
    # four standard deviations of a share of 400
    assert abs(figures["top1"] - said["top1"]) < 0.1
    assert abs(figures["top5"] - said["top5"]) < 0.1
    assert figures["top1"] > 10 * figures["chance"]
