"""The DINO paper's table 2 at small scale: every method on one frame, one run after another, each kept once it is done.

A row is a run of a recipe with the sizes and settings below; what it reached stands in its folder as `row.json`.  All
rows read the same pictures in the same order, as often, under AdamW with the same schedule; a view is one look at a
picture, and multi-crop's small views (a quarter of the pixels each) come on top, as in the paper.
"""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sightline.recipes.plan import TrainingError
from sightline.recipes.probes import figures, open_data
from sightline.recipes.self_supervised import build
from sightline.recipes.train import train
from sightline.systems.resnet import ResNet

BATCH, SIDE = 512, 32
SIZES: dict[str, dict[str, Any]] = {
    "resnet": {"image_size": SIDE, "blocks": (1, 1, 1, 1), "width": 64, "stem": "small"},
    "vit": {"image_size": SIDE, "patch": 4, "dim": 192, "depth": 6, "heads": 3},
}
TINY_SIZES: dict[str, dict[str, Any]] = {
    "resnet": {"image_size": SIDE, "blocks": (1, 1, 1, 1), "width": 8, "stem": "half"},
    "vit": {"image_size": SIDE, "patch": 8, "dim": 24, "depth": 1, "heads": 3},
}
# a residual network takes a higher rate than a transformer; blurs of a tenth of 32 pixels say nothing
SETTINGS: dict[str, dict[str, Any]] = {"resnet": {"rate": 1e-3, "decay": 1e-3}, "vit": {"rate": 5e-4, "decay": 0.04}}
SHARED: dict[str, Any] = {"save_every": 500, "seed": 0}
PAIR: dict[str, Any] = {"blur": 0.0, "least": 0.2}
CROPS: dict[str, Any] = {"blur": 0.0, "least": 0.1, "smallest": 0.25, "crops": 4}
DINO: dict[str, Any] = {**CROPS, "momentum": 0.99, "prototypes": 4096, "hidden": 512, "bottleneck": 128}


@dataclass(frozen=True)
class Row:
    """One line of the table: which recipe, on which backbone, with what; `title` is the method's name."""

    title: str
    recipe: str
    architecture: str
    settings: dict[str, Any] = field(default_factory=dict)
    ablation: bool = False


def _rows() -> dict[str, Row]:
    """All rows by name: the paper's order on the residual network, then the transformer, then what collapses."""
    rivals = {
        "simclr": Row("SimCLR", "simclr", "", PAIR),
        "moco": Row("MoCo v2", "moco", "", PAIR),
        "infomin": Row("InfoMin", "infomin", "", PAIR),
        "barlow_twins": Row("Barlow Twins", "barlow_twins", "", PAIR),
        "obow": Row("OBoW", "obow", "", {**CROPS, "momentum": 0.99}),
        "byol": Row("BYOL", "byol", "", PAIR),
        "deepcluster": Row("DeepCluster v2", "deepcluster", "", CROPS),
        "swav": Row("SwAV", "swav", "", CROPS),
        "dino": Row("DINO", "dino", "", DINO),
    }
    controls = {
        "random": Row("random", "supervised", "", {"rate": 0.0, "steps": 20}),
        "supervised": Row("supervised", "supervised", "", {"decay": 0.05}),
    }
    rows = {"pixels": Row("raw pixels", "", "")}
    for architecture, some in (("resnet", rivals), ("vit", {name: rivals[name] for name in ("byol", "swav", "dino")})):
        for name, row in {**controls, **some}.items():
            more = {"head_norm": True} if (name, architecture) == ("dino", "resnet") else {}
            rows[f"{name}/{architecture}"] = Row(row.title, row.recipe, architecture, row.settings | more)
    for name, title, more in (
        ("no_centring", "DINO, no centring", {"centring": False}),
        ("no_sharpening", "DINO, no sharpening", {"warm_temperature": 0.1, "temperature": 0.1}),
        ("no_momentum", "DINO, no momentum", {"momentum": 0.0, "last_momentum": 0.0}),
    ):
        rows[f"{name}/vit"] = Row(title, "dino", "vit", DINO | more, ablation=True)
    return rows


ROWS = _rows()


def run_row(name: str, data: str, out: Path, *, budget: int, tiny: bool = False, **more: Any) -> dict[str, Any]:
    """Trains and measures one row in `out`/NAME, unless it is there already; gives what `row.json` says.

    `budget` is how many pictures are read, with repetition; `more` overrides settings and sizes.  Raises ValueError for
    an unknown row, a finished row of other data or budget, and what `train` raises; a run that was cut off goes on.
    """
    if name not in ROWS:
        raise TrainingError(f"no row {name!r} in the table; there are: {', '.join(ROWS)}")
    row, folder = ROWS[name], out / name.replace("/", "-")
    asked = {"data": data, "budget": budget, "tiny": tiny}
    if (folder / "row.json").is_file():
        found = json.loads((folder / "row.json").read_text(encoding="utf-8"))
        if {key: found[key] for key in asked} != asked:
            raise TrainingError(f"{folder}: holds this row of other data or another budget; give another --out")
        return found
    told = _pixels(data, tiny) if name == "pixels" else _trained(row, data, folder, budget, tiny, more)
    found = {
        "row": name,
        "title": row.title,
        "architecture": row.architecture,
        "ablation": row.ablation,
        **asked,
        **told,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "row.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    return found


def _trained(row: Row, data: str, folder: Path, budget: int, tiny: bool, more: dict[str, Any]) -> dict[str, Any]:
    if not (folder / "metrics.json").is_file():
        if (folder / "checkpoints" / "last.ckpt").is_file():
            train(out=folder, resume=folder)
        else:
            batch = 32 if tiny else BATCH
            fast = {"precision": "bf16-mixed"} if torch.cuda.is_available() else {}
            usual = {"batch": batch, "steps": max(1, budget // batch), **fast, **SHARED, **SETTINGS[row.architecture]}
            usual |= (TINY_SIZES if tiny else SIZES)[row.architecture] | ({"bank": 200} if tiny else {})
            train(row.recipe, data, out=folder, tiny=tiny, **(usual | row.settings | more))
    done = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    card = json.loads((folder / "weights" / "card.json").read_text(encoding="utf-8"))
    network = build(None, **json.loads((folder / "weights" / "config.json").read_text(encoding="utf-8")))
    return {
        "parameters": done["parameters"],
        "passes": done["passes"],
        "train_per_s": round(done["passes"] / max(done["seconds"], 1), 1),
        "images_per_s": images_per_second(network, 32 if tiny else BATCH),
        "machine": done["machine"],
        "seed": card["seed"],
        "command": card["command"],
        "traced": card["traced"],
        "parts": done["measured"]["parts"],
    }


def _pixels(data: str, tiny: bool) -> dict[str, Any]:
    """Measures the pixels themselves as features."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts = []
    for held, bank in open_data(data, "val").measurable():
        read = []
        for one in (bank, held):
            count = min(200, len(one)) if tiny else len(one)
            places = np.linspace(0, len(one) - 1, count).round().astype(int)
            pixels = one.squares(places, SIDE).flatten(1)  # type: ignore[attr-defined]
            read += [pixels.to(device).float() / 255, torch.from_numpy(one.labels[places]).to(device)]
        count = {"pictures": len(read[3]), "known": len(read[1]), "classes": len(held.classes)}
        parts.append({**count, "chance": 1 / len(held.classes), **figures(*read, width=3 * SIDE**2)})
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
