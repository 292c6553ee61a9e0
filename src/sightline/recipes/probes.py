"""How features without labels are measured: nearest neighbours, and a linear classifier, on labelled pictures."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sightline.data.unlabelled import UNKNOWN
from sightline.metrics.neighbours import neighbour_accuracy
from sightline.metrics.probe import linear_accuracy
from sightline.recipes import banks
from sightline.recipes.banks import Pictures, read_batch
from sightline.systems.backbones import last_tokens
from sightline.systems.vit import VisionTransformer

FRAME = banks
HELD = "val_knn"
LAYERS = 4  # whose class tokens the linear classifier reads, as published for ViT-S


def features_of(backbone: nn.Module, images: Tensor) -> Tensor:
    """Gives what the linear classifier reads: the class tokens after the last four layers, or a network's features.

    The last `width` columns are what neighbours are sought by.
    """
    if isinstance(backbone, VisionTransformer):
        kept = last_tokens(backbone, images, LAYERS)[:, :, 0]
        return kept.transpose(0, 1).flatten(1)
    return backbone(images)


@torch.inference_mode()
def collect(recipe: Any, data: Any, most: int = 0, batch: int = 500) -> tuple[Tensor, Tensor]:
    """Computes features (n, D) and labels (n,) by the kept network: of all labelled pictures, or `most`, evenly spread.

    Raises ValueError where no picture has a label.
    """
    network = recipe.kept.eval()
    labelled = np.flatnonzero(data.labels != UNKNOWN)
    if not len(labelled):
        raise ValueError("no picture has a label, so features cannot be measured: add a labelled collection (folder:…)")
    chosen = labelled[np.linspace(0, len(labelled) - 1, min(most or len(labelled), len(labelled))).round().astype(int)]
    features, labels = [], []
    for some in np.array_split(chosen, math.ceil(len(chosen) / batch)):
        read = read_batch(data, some, recipe)
        features.append(features_of(network, recipe.normalised(read["images"].to(recipe.device))).float())
        labels.append(read["labels"].to(recipe.device))
    return torch.cat(features), torch.cat(labels)


def figures(known: Tensor, labels: Tensor, features: Tensor, truth: Tensor, width: int) -> dict[str, Any]:
    """Gives k-NN accuracy for the published k, "knn" (k = 20) and that of a linear classifier."""
    near = neighbour_accuracy(features[:, -width:], truth, known[:, -width:], labels)
    return {
        "knn": near[20],
        "knn_by_k": {str(k): value for k, value in near.items()},
        # as many steps for many pictures as for 12,800 of them
        "linear": linear_accuracy(features, truth, known, labels, batch=max(256, len(known) // 50)),
    }


def measure(recipe: Any, data: Pictures) -> dict[str, Any]:
    """Measures each collection by itself against its own training pictures; the first one's figures stand for all.

    Gives {"knn", "linear", "parts": [{"name", "pictures", "known", "classes", "chance", "knn", "knn_by_k", "linear"}]}.
    Raises ValueError for the training pictures themselves, which would find themselves, and for training pictures of
    other classes.
    """
    if data.split == "train":
        raise ValueError("neighbours are sought among the training pictures: measure on split val")
    parts = []
    for name, (held, bank) in data.measurable().items():
        known, labels = collect(recipe, bank, recipe.settings.bank)
        features, truth = collect(recipe, held, recipe.settings.bank)
        told = figures(known, labels, features, truth, recipe.width)
        count = {"name": name, "pictures": len(truth), "known": len(labels), "classes": len(held.classes)}
        parts.append({**count, "chance": 1 / len(held.classes), **told})
    biggest = max(parts, key=lambda part: part["pictures"])
    return {"knn": biggest["knn"], "linear": biggest["linear"], "parts": parts}


def describe(recipe: Any, data: Pictures) -> dict[str, Any]:
    """Gives what the card says: the pictures' size, mean and deviation, and how the loss went."""
    return {
        "image_size": recipe.side,
        "mean": [round(value, 4) for value in recipe.mean.flatten().tolist()],
        "std": [round(value, 4) for value in recipe.deviation.flatten().tolist()],
        "traced": recipe.traced,
    }


@torch.inference_mode()
def draw_samples(recipe: Any, data: Pictures, path: Path, rows: int = 6, near: int = 7) -> None:
    """Draws held-out pictures, each with its nearest neighbours among 2,000 training pictures and their cosine."""
    from matplotlib.figure import Figure

    held, bank = max(data.measurable().values(), key=lambda pair: len(pair[0]))
    places = np.linspace(0, len(bank) - 1, min(2000, len(bank))).round().astype(int)
    chosen = np.linspace(0, len(held) - 1, rows).round().astype(int)
    known, _ = collect(recipe, bank, len(places))
    asked = features_of(recipe.kept, recipe.normalised(read_batch(held, chosen, recipe)["images"].to(recipe.device)))
    unit = [nn.functional.normalize(part[:, -recipe.width :].float().cpu(), dim=1) for part in (asked, known)]
    value, place = (unit[0] @ unit[1].T).topk(min(near, len(places)), dim=1)
    figure = Figure(figsize=(1.3 * (near + 1), 1.5 * rows), layout="constrained")
    axes = figure.subplots(rows, near + 1)
    for row, number in enumerate(chosen):
        shown = [(held.image(int(number)), held.classes[held.labels[number]])]
        for score, one in zip(value[row].tolist(), places[place[row].numpy()], strict=True):
            shown.append((bank.image(int(one)), f"{bank.classes[bank.labels[one]]} {score:.2f}"))
        for axis in axes[row]:
            axis.axis("off")
        for axis, (picture, title) in zip(axes[row], shown, strict=False):
            axis.imshow(picture)
            axis.set_title(title.replace("_", " "), fontsize=7)
    figure.savefig(path, dpi=110)
