"""Trains Show and Tell on generated scenes: the control without attention of recipes/world_captions.py.

The same scenes, encoder, steps and measure of words; it sees the mean of the grid alone, and has about as many
parameters.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sightline.data.scene_captions import SceneCaptions
from sightline.lens.view import side_by_side
from sightline.recipes import show_and_tell, world_captions
from sightline.recipes.captions import say
from sightline.recipes.world_captions import words_right
from sightline.systems.show_and_tell import ShowAndTell

FRAME = world_captions
TINY_SYSTEM = show_and_tell.TINY_SYSTEM


def build(data: SceneCaptions | None, **sizes: Any) -> ShowAndTell:
    """Builds the system for the words and features of the data."""
    if data is None:
        return ShowAndTell(**sizes)
    usual: dict[str, Any] = {"embedding": 224, "hidden": 288, "dropout": 0.1}
    return ShowAndTell(**usual | {"vocab": len(data.vocabulary), "width": data.width} | sizes)


def measure(recipe: Any, data: SceneCaptions) -> dict[str, Any]:
    """Measures captions; there is no attention to measure."""
    return words_right(recipe, data)


def draw_samples(recipe: Any, data: SceneCaptions, path: Path) -> None:
    """Draws four held-out scenes with what is said of them."""
    indices = np.arange(min(4, len(data)))
    with torch.no_grad():
        said = say(recipe.kept, data.batch(indices)["features"].to(recipe.device), recipe.vocabulary)
    pictures = list(data.scenes.images([int(i) for i in indices]))
    side_by_side(pictures, labels=said).save(path)
