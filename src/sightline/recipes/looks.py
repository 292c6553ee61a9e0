"""Where an answerer looked, against what is known of the generated world's pictures.

"peak" is the share of answers whose map is highest on a thing that the question is about (its box); "area", "centre"
and "random" are what an even map, the middle of the picture and a random map score.  "spread" is the entropy of a
word's map in nats; an even map has the most.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sightline.data.asked import Asked
from sightline.metrics.localisation import pointing_game
from sightline.recipes.marks import batches, ready


def looks(recipe: Any, data: Asked, right: dict[int, bool]) -> dict[str, Any]:
    """Measures the maps of the chosen answers' words: peaks apart for right and wrong, spread by kind of answer."""
    maps: dict[int, Tensor] = {}
    spread: dict[int, float] = {}
    for indices in batches(data):
        batch = ready(data.batch(indices), recipe.device)
        cost, weights = recipe.kept.cost(batch["pictures"], batch["questions"], batch["choices"])
        chosen = cost.argmin(dim=2)[:, :, None, None]
        words = batch["choices"].gather(2, chosen.expand(-1, -1, -1, batch["choices"].shape[3]))[:, :, 0, 1:]
        said = (words != recipe.kept.pad) & (words != recipe.kept.end)
        index = chosen[..., None].expand(-1, -1, -1, *weights.shape[3:])
        looked = weights.gather(2, index)[:, :, 0].float()  # (pictures, questions, words, cells)
        count = said.sum(dim=2).clamp(min=1)
        entropy = (torch.special.entr(looked).sum(dim=3) * said).sum(dim=2) / count
        mean = (looked * said[..., None]).sum(dim=2) / count[..., None]
        for place, number in (batch["items"] >= 0).nonzero().tolist():
            item = int(batch["items"][place, number])
            maps[item], spread[item] = mean[place, number].cpu(), float(entropy[place, number])
    return {**_peaks(data, maps, right), "spread": _spread(data, spread, next(iter(maps.values())).numel())}


def _peaks(data: Asked, maps: dict[int, Tensor], right: dict[int, bool]) -> dict[str, Any]:
    regions = {item: region for item in maps if (region := _region(data, item)).any()}
    groups = {"all": list(regions), "right": [], "wrong": []}
    for item in regions:
        groups["right" if right[item] else "wrong"].append(item)
        groups.setdefault(data.items[item].sort, []).append(item)
    return {name: _pointing(maps, regions, items) for name, items in groups.items() if len(items) >= 100}


def _pointing(maps: dict[int, Tensor], regions: dict[int, Tensor], items: list[int]) -> dict[str, int | float]:
    """The shares of peaks that hit, over all items."""
    totals = np.zeros(4)
    generator = torch.Generator().manual_seed(0)
    for first in range(0, len(items), 500):
        some = items[first : first + 500]
        heat, inside = torch.stack([maps[i] for i in some]), torch.stack([regions[i] for i in some])
        heat = heat.unflatten(1, (round(heat.shape[1] ** 0.5), -1))
        game = pointing_game(heat, inside, tolerance=0)
        chance = pointing_game(torch.rand(heat.shape, generator=generator), inside, tolerance=0)
        totals += np.array([game.value, game.area, game.centre, chance.value]) * len(some)
    shares = dict(zip(("peak", "area", "centre", "random"), (totals / len(items)).tolist(), strict=True))
    return {"questions": len(items), **shares}


def _region(data: Asked, item: int) -> Tensor:
    """The union of the boxes of what the question is about, in the picture's pixels."""
    assert data.things is not None
    side = data.about["image_size"]
    inside = torch.zeros(side, side, dtype=torch.bool)
    for thing in data.items[item].about:
        left, top, right, bottom = data.things[data.items[item].picture, thing].tolist()
        inside[top:bottom, left:right] = True
    return inside


def _spread(data: Asked, spread: dict[int, float], cells: int) -> dict[str, Any]:
    """Mean entropy for answers that are things and those that are not, with the standard error of each."""
    told: dict[str, Any] = {"even": math.log(cells)}
    for name, is_thing in (("things", True), ("others", False)):
        values = np.array([value for item, value in spread.items() if data.items[item].thing == is_thing])
        told[name] = {"mean": float(values.mean()), "error": float(values.std() / len(values) ** 0.5)}
    return told
