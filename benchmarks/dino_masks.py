"""Does a Vision Transformer look at objects?  DINO's Figure 4 on masks that are known exactly, beside its controls.

    python benchmarks/dino_masks.py dino supervised=runs/supervised random:dino
    python benchmarks/dino_masks.py dino --images 200 --sides 224 --out masks.md
    python benchmarks/dino_masks.py dino supervised=runs/supervised random:dino --figure masks.png

Models are named as for `sightline look`, with a name before `=` if wanted; `random:MODEL` is the same network with
weights drawn at random.  Two collections, drawn by the library, so that nothing has to be downloaded and every pixel's
owner is known:

cutouts    one thing on a ground of random texture (`sightline.data.cutouts`)
world      scenes of one to three things (`sightline.data.scenes`)

A model is given pictures at the side it was made for, or at each of `--sides`.  Jaccard: each head's class-token map of
the last layer, cut to the smallest set of patches with 60 % of its mass; the best head for each object.  `moved`: the
same maps with the objects of another picture.  `area` takes the whole picture, `centre` the middle.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from sightline.data.cutouts import Cutouts
from sightline.data.photographs import sample_photographs
from sightline.data.scenes import Scenes
from sightline.lens import view
from sightline.lens.sheet import INK, PAPER, font_of
from sightline.metrics.objects import attention_on_objects
from sightline.tasks.look import Look, like_parameters, look
from sightline.tasks.vision_model import VisionModel, open_vision_model

Batches = Iterator[tuple[Tensor, Sequence[Tensor]]]
SIDE, BATCH = 128, 50
COLUMNS = ("jaccard", "jaccard_mean_head", "jaccard_moved", "jaccard_area", "jaccard_centre", "pointing", "energy")


def cutouts(count: int) -> Batches:
    """Pictures and the masks of their things, in batches."""
    drawn = Cutouts(count, SIDE, seed=1)
    for first in range(0, count, BATCH):
        images, masks = drawn.pictures(range(first, min(count, first + BATCH)))
        yield images, [mask[None] for mask in masks]


def world(count: int) -> Batches:
    """The same of scenes; things that others hide are left out."""
    drawn = Scenes(seed=1, split="test", size=SIDE, count=count, objects=(1, 3))
    for first in range(0, count, BATCH):
        views = drawn.views(range(first, min(count, first + BATCH)))
        masks = [views.masks(number) for number in range(len(views))]
        yield views.images, [one[one.any(dim=(1, 2))] for one in masks]


KINDS = {"cutouts": cutouts, "world": world}


def opened(name: str, seed: int) -> VisionModel:
    """A model by name; `random:` draws its weights anew."""
    afresh = name.startswith("random:")
    found = open_vision_model(name.removeprefix("random:"))
    if afresh:
        initialise: Any = getattr(found.model, "initialise", None)
        if initialise is None:
            raise SystemExit(f"{name}: this model cannot be drawn at random; give one of this library's")
        torch.manual_seed(seed)
        for part in found.model.modules():
            reset: Any = getattr(part, "reset_parameters", None)
            if reset is not None:
                reset()  # norms, which `initialise` leaves as they are
        initialise()
    return found


def prepared(model: VisionModel, batches: Batches, side: int | None) -> Batches:
    """Pictures as the model's own preparation makes them, at another side where one is asked for."""
    if side is not None and model.resized is None:
        raise SystemExit(f"{model.name}: takes pictures of one size only; leave --sides out")
    prepare = model.prepare if side is None else model.resized(side)  # type: ignore[misc]
    for images, masks in batches:
        pixels = [prepare(Image.fromarray(image.permute(1, 2, 0).numpy()))[0] for image in images]
        yield like_parameters(torch.cat(pixels), model.model), masks


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The figures as a Markdown table."""
    columns = ("model", "pictures", "side", "images", *COLUMNS)
    lines = [
        f"| {' | '.join(one.replace('_', ' ') for one in columns)} |",
        f"|{'---|' * 3}{'---:|' * (len(COLUMNS) + 1)}",
    ]
    for row in rows:
        cells = [f"{row[one]:.3f}" if isinstance(row[one], float) else str(row[one]) for one in columns]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def masks_of(seen: Look) -> Tensor:
    """The masks of a look by "threshold"."""
    assert seen.masks is not None
    return seen.masks


def draw(models: dict[str, VisionModel], path: Path, side: int | None) -> None:
    """Photographs of the package with every head's mask of the first model, and cutouts with the best head of each."""
    first = next(iter(models.values()))
    rows: list[tuple[list[Image.Image], list[str]]] = []
    for file in sample_photographs():
        picture = Image.open(file).convert("RGB")
        seen = look(picture, model=first, method="threshold", size=side)
        lit = [view.lit(picture, cells.numpy()) for cells in masks_of(seen)]
        rows.append(([picture, *lit], [file.stem, *(f"head {number}" for number in range(len(lit)))]))
    images, masks = Cutouts(7, SIDE, seed=1).pictures(range(7))
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    rows.append((pictures, ["cutout"] * len(pictures)))
    for name, model in models.items():
        cells, labels = [], []
        for picture, mask in zip(pictures, masks, strict=True):
            made = masks_of(look(picture, model=model, method="threshold"))
            large = F.interpolate(made[None].float(), mask.shape, mode="nearest")[0] > 0
            overlap = (large & mask).sum((1, 2)) / (large | mask).sum((1, 2))
            cells.append(view.lit(picture, made[int(overlap.argmax())].numpy()))
            labels.append(f"{name} {float(overlap.max()):.2f}")
        rows.append((cells, labels))
    sheet_of(rows).save(path)


def sheet_of(rows: list[tuple[list[Image.Image], list[str]]], side: int = 140) -> Image.Image:
    """Rows of small pictures with labels below."""
    for cells, _ in rows:
        for cell in cells:
            cell.thumbnail((side, side), Image.Resampling.LANCZOS)
    heights = [max(cell.height for cell in cells) + 26 for cells, _ in rows]
    body = Image.new("RGB", (max(len(cells) for cells, _ in rows) * (side + 8) - 8, sum(heights)), PAPER)
    draw, top = ImageDraw.Draw(body), 0
    for (cells, labels), height in zip(rows, heights, strict=True):
        for column, (cell, label) in enumerate(zip(cells, labels, strict=True)):
            left = column * (side + 8)
            body.paste(cell, (left + (side - cell.width) // 2, top))
            draw.text((left + side // 2, top + height - 23), label, INK, font_of(12), anchor="ma")
        top += height
    return body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="[NAME=]MODEL")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--sides", type=int, nargs="+", default=[None])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--layer", type=int, default=-1)
    parser.add_argument("--seed", type=int, default=0, help="of random networks")
    parser.add_argument("--out", type=Path, help="also write the table (.md) or the figures (.json) here")
    parser.add_argument("--figure", type=Path, help="draw masks into this file instead of measuring")
    chosen = parser.parse_args()
    if chosen.figure is not None:
        named = [given.rpartition("=") for given in chosen.models]
        draw({name or place: opened(place, chosen.seed) for name, _, place in named}, chosen.figure, chosen.sides[0])
        return
    rows: list[dict[str, Any]] = []
    for given in chosen.models:
        name, _, place = given.rpartition("=")
        model = opened(place, chosen.seed)
        for kind in chosen.kinds:
            for side in chosen.sides:
                start = time.perf_counter()
                scores = attention_on_objects(
                    model.model, prepared(model, KINDS[kind](chosen.images), side), layer=chosen.layer
                )
                row = {"model": name or place, "pictures": kind, "side": side or "own", **scores.figures()}
                rows.append(row)
                print(f"{row['model']} {kind} {scores.jaccard} in {time.perf_counter() - start:.0f} s", flush=True)
    text = "\n".join(table(rows))
    print(text)
    if chosen.out is not None:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(json.dumps(rows, indent=1) if chosen.out.suffix == ".json" else text + "\n", "utf-8")


if __name__ == "__main__":
    main()
