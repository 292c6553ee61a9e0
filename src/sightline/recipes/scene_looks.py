"""Where a captioner of generated scenes looked as it said each word, against the box of what the word speaks of.

"value" is the share of words whose map is highest in the box, "mass" the attention that falls in it.  What knowing
nothing would score stands beside: "area" (an even map's peak and mass alike: uniform attention), "centre" (the middle
of the picture), "random" (a random map), and "other_scenes" (the map of the same word of the sentence in another scene:
what is gained by knowing the order alone, from left to right).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sightline.data.scene_captions import SceneCaptions
from sightline.data.scenes.graph import COLORS
from sightline.metrics.localisation import attention_correctness, pointing_game
from sightline.recipes.captions import read_batch


def scene_chunks(data: SceneCaptions) -> list[np.ndarray]:
    """Shares out the numbers of all scenes into batches of 50 or fewer."""
    return np.array_split(np.arange(len(data)), -(-len(data) // 50))


def kind_of(word: str) -> str:
    """Tells "colours" from "shapes", the two kinds of words that speak of things in these captions."""
    return "colours" if word in COLORS else "shapes"


def scene_looks(recipe: Any, data: SceneCaptions) -> dict[str, Any]:
    """Measures the maps of the true captions, read word by word: of all words of things, of colours, of shapes."""
    maps, masks, places, kinds = _maps(recipe, data)
    told: dict[str, Any] = _pointing(maps, masks, places)
    for kind in ("colours", "shapes"):
        chosen = [number for number, one in enumerate(kinds) if one == kind]
        told[kind] = _pointing(maps[chosen], masks[chosen], [places[number] for number in chosen])
    return told


def _pointing(maps: Tensor, masks: Tensor, places: list[int]) -> dict[str, float]:
    found = pointing_game(maps, masks, tolerance=0)
    noise = torch.rand(maps.shape, generator=torch.Generator().manual_seed(0))
    return {
        "value": found.value,
        "area": found.area,
        "centre": found.centre,
        "random": pointing_game(noise, masks, tolerance=0).value,
        "other_scenes": pointing_game(maps[_elsewhere(places)], masks, tolerance=0).value,
        "mass": attention_correctness(maps, masks).value,
        "words": len(maps),
    }


def _elsewhere(places: list[int]) -> list[int]:
    """For each word another one that stands at the same place of its sentence: the next such, the last takes the first.

    A word that is alone at its place keeps itself.
    """
    other = list(range(len(places)))
    for place in set(places):
        same = [number for number, one in enumerate(places) if one == place]
        for number, following in zip(same, same[1:] + same[:1], strict=True):
            other[number] = following
    return other


def _maps(recipe: Any, data: SceneCaptions) -> tuple[Tensor, Tensor, list[int], list[str]]:
    """The map, the box, the place and the kind of each word that speaks of a thing to be seen, over all scenes."""
    maps, masks, places, kinds = [], [], [], []
    rows, columns = data.features.rows, data.features.columns
    for indices in scene_chunks(data):
        batch = read_batch(data, indices, recipe)
        told = recipe.kept(batch["features"].to(recipe.device), batch["tokens"].flatten(0, 1).to(recipe.device))
        for weights, boxes, index in zip(told.weights.float().cpu(), data.boxes(indices), indices, strict=True):
            for place, things in data.content(int(index)):
                mask = boxes[list(things)].any(dim=0)
                if mask.any():  # a thing may be hidden altogether
                    maps.append(weights[place].view(rows, columns))
                    masks.append(mask)
                    places.append(place)
                    kinds.append(kind_of(data.sentences[int(index)].words[place]))
    return torch.stack(maps), torch.stack(masks), places, kinds
