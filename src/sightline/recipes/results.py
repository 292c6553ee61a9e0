"""What a run leaves: weights with their card, figures, curves and sample pictures; and how accuracy is counted."""

import json
import math
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sightline.data.labelled import Union
from sightline.recipes.batches import picture_batch
from sightline.recipes.plan import command_of
from sightline.recipes.watch import Record


@torch.inference_mode()
def measure(recipe: Any, pictures: Union, classes: tuple[str, ...]) -> dict[str, Any]:
    """Counts how often the truth is the first, and among the first five, of all `classes`; for each part and for all.

    Gives {"classes", "chance", "parts": [{"pictures", "classes", "top1", "top5", "own_top1"}], "top1", "top5",
    "pictures"}.  `own_top1` counts among the classes of that part alone: two collections may have nearly the same
    class under two names (cat, tabby_cat), which is an error among all classes.  Ties count as wrong, so a network
    that says the same of everything gains nothing.
    """
    recipe.kept.eval()
    parts = []
    for number, part in enumerate(pictures.parts):
        names = [pictures.classes[label] for label in pictures.part_labels(number)]
        truth = torch.tensor([classes.index(name) for name in names], device=recipe.device)
        own_classes = torch.tensor([classes.index(name) for name in part.classes], device=recipe.device)
        ranks, right = [], []
        for chosen in np.array_split(np.arange(len(part)), math.ceil(len(part) / 250)):
            images = picture_batch(part, chosen, recipe.side)["images"].to(recipe.device)
            logits = recipe.logits(images)
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


def write_results(folder: Path, plan: dict[str, Any], recipe: Any, record: Record, held: Union) -> None:
    """Measures the kept network and writes it with its card, `metrics.json`, `curves.png` and `samples.png`."""
    settings, weights = plan["settings"], folder / "weights"
    recipe.kept.save_pretrained(weights)
    figures = {
        "measured": measure(recipe, held, held.classes),
        "parameters": sum(p.numel() for p in recipe.kept.parameters()),
        "passes": settings["steps"] * settings["batch"],
        "seconds": round(record.seconds),
        "machine": _machine(),
        "torch": torch.__version__,
    }
    card = {
        "system": plan["system"],
        "image_size": recipe.side,
        "mean": [round(value, 4) for value in recipe.mean.flatten().tolist()],
        "std": [round(value, 4) for value in recipe.deviation.flatten().tolist()],
        "classes": held.classes,
        "command": command_of(plan),
        "seed": settings["seed"],
        **figures,
    }
    (weights / "card.json").write_text(json.dumps(card, indent=1), encoding="utf-8")
    _draw_curves(record, folder / "curves.png")
    _draw_samples(recipe, held, folder / "samples.png")
    # last, since its presence says that the run is complete
    curves = {"held_out": record.held, "losses": record.losses}
    (folder / "metrics.json").write_text(json.dumps(figures | curves), encoding="utf-8")


def _machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s)"


def _draw_curves(record: Record, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    window = max(1, len(record.losses) // 100)
    smooth = np.convolve(record.losses, np.ones(window) / window, mode="valid")
    left.plot(np.arange(window, len(record.losses) + 1), smooth)
    left.set(xlabel="step", ylabel=f"training loss (mean of {window})")
    steps, shares = zip(*record.held, strict=True)
    right.plot(steps, shares, marker=".")
    right.set(xlabel="step", ylabel="top-1, held-out pictures", ylim=(0, 1))
    figure.savefig(path, dpi=110)


@torch.inference_mode()
def _draw_samples(recipe: Any, held: Union, path: Path, count: int = 18) -> None:
    """Held-out pictures with what the network calls them, its probability, and the truth where it errs."""
    from matplotlib.figure import Figure

    chosen = np.linspace(0, len(held) - 1, min(count, len(held))).round().astype(int)
    batch = picture_batch(held, chosen, recipe.side)
    likely, named = recipe.logits(batch["images"].to(recipe.device)).softmax(dim=1).cpu().max(dim=1)
    rows = math.ceil(len(chosen) / 6)
    figure = Figure(figsize=(12, 2.3 * rows), layout="constrained")
    axes = np.ravel(figure.subplots(rows, 6, squeeze=False))
    for axis in axes:
        axis.axis("off")
    shown = zip(axes, batch["images"], batch["labels"], named, likely, strict=False)
    for axis, image, truth, name, share in shown:
        axis.imshow(image.permute(1, 2, 0).numpy())
        wrong = "" if truth == name else f"\nis {held.classes[truth]}"
        axis.set_title(f"{held.classes[name]} {share:.0%}{wrong}".replace("_", " "), fontsize=8)
    figure.savefig(path, dpi=110)
