"""What recipes of classifiers share: labelled photographs in, accuracy and sample pictures out.

The recipe has `classes` (their names in the order of the logits), `side` and `logits(images)` of byte images.
"""

import json
import math
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sightline.data.labelled import Labelled, Union, open_labelled
from sightline.data.pixels import to_square
from sightline.data.unlabelled import UNKNOWN

HELD = "val_top1"


def open_data(spec: str, split: str) -> Union:
    """Opens KIND:PATH, or several joined by +, as `sightline.data.labelled.open_labelled` does."""
    return open_labelled(spec, split)


def agree(train: Union, held: Union) -> None:
    """Raises ValueError unless training and held-out pictures have the same classes, and all of them a label."""
    if (train.labels == UNKNOWN).any():
        raise ValueError("some pictures have no label (photos:…): a classifier cannot learn from them, dino can")
    if train.classes != held.classes:
        differing = sorted(set(train.classes) ^ set(held.classes)) or ["(the same, in another order)"]
        raise ValueError(f"train and val differ in the classes {', '.join(differing[:5])}")


def sizes_for(data: Any, sizes: dict[str, Any]) -> dict[str, Any]:
    """Gives the sizes of a system with as many classes as the data has; ValueError where they say otherwise."""
    if data is None:
        return sizes
    if sizes.get("classes", len(data.classes)) != len(data.classes):
        raise ValueError(f"classes={sizes['classes']}: the data has {len(data.classes)}; leave it out")
    return sizes | {"classes": len(data.classes)}


def read_batch(data: Labelled, indices: np.ndarray, recipe: Any) -> dict[str, Tensor]:
    """Reads pictures into {"images": bytes (batch, 3, side, side), "labels": (batch,)}."""
    images = [to_square(data.image(int(i)), recipe.side) for i in indices]
    return {"images": torch.stack(images), "labels": torch.from_numpy(data.labels[indices])}


@torch.inference_mode()
def measure(recipe: Any, data: Union) -> dict[str, Any]:
    """Counts how often the truth is the first, and among the first five, of all classes; for each part and for all.

    Gives {"classes", "chance", "parts": [{"pictures", "classes", "top1", "top5", "own_top1"}], "top1", "top5",
    "pictures"}.  `own_top1` counts among the classes of that part alone: two collections may have nearly the same
    class under two names (cat, tabby_cat), which is an error among all classes.  Ties count as wrong, so a network
    that says the same of everything gains nothing.  Raises ValueError for pictures of unknown classes.
    """
    classes = tuple(recipe.classes)
    unknown = sorted(set(data.classes) - set(classes))
    if unknown:
        raise ValueError(f"the data has classes that these weights do not know: {', '.join(unknown)}")
    recipe.kept.eval()
    parts = []
    for number, part in enumerate(data.parts):
        names = [data.classes[label] for label in data.part_labels(number)]
        truth = torch.tensor([classes.index(name) for name in names], device=recipe.device)
        own_classes = torch.tensor([classes.index(name) for name in part.classes], device=recipe.device)
        ranks, right = [], []
        for chosen in np.array_split(np.arange(len(part)), math.ceil(len(part) / 250)):
            logits = recipe.logits(read_batch(part, chosen, recipe)["images"].to(recipe.device))
            own = logits.gather(1, truth[chosen[0] : chosen[-1] + 1, None])
            ranks.append((logits >= own).sum(dim=1) - 1)
            right.append((logits[:, own_classes] >= own).sum(dim=1) == 1)
        rank = torch.cat(ranks)
        shares = {f"top{n}": (rank < n).double().mean().item() for n in (1, 5)}
        shares["own_top1"] = torch.cat(right).double().mean().item()
        parts.append({"pictures": len(part), "classes": len(part.classes)} | shares)
    count = sum(part["pictures"] for part in parts)
    both = {top: sum(part[top] * part["pictures"] for part in parts) / count for top in ("top1", "top5")}
    return {"classes": len(classes), "chance": 1 / len(classes), "pictures": count, **both, "parts": parts}


def describe(recipe: Any, data: Any) -> dict[str, Any]:
    """Gives what the card says of the pictures: their size, the mean and deviation of their channels, the classes."""
    return {
        "image_size": recipe.side,
        "mean": [round(value, 4) for value in recipe.mean.flatten().tolist()],
        "std": [round(value, 4) for value in recipe.deviation.flatten().tolist()],
        "classes": list(recipe.classes),
    }


def load_beside(recipe: Any, folder: Path) -> None:
    """Gives a recipe without data the classes that the card of its weights names."""
    recipe.classes = tuple(json.loads((folder / "card.json").read_text(encoding="utf-8"))["classes"])


@torch.inference_mode()
def draw_samples(recipe: Any, data: Union, path: Path, count: int = 18) -> None:
    """Draws held-out pictures with what the network calls them, its probability, and the truth where it errs."""
    from matplotlib.figure import Figure

    chosen = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)
    batch = read_batch(data, chosen, recipe)
    likely, named = recipe.logits(batch["images"].to(recipe.device)).softmax(dim=1).cpu().max(dim=1)
    rows = math.ceil(len(chosen) / 6)
    figure = Figure(figsize=(12, 2.3 * rows), layout="constrained")
    axes = np.ravel(figure.subplots(rows, 6, squeeze=False))
    for axis in axes:
        axis.axis("off")
    shown = zip(axes, batch["images"], batch["labels"], named, likely, strict=False)
    for axis, image, truth, name, share in shown:
        axis.imshow(image.permute(1, 2, 0).numpy())
        wrong = "" if truth == name else f"\nis {data.classes[truth]}"
        told = f"{recipe.classes[name]} {share:.0%}{wrong}".replace("_", " ")
        axis.set_title("\n".join(line for part in told.split("\n") for line in wrap(part, 28)), fontsize=8)
    figure.savefig(path, dpi=110)
