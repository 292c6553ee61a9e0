"""What recipes of segmentation share: pictures with labels for each pixel in, mean IoU and sample pictures out.

The recipe has `classes`, `palette`, `window` (height, width), `settings.short`, `scaling` (mean and deviation of
the channels in 0..1) and `kept`, the network of logits.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sightline.data.pixel_labels import PixelLabels
from sightline.data.segmented import open_segmented
from sightline.decoding.windows import class_probabilities
from sightline.metrics.segmentation import CommonByPlace, Confusion
from sightline.recipes import pixel_batches

FRAME = pixel_batches
HELD = "val_miou"
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of the paper's multi-scale figures


def open_data(spec: str, split: str) -> PixelLabels:
    """Opens KIND:PATH as `sightline.data.segmented.open_segmented` does."""
    return open_segmented(spec, split)


def agree(train: PixelLabels, held: PixelLabels) -> None:
    """Raises ValueError unless training and held-out pictures have the same classes."""
    if train.classes != held.classes:
        raise ValueError(f"train has {len(train.classes)} classes, val {len(held.classes)}, or others")


def sizes_for(data: PixelLabels | None, sizes: dict[str, Any]) -> dict[str, Any]:
    """Gives the sizes of a system with as many classes as the data has; ValueError where they say otherwise."""
    if data is None:
        return sizes
    if sizes.get("classes", len(data.classes)) != len(data.classes):
        raise ValueError(f"classes={sizes['classes']}: the data has {len(data.classes)}; leave it out")
    return sizes | {"classes": len(data.classes)}


def probabilities(recipe: Any, image: Tensor | np.ndarray, **how: Any) -> Tensor:
    """Computes class probabilities (1, classes, H, W) of one picture of any size, by sliding windows.

    `image` is bytes, an array (H, W, 3) or a tensor (3, H, W).  A window is the system's `image_size`, they overlap by
    half; `how` may give `scales` and `mirrored`.
    """
    pixels = image if isinstance(image, Tensor) else torch.tensor(image).permute(2, 0, 1)
    pixels = normalised(pixels.to(recipe.device)[None], recipe.scaling)
    base = recipe.settings.short / min(pixels.shape[2:]) if recipe.settings.short else 1.0
    window = tuple(recipe.window)
    stride = tuple(max(1, side // 2) for side in window)
    how["scales"] = [base * scale for scale in how.get("scales", (1.0,))]
    return class_probabilities(recipe.kept, pixels, window=window, stride=stride, **how)


def normalised(images: Tensor, scaling: tuple[float, float]) -> Tensor:
    """Scales bytes by (mean, deviation), given in 0..1."""
    return (images.float() / 255 - scaling[0]) / scaling[1]


@torch.inference_mode()
def measure(recipe: Any, data: PixelLabels) -> dict[str, Any]:
    """Computes mean IoU, pixel and class accuracy and the IoU of each class over all pictures, at their own size.

    The control, "blind", says at each place what is most common there among these very labels, and sees no picture.
    With `settings.multi_scale`, "multi_scale" has the figures of the probabilities' mean over `SCALES`, mirrored too.
    Raises ValueError for data of other classes than were learned.
    """
    if recipe.classes != data.classes:
        raise ValueError(f"{_named(recipe.classes)} were learned, the data has {_named(data.classes)}")
    recipe.kept.eval()
    views: dict[str, Any] = {"single": {}}
    if recipe.settings.multi_scale:
        views["multi_scale"] = {"scales": SCALES, "mirrored": True}
    seen = {name: Confusion(len(data.classes)) for name in views}
    common, blind = CommonByPlace(len(data.classes)), Confusion(len(data.classes))
    for index in range(len(data)):
        common.update(torch.tensor(data.labels(index)))
    for index in range(len(data)):
        truth = torch.tensor(data.labels(index))
        for name, how in views.items():
            seen[name].update(probabilities(recipe, data.image(index), **how)[0].argmax(dim=0).cpu(), truth)
        blind.update(common.answer((truth.shape[0], truth.shape[1])), truth)
    whole = {"miou": blind.mean_iou(), "pixel_accuracy": blind.pixel_accuracy()}
    figures = {name: confusion.figures(data.classes) for name, confusion in seen.items()}
    return {"pictures": len(data), **figures.pop("single"), "blind": whole, **figures}


def _named(classes: tuple[str, ...]) -> str:
    return f"{len(classes)} classes ({', '.join(classes[:3])} …)"


def describe(recipe: Any, data: PixelLabels) -> dict[str, Any]:
    """Gives what the card says of the pictures: window, scaling of the channels, classes and their colours."""
    return {
        "image_size": list(recipe.window),
        "short": recipe.settings.short,
        "mean": [round(recipe.scaling[0], 4)] * 3,
        "std": [round(recipe.scaling[1], 4)] * 3,
        "classes": list(recipe.classes),
        "palette": [bytes(colour).hex() for colour in np.asarray(recipe.palette).tolist()],
    }


def load_beside(recipe: Any, folder: Path) -> None:
    """Gives a recipe without data the classes and colours that the card of its weights names."""
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    recipe.classes = tuple(card["classes"])
    recipe.palette = np.array([list(bytes.fromhex(colour)) for colour in card["palette"]], dtype=np.uint8)


@torch.inference_mode()
def draw_samples(recipe: Any, data: PixelLabels, path: Path, count: int = 6) -> None:
    """Draws held-out pictures beside what the network says and the truth (void black)."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    chosen = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)
    figure = Figure(figsize=(11, 2.8 * len(chosen)), layout="constrained")
    axes = figure.subplots(len(chosen), 3, squeeze=False)
    colours = np.vstack([recipe.palette, np.zeros((256 - len(recipe.palette), 3), dtype=np.uint8)])
    for row, index in zip(axes, chosen, strict=True):
        image = data.image(int(index))
        said = probabilities(recipe, image)[0].argmax(dim=0).cpu().numpy()
        for axis, shown in zip(row, (image, colours[said], colours[data.labels(int(index))]), strict=True):
            axis.imshow(shown)
            axis.axis("off")
    void = any((data.labels(int(index)) >= len(recipe.palette)).any() for index in chosen)
    for axis, title in zip(axes[0], ("picture", "said", f"truth{' (black: void)' if void else ''}"), strict=True):
        axis.set_title(title)
    named = zip(recipe.palette, recipe.classes, strict=True)
    handles = [Patch(color=colour / 255, label=name) for colour, name in named][:24]
    longest = max(len(name) for name in recipe.classes)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, max(1, 120 // (longest + 6))))
    figure.savefig(path, dpi=90)
