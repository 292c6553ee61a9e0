"""Where a model looks while something moves: one attention map a frame, all on one scale, as an animation."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sightline.data.photographs import open_photograph
from sightline.lens.given import evaluating
from sightline.tasks.look import at_size, check_token, like_parameters, part_of
from sightline.tasks.methods import GRADIENT_METHODS, MASS, METHODS, usual_model
from sightline.tasks.vision_model import VisionModel, open_vision_model

LONGEST = 480  # pixels of an animation's longer side


@dataclass(frozen=True)
class FilmLook:
    """Where a model looked in each of several frames: pictures, their maps (frames, h, w), and how they are drawn."""

    images: tuple[Image.Image, ...]
    heats: Tensor
    model: str
    method: str
    mass: int | float = MASS
    layer: int = -1
    head: str | int = "mean"

    def __len__(self) -> int:
        return len(self.images)

    @property
    def sentence(self) -> str:
        """What the animation shows: how many frames of which size, by which model and method, and how to read it."""
        count = "1 frame" if len(self) == 1 else f"{len(self)} frames"
        width, height = self.images[0].size
        chosen = " · ".join(filter(None, (self.model, self.method, part_of(self.layer, self.head))))
        return f"{count} of {width} x {height} pixels, all on one scale ({chosen})."

    @property
    def summary(self) -> dict[str, Any]:
        """The same as plain values for machines."""
        width, height = self.images[0].size
        return {
            "frames": len(self), "width": width, "height": height, "model": self.model, "method": self.method,
            "layer": self.layer, "head": self.head, "sentence": self.sentence,
        }  # fmt: skip

    @property
    def limits(self) -> tuple[float, float]:
        """The values of the coldest and the hottest colour in every frame, so that frames can be compared."""
        from sightline.lens.paint import heat_range

        return heat_range(self.heats.flatten(0, 1))

    def frames(self) -> list[Image.Image]:
        """Draws every frame: its map in the film's colours, or, for "threshold", lit where the mask is."""
        from sightline.lens import view
        from sightline.lens.paint import blend, top_mass

        shown, limits = [], self.limits
        for image, heat in zip(self.images, self.heats, strict=True):
            if self.method == "threshold":
                shown.append(view.lit(image, top_mass(heat, self.mass)))
            else:
                shown.append(blend(image, heat, limits=limits, mass=self.mass))
        return shown

    def save(self, path: str | Path, *, milliseconds: int = 120) -> Path:
        """Writes an endless animation (.gif or .webp), each frame for so many milliseconds; ValueError for others."""
        from sightline.lens.animation import encode_gif, encode_webp

        path = Path(path)
        encode = {".gif": encode_gif, ".webp": encode_webp}.get(path.suffix.lower())
        if encode is None:
            raise ValueError(f"{path}: an animation is saved as .gif or .webp, not {path.suffix or 'without a suffix'}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(self.frames(), [milliseconds] * len(self)))
        return path


def in_order(paths: Sequence[Path]) -> list[Path]:
    """Sorts frames by name, numbers in it by their value: 2.png comes before 10.png."""

    def key(path: Path) -> list[tuple[int, int, str]]:
        parts = re.split(r"(\d+)", str(path))
        return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]

    return sorted(paths, key=key)


def look_at_frames(
    images: Iterable[Any],
    *,
    model: Any = None,
    method: str = "auto",
    layer: int = -1,
    head: str | int = "mean",
    query: Any = None,
    mass: int | float = MASS,
    size: int | None = None,
    limit: int = 2**30,
    failed: Callable[[Any, Exception], None] | None = None,
) -> FilmLook:
    """Runs a model on each frame, in the order given, and tells where its attention went.

    The arguments are those of `look`; `method` "auto" is "raw" for models that give features (DINO), and methods that
    need a gradient are not for frames.  `failed(frame, error)` is told of a frame that cannot be read, which is then
    left out; without it the error is raised.  Raises ValueError for no frame, and for frames of several shapes.
    """
    if method not in METHODS or method in GRADIENT_METHODS:
        known = ", ".join(one for one in METHODS if one not in GRADIENT_METHODS)
        raise ValueError(f"method {method!r} is not known for frames; choose one of {known}")
    opened = at_size(open_vision_model(model or usual_model()), size)
    chosen = "raw" if method == "threshold" or (method == "auto" and opened.features) else method
    shown: list[Image.Image] = []
    heats: list[Tensor] = []
    for image in images:
        try:
            picture, heat = _map_of(opened, image, chosen, limit, {"layer": layer, "head": head, "query": query})
        except (OSError, ValueError) as error:
            if failed is None:
                raise
            failed(image, error)
            continue
        if heats and (heat.shape != heats[0].shape or picture.size != shown[0].size):
            raise ValueError(f"{image}: {picture.size} pixels, other than the first frame's {shown[0].size}")
        shown.append(picture)
        heats.append(heat)
    if not heats:
        raise ValueError("no frame could be read: give a folder of pictures")
    kept = "threshold" if method == "threshold" else chosen
    return FilmLook(tuple(shown), torch.stack(heats), opened.name, kept, mass, layer, head)


def _map_of(
    opened: VisionModel, image: Any, method: str, limit: int, choices: dict[str, Any]
) -> tuple[Image.Image, Tensor]:
    from sightline.lens import CLS, record

    pixels, picture = opened.prepare(open_photograph(image))
    class_row = method == "raw" and opened.features and choices["query"] in (None, "class")
    with evaluating(opened.model), torch.no_grad():
        with record(opened.model, queries=CLS if class_row else None, limit=limit) as seen:
            opened.model(like_parameters(pixels, opened.model))
        check_token(seen, choices["layer"], choices["query"])
        heat = seen.heat(method=method, **choices).float().cpu()
    scale = min(1.0, LONGEST / max(picture.size))
    small = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(small, Image.Resampling.LANCZOS), heat
