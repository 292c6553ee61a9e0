"""What a run leaves: weights with their card, figures, curves and sample pictures."""

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sightline.recipes.plan import command_of
from sightline.recipes.watch import Record


def measured(recipe_file: Any, recipe: Any, data: Any) -> dict[str, Any]:
    """Gives the recipe's figures, with the seed of the run, on a GPU where there is one."""
    torch.manual_seed(recipe.settings.seed)
    recipe.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    with torch.no_grad():
        return recipe_file.measure(recipe, data)


def write_results(folder: Path, plan: dict[str, Any], recipe_file: Any, recipe: Any, record: Record, held: Any) -> None:
    """Measures the kept network and writes it with its card, `metrics.json`, `curves.png` and `samples.png`."""
    settings, weights = plan["settings"], folder / "weights"
    recipe.kept.save_pretrained(weights)
    (weights / "README.md").unlink(missing_ok=True)  # huggingface_hub's: it says that these were pushed to the Hub
    if hasattr(recipe_file, "save_beside"):
        recipe_file.save_beside(recipe, weights)
    figures = {
        "measured": measured(recipe_file, recipe, held),
        "parameters": sum(p.numel() for p in recipe.kept.parameters()),
        "passes": settings["steps"] * settings["batch"],
        "seconds": round(record.seconds),
        "machine": _machine(),
        "torch": torch.__version__,
    }
    card = {
        "system": plan["system"],
        **recipe_file.describe(recipe, held),
        "command": command_of(plan),
        "seed": settings["seed"],
        "settings": settings,
        **figures,
    }
    (weights / "card.json").write_text(json.dumps(card, indent=1), encoding="utf-8")
    draw_curves(record, folder / "curves.png")
    with torch.no_grad():
        recipe_file.draw_samples(recipe, held, folder / "samples.png")
    # last, since its presence says that the run is complete
    curves = {"held_out": record.held, "losses": record.losses}
    (folder / "metrics.json").write_text(json.dumps(figures | curves), encoding="utf-8")


def _machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {torch.get_num_threads()} thread(s)"


def draw_curves(record: Record, path: Path) -> None:
    """Draws the training loss, smoothed over a hundredth of the run, and the held-out figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    window = max(1, len(record.losses) // 100)
    smooth = np.convolve(record.losses, np.ones(window) / window, mode="valid")
    if window > 1:
        left.plot(np.arange(1, len(record.losses) + 1), record.losses, color="C0", alpha=0.2, linewidth=0.6)
        left.set_ylim(*_without_spikes(record.losses))
    left.plot(np.arange(window, len(record.losses) + 1), smooth, color="C0")
    left.set(xlabel="step", ylabel="training loss" if window == 1 else f"training loss (dark: mean of {window})")
    if record.held:
        steps, values = zip(*record.held, strict=True)
        right.plot(steps, values, marker="o", markersize=4, color="C1")
        if min(values) >= 0 and max(values) <= 1:
            right.set_ylim(0, min(1.0, 1.2 * max(values) or 1.0))
        right.annotate(f"{values[-1]:.3g}", (steps[-1], values[-1]), (0, 6), textcoords="offset points", ha="center")
    right.set(xlabel="step", ylabel=f"{record.told}, held-out samples")
    for axis in (left, right):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def _without_spikes(losses: list[float]) -> tuple[float, float]:
    low, high = np.quantile(losses, [0.0, 0.995])
    room = 0.05 * (high - low) or 0.05
    return low - room, high + room
