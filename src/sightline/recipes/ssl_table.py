"""The DINO paper's table 2 at small scale: every method on one frame, one run after another, each kept once it is done.

A row is a run of a recipe as `ssl_rows.py` says; what it reached stands in its folder as `row.json`.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sightline.recipes.backbone import build
from sightline.recipes.banks import open_data
from sightline.recipes.plan import TrainingError
from sightline.recipes.probes import figures
from sightline.recipes.ssl_rows import BATCH, ROWS, SETTINGS, SHARED, SIDE, SIZES, Row
from sightline.recipes.train import train
from sightline.systems.resnet import ResNet


def run_row(name: str, data: str, out: Path, *, budget: int, scale: str = "full", **more: Any) -> dict[str, Any]:
    """Trains and measures one row in `out`/NAME, unless it is there already; gives what `row.json` says.

    `budget` is how many pictures are read, with repetition; `scale` is "full", "small" or "tiny" (`ssl_rows.SIZES`);
    `more` overrides settings and sizes.  A run that was cut off goes on.  Raises ValueError for an unknown row, a
    folder with a run, finished or not, of other data, budget, scale or settings, and what `train` raises.
    """
    if name not in ROWS:
        raise TrainingError(f"no row {name!r} in the table; there are: {', '.join(ROWS)}")
    row, folder = ROWS[name], out / name.replace("/", "-")
    asked = {"data": data, "budget": budget, "scale": scale}
    _keep_request(folder, asked | {"more": more})
    if (folder / "row.json").is_file():
        return json.loads((folder / "row.json").read_text(encoding="utf-8"))
    told = _pixels(data, scale) if name == "pixels" else _trained(row, data, folder, budget, scale, more)
    found = {
        "row": name,
        "title": row.title,
        "architecture": row.architecture,
        "ablation": row.ablation,
        **asked,
        **told,
    }
    (folder / "row.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def _keep_request(folder: Path, asked: dict[str, Any]) -> None:
    """Writes what was asked beside the run, before it starts; refuses a run that was started for something else."""
    file, wanted = folder / "asked.json", json.loads(json.dumps(asked))
    if any((folder / kept).is_file() for kept in ("row.json", "metrics.json", "checkpoints/last.ckpt")):
        former = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        differing = [f"{key} {former.get(key, 'unknown')!r}" for key in wanted if former.get(key) != wanted[key]]
        if differing:
            told = ", ".join(differing)
            raise TrainingError(f"{folder}: holds this row with {told}; ask for the same, or give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(wanted), encoding="utf-8")


def _trained(row: Row, data: str, folder: Path, budget: int, scale: str, more: dict[str, Any]) -> dict[str, Any]:
    if not (folder / "metrics.json").is_file():
        if (folder / "checkpoints" / "last.ckpt").is_file():
            train(out=folder, resume=folder)
        else:
            batch, tiny = BATCH[scale], scale == "tiny"
            fast = {"precision": "bf16-mixed"} if torch.cuda.is_available() else {}
            usual = {"batch": batch, "steps": max(1, budget // batch), **fast, **SHARED, **SETTINGS[row.architecture]}
            usual |= SIZES[scale][row.architecture] | ({"bank": 200} if tiny else {})
            train(row.recipe, data, out=folder, tiny=tiny, **(usual | row.settings | more))
    done = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    card = json.loads((folder / "weights" / "card.json").read_text(encoding="utf-8"))
    network = build(None, **json.loads((folder / "weights" / "config.json").read_text(encoding="utf-8")))
    return {
        "parameters": done["parameters"],
        "passes": done["passes"],
        "train_per_s": round(done["passes"] / max(done["seconds"], 1), 1),
        "images_per_s": images_per_second(network, BATCH[scale]),
        "machine": done["machine"],
        "seed": card["seed"],
        "command": card["command"],
        "traced": card["traced"],
        "parts": done["measured"]["parts"],
    }


def _pixels(data: str, scale: str) -> dict[str, Any]:
    """Measures the pixels themselves as features."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts = []
    for name, (held, bank) in open_data(data, "val").measurable().items():
        read: list[tuple[torch.Tensor, torch.Tensor]] = []
        for one in (bank, held):
            count = min(200, len(one)) if scale == "tiny" else len(one)
            places = np.linspace(0, len(one) - 1, count).round().astype(int)
            pixels = one.squares(places, SIDE).flatten(1).to(device).float() / 255  # type: ignore[attr-defined]
            read.append((pixels, torch.from_numpy(one.labels[places]).to(device)))
        (known, labels), (pixels, truth) = read
        sizes = {"name": name, "pictures": len(truth), "known": len(labels), "classes": len(held.classes)}
        parts.append(
            {**sizes, "chance": 1 / len(held.classes), **figures(known, labels, pixels, truth, pixels.shape[1])}
        )
    return {"parameters": 0, "passes": 0, "train_per_s": None, "images_per_s": None, "traced": [], "parts": parts}


@torch.inference_mode()
def images_per_second(network: torch.nn.Module, batch: int, seconds: float = 1.0) -> float:
    """Times the features of random pictures, in bfloat16 on a GPU and float32 on a CPU, after one batch to warm up."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layout = torch.channels_last if isinstance(network, ResNet) else torch.contiguous_format
    network = network.to(device).eval()
    images = torch.rand(batch, 3, SIDE, SIDE, device=device).contiguous(memory_format=layout)
    done, start = -1, 0.0
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        while done < 1 or time.perf_counter() - start < seconds:
            network(images)[0, 0].item()  # waits for the GPU
            start = start or time.perf_counter()
            done += 1
    return round(done * batch / (time.perf_counter() - start), 1)
