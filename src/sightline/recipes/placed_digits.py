"""What the recipes of PS-ViT share: pictures with digits on photographs, or any labelled ones; where points lie."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.data.labelled import Union
from sightline.data.placed import Placed, boxes_of, open_placed
from sightline.lens.points import PointPath, draw_point_paths
from sightline.recipes import pictures

FRAME = pictures
Data = Placed | Union
BLIND = 2000  # pictures of the blind control


def open_data(spec: str, split: str) -> Data:
    """Opens `placed64:ITEMS+PHOTOGRAPHS` (`sightline.data.placed`), or what `sightline.data.labelled` opens."""
    return open_placed(spec, split) if spec.startswith("placed") else pictures.open_data(spec, split)


def agree(train: Data, held: Data) -> None:
    """Raises ValueError unless labelled photographs of both parts have the same classes, and all of them a label."""
    if isinstance(train, Union) and isinstance(held, Union):
        pictures.agree(train, held)


def read_batch(data: Data, indices: np.ndarray, recipe: Any) -> dict[str, Tensor]:
    """Reads "labels", and "digits" (batch, 28, 28) to lay out in training, else "images" (batch, 3, S, S), as bytes."""
    if not isinstance(data, Placed):
        return pictures.read_batch(data, indices, recipe)
    chosen = torch.from_numpy(indices)
    digits, labels = data.digits[chosen], data.labels[chosen]
    if data.layout is None:
        return {"digits": digits, "labels": labels}
    return {"images": data.pictures(digits, data.layout.take(chosen)), "labels": labels}


def share_inside(
    points: Float[Tensor, "batch looks points 2"], masks: Bool[Tensor, "batch height width"]
) -> Float[Tensor, " looks"]:
    """Computes what share of the points (x, y) in 0..1 of the picture lies on the masks, at each look."""
    height, width = masks.shape[-2:]
    cells = (points * torch.tensor([width, height], device=points.device)).floor().long()
    column, row = cells.unbind(dim=3)
    within = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    item = torch.arange(len(masks), device=masks.device)[:, None, None]
    return (masks[item, row.clamp(0, height - 1), column.clamp(0, width - 1)] & within).float().mean(dim=(0, 2))


def measure(recipe: Any, data: Data) -> dict[str, Any]:
    """Computes the accuracy; with digits on photographs also where the points lie, and a blind control.

    "box" and "ink": share of the points of each look inside the smallest box around the digit and on its strokes;
    "box_area" and "ink_area": their share of the picture.  "blind": accuracy on some of the grounds, without
    digits, which is chance unless the grounds give something away.
    """
    if not isinstance(data, Placed):
        return pictures.measure(recipe, data)
    assert data.layout is not None
    system, parts = recipe.kept.eval(), math.ceil(len(data) / 250)
    right = blind = shown = 0
    shares: dict[str, Any] = {"box": 0.0, "ink": 0.0, "box_area": 0.0, "ink_area": 0.0}
    for chosen in torch.arange(len(data)).tensor_split(parts):
        layout = data.layout.take(chosen).to(recipe.device)
        digits, labels = data.digits[chosen].to(recipe.device), data.labels[chosen].to(recipe.device)
        sampled = system.read(recipe.normalised(data.pictures(digits, layout)))
        right += int((system.answer(sampled).argmax(dim=1) == labels).sum())
        if chosen[0] < BLIND:
            bare = recipe.logits(data.bare(layout)).argmax(dim=1)
            blind, shown = blind + int((bare == labels).sum()), shown + len(chosen)
        ink = data.ink(digits, layout)
        masks = {"ink": ink, "box": boxes_of(ink)}
        for name, mask in masks.items():
            weight = len(chosen) / len(data)
            shares[name] += share_inside(system.places(sampled.points, data.side), mask).cpu() * weight
            shares[f"{name}_area"] += float(mask.float().mean()) * weight
    told = {name: value.tolist() if isinstance(value, Tensor) else value for name, value in shares.items()}
    top1 = right / len(data)
    return {"pictures": len(data), "classes": 10, "chance": 0.1, "top1": top1, "blind": blind / shown, **told}


@torch.no_grad()
def draw_samples(recipe: Any, data: Data, path: Path, count: int = 18) -> None:
    """Draws held-out pictures with the way of the points over each, and the answer."""
    chosen = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)
    batch, system = read_batch(data, chosen, recipe), recipe.kept.eval()
    sampled = system.read(recipe.normalised(batch["images"].to(recipe.device)))
    answers = system.answer(sampled).argmax(dim=1).tolist()
    ways = system.places(sampled.points, batch["images"].shape[-1]).cpu()
    names = recipe.classes
    paths = [PointPath(image, way) for image, way in zip(batch["images"], ways, strict=True)]
    told = [
        f"{names[answer]}{'' if answer == truth else f' (is {names[truth]})'}"
        for answer, truth in zip(answers, batch["labels"].tolist(), strict=True)
    ]
    draw_point_paths(paths, told).save(path)
