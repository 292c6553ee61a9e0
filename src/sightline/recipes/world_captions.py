"""Trains Show, Attend and Tell to name the things of generated scenes from left to right, and measures where it looks.

data      scenes:COUNT[#ENCODER], COUNT scenes for training and an eighth as many others held out; the frozen encoder is
          efficientnet_lite0:11 (cells of 16 x 16 pixels of 224) where none is named
system    systems/show_attend_tell.py, as on photographs
measure   greedy captions of all held-out scenes: how many name everything rightly and in order, how many words of
          things (colours, shapes) are right at their place; the same captions held against other scenes; and where the
          model looked (recipes/scene_looks.py)
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sightline.data.scene_captions import SceneCaptions
from sightline.data.scenes import Scenes
from sightline.lens.strip import WordStrip
from sightline.recipes import show_attend_tell
from sightline.recipes.captions import say
from sightline.recipes.scene_looks import kind_of, scene_chunks, scene_looks
from sightline.systems.show_attend_tell import ShowAttendTell
from sightline.tasks.encoder import cached_scenes

FRAME = show_attend_tell
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
    return {**words_right(recipe, data), "peak_in_box": scene_looks(recipe, data)}


def words_right(recipe: Any, data: SceneCaptions) -> dict[str, Any]:
    """Measures greedy captions, against their own scenes and against others."""
    said: list[list[str]] = []
    for indices in scene_chunks(data):
        features = data.batch(indices)["features"].to(recipe.device)
        said += [one.split() for one in say(recipe.kept, features, recipe.vocabulary)]
    other = [*range(1, len(data)), 0]
    return {
        "scenes": len(data),
        **_right(data, said, list(range(len(data)))),
        "other_scenes": _right(data, said, other),
    }


def _right(data: SceneCaptions, said: list[list[str]], truth: list[int]) -> dict[str, float]:
    """The share of captions whose words of things are all right, and of such words right at their place."""
    exact, right = 0, {"colours": [0, 0], "shapes": [0, 0]}
    for words, index in zip(said, truth, strict=True):
        wanted = data.sentences[index].words
        hits = 0
        for place, _ in data.content(index):
            hit = place < len(words) and words[place] == wanted[place]
            hits += hit
            right[kind_of(wanted[place])][0] += hit
            right[kind_of(wanted[place])][1] += 1
        exact += hits == len(data.content(index)) and len(words) == len(wanted)
    shares = {kind: hit / count for kind, (hit, count) in right.items()}
    both = sum(hit for hit, _ in right.values()) / sum(count for _, count in right.values())
    return {"exact": exact / len(said), "attributes": both, **shares}


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
