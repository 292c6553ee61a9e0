"""Trains Show, Attend and Tell to name the things of generated scenes from left to right, and measures where it looks.

data      scenes:COUNT[#ENCODER], COUNT scenes for training and an eighth as many others held out; the frozen encoder is
          efficientnet_lite0:11 (cells of 16 x 16 pixels of 224) where none is named
system    systems/show_attend_tell.py, as on photographs
measure   greedy captions of all held-out scenes: how many name everything rightly and in order, how many words of
          things are right at their place; the same captions held against other scenes; and, of the true captions read
          word by word, how often the peak of the attention lies in the box of what the word speaks of, beside what an
          even map, the middle of the picture and random maps score
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sightline.data.scene_captions import SceneCaptions
from sightline.data.scenes import Scenes
from sightline.lens.strip import WordStrip
from sightline.metrics.localisation import pointing_game
from sightline.recipes import show_attend_tell
from sightline.recipes.captions import agree, describe, load_beside, read_batch, save_beside, say
from sightline.recipes.show_attend_tell import HELD, TINY_SYSTEM, Recipe
from sightline.systems.show_attend_tell import ShowAttendTell
from sightline.tasks.encoder import cached_scenes

__all__ = [
    "HELD",
    "TINY_SYSTEM",
    "Recipe",
    "agree",
    "describe",
    "load_beside",
    "read_batch",
    "save_beside",
]

ENCODER = "efficientnet_lite0:11"
SIDE = 112
SEEDS = {"train": 0, "val": 1}
TINY = show_attend_tell.TINY | {"steps": 60}


@dataclass(frozen=True)
class Settings(show_attend_tell.Settings):
    """What can be set as key=value beside the system's own arguments."""

    steps: int = 2500
    batch: int = 48
    rate: float = 2e-3
    smoothing: float = 0.02
    average: float = 0.995
    beam: int = 1


def open_data(spec: str, split: str) -> SceneCaptions:
    """Opens scenes:COUNT[#ENCODER]; ValueError for anything else."""
    place, _, encoder = spec.partition("#")
    kind, _, count = place.partition(":")
    if kind != "scenes" or not count.isdecimal() or int(count) < 8:
        raise ValueError(f"data {spec!r}: expected scenes:COUNT with 8 scenes or more, such as scenes:3000")
    number = int(count) if split == "train" else int(count) // 8
    scenes = Scenes(seed=SEEDS[split], split=split, size=SIDE, count=number)
    return SceneCaptions(scenes, cached_scenes(scenes, encoder or ENCODER))


def build(data: SceneCaptions | None, **sizes: Any) -> ShowAttendTell:
    """Builds the compact form for the words and features of the data."""
    if data is None:
        return ShowAttendTell(**sizes)
    usual: dict[str, Any] = {"form": "compact", "embedding": 96, "hidden": 256, "attention": 128, "dropout": 0.1}
    return ShowAttendTell(**usual | {"vocab": len(data.vocabulary), "width": data.width} | sizes)


def measure(recipe: Any, data: SceneCaptions) -> dict[str, Any]:
    """Measures captions and attention, as told above."""
    said: list[list[str]] = []
    for indices in _chunks(data):
        features = data.batch(indices)["features"].to(recipe.device)
        said += [one.split() for one in say(recipe.kept, features, recipe.vocabulary)]
    other = [*range(1, len(data)), 0]
    return {
        "scenes": len(data),
        **_right(data, said, list(range(len(data)))),
        "other_scenes": _right(data, said, other),
        "peak_in_box": _peaks(recipe, data),
    }


def _chunks(data: SceneCaptions) -> list[np.ndarray]:
    return np.array_split(np.arange(len(data)), -(-len(data) // 50))


def _right(data: SceneCaptions, said: list[list[str]], truth: list[int]) -> dict[str, float]:
    """The share of captions whose words of things are all right, and of such words right at their place."""
    exact, right, count = 0, 0, 0
    for words, index in zip(said, truth, strict=True):
        wanted = data.sentences[index].words
        hits = [place < len(words) and words[place] == wanted[place] for place, _ in data.content(index)]
        exact += all(hits) and len(words) == len(wanted)
        right, count = right + sum(hits), count + len(hits)
    return {"exact": exact / len(said), "attributes": right / count}


def _peaks(recipe: Any, data: SceneCaptions) -> dict[str, float]:
    """How often the attention's peak lies in the box of what a word speaks of, and what other maps score."""
    maps, masks = _maps(recipe, data)
    found = pointing_game(maps, masks, tolerance=0)
    random = pointing_game(torch.rand_like(maps), masks, tolerance=0)
    return {
        "value": found.value,
        "area": found.area,
        "centre": found.centre,
        "random": random.value,
        "words": len(maps),
    }


def _maps(recipe: Any, data: SceneCaptions) -> tuple[Tensor, Tensor]:
    """The map and the boxes of each word that speaks of things, over all scenes."""
    maps, masks = [], []
    rows, columns = data.features.rows, data.features.columns
    for indices in _chunks(data):
        batch = read_batch(data, indices, recipe)
        told = recipe.kept(batch["features"].to(recipe.device), batch["tokens"].flatten(0, 1).to(recipe.device))
        for weights, boxes, index in zip(told.weights.float().cpu(), data.boxes(indices), indices, strict=True):
            for place, things in data.content(int(index)):
                maps.append(weights[place].view(rows, columns))
                masks.append(boxes[list(things)].any(dim=0))
    keep = [number for number, mask in enumerate(masks) if mask.any()]  # a thing may be hidden altogether
    return torch.stack([maps[n] for n in keep]), torch.stack([masks[n] for n in keep])


def draw_samples(recipe: Any, data: SceneCaptions, path: Path) -> None:
    """Draws one held-out scene under each word of what is said of it."""
    batch = data.batch(np.array([0]))
    features = batch["features"].to(recipe.device)
    said = say(recipe.kept, features, recipe.vocabulary)[0].split() or ["and"]
    system = recipe.kept
    tokens = torch.tensor([[system.start, *recipe.vocabulary.encode(said), system.end]], device=recipe.device)
    weights = system(features, tokens).weights[0, :-1].float().cpu()
    maps = weights.view(-1, data.features.rows, data.features.columns).numpy()
    picture = data.scenes.images([0])[0].permute(1, 2, 0).numpy()
    WordStrip(picture, said, maps, title=" ".join(said), caption=data.sentences[0].text).picture().save(path)
