"""Trains Visual7W to answer questions by pointing at one of four boxes.

data      scenes:N, the generated world with all its pointing questions (recipes/answers.py)
system    systems/visual7w.py, its own small eyes
objective cross-entropy among the four boxes and `windows` random ones that hardly overlap the right one
measure   the best of the four boxes; with other pictures; and without boxes: whether the best of square windows all
          over the picture overlaps the right box by more than half
control   as in recipes/visual7w.py
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sightline.data.asked import Asked
from sightline.lens.view import side_by_side
from sightline.recipes import answers, visual7w
from sightline.recipes.marks import batches, by_sort, marks, ready
from sightline.recipes.visual7w import usual
from sightline.systems.visual7w import Visual7WPointing
from sightline.tasks.point import overlap, windows, with_boxes

FRAME = visual7w
open_data = partial(answers.open_data, task="pointing")


@dataclass(frozen=True)
class Settings(visual7w.Settings):
    """What can be set as key=value beside the system's own arguments."""

    windows: int = 12  # random wrong boxes for each question


def build(data: Asked | None, **sizes: Any) -> Visual7WPointing:
    """Builds the system for the words and pictures of the data, with this recipe's sizes where none are given."""
    more = {"region": 128} if data is not None else {}
    return Visual7WPointing(**usual(data) | more | sizes)


class Recipe(visual7w.Recipe):
    """Trains a system that has `loss(batch)` with boxes."""

    def training_step(self, batch: dict[str, Tensor], number: int) -> Tensor:
        settings: Any = self.settings
        batch = ready(batch, self.device, settings.shuffle)
        boxes = with_windows(batch["boxes"], batch["right"], settings.windows)
        system: Any = self.system
        return system.loss(batch | {"boxes": boxes})["loss"]


def with_windows(boxes: Tensor, right: Tensor, count: int) -> Tensor:
    """Adds random windows, (pictures, questions, boxes + count, 4); those on the right box shrink to nothing."""
    size = torch.empty(*boxes.shape[:2], count, 2, device=boxes.device).uniform_(0.12, 0.4)
    corner = torch.rand_like(size) * (1 - size)
    random = torch.cat([corner, corner + size], dim=3)
    place = right.clamp(min=0)[:, :, None, None].expand(-1, -1, 1, 4)
    near = overlap(random, boxes.gather(2, place)) > 0.3
    return torch.cat([boxes, random.masked_fill(near[..., None], 0.0)], dim=2)


def measure(recipe: Any, data: Asked) -> dict[str, Any]:
    """Computes the accuracies on a split, by sort of question, with other pictures, and without given boxes."""
    right, other = marks(recipe, data), marks(recipe, data, other=True)
    return {
        "questions": len(right),
        "chance": 0.25,
        "accuracy": sum(right.values()) / len(right),
        "other_pictures": sum(other.values()) / len(other),
        "by_sort": by_sort(data.items, right),
        "without_boxes": unaided(recipe, data),
    }


def unaided(recipe: Any, data: Asked) -> dict[str, int | float]:
    """Computes how often the best of all windows overlaps the right box by more than half, and a random one does."""
    offered = windows().to(recipe.device)
    hits = chance = best = count = 0.0
    data.vocabulary = recipe.vocabulary
    for indices in batches(data):
        batch = ready(data.batch(indices), recipe.device)
        there = batch["right"] >= 0
        everywhere = offered.expand(*there.shape, -1, -1)
        chosen = offered[recipe.kept(batch["pictures"], batch["questions"], everywhere)[0].argmax(dim=2)]
        place = batch["right"].clamp(min=0)[:, :, None, None].expand(-1, -1, 1, 4)
        truth = batch["boxes"].gather(2, place)
        shared = overlap(everywhere, truth)[there]
        hits += float((overlap(chosen, truth[:, :, 0])[there] > 0.5).sum())
        chance += float((shared > 0.5).float().mean(dim=1).sum())
        best += float((shared > 0.5).any(dim=1).sum())
        count += int(there.sum())
    return {"windows": len(offered), "found": hits / count, "random": chance / count, "best_window": best / count}


def draw_samples(recipe: Any, data: Asked, path: Any) -> None:
    """Draws six held-out pictures with a question and the box that is chosen."""
    chosen = np.linspace(0, len(data) - 1, 6).round().astype(int)
    batch = ready(answers.read_batch(data, chosen, recipe), recipe.device)
    scores, _ = recipe.kept(batch["pictures"], batch["questions"], batch["boxes"])
    pictures, labels = [], []
    for place in range(len(chosen)):
        number = place % int((batch["items"][place] >= 0).sum())
        item = data.items[int(batch["items"][place, number])]
        best = int(scores[place, number].argmax())
        picture = Image.fromarray((batch["pictures"][place].permute(1, 2, 0).cpu().numpy() * 255).astype(np.uint8))
        side = picture.width
        left, top, right, bottom = (value * side for value in item.boxes[best])
        pictures.append(with_boxes(picture, [(left, top, right, bottom)]))
        labels.append(f"{item.question}? ({'right' if best == item.right else 'wrong'})")
    side_by_side(pictures, labels=labels).save(path)
