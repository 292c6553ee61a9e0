"""Where a model that moves its points looks in a photograph: the points' ways, and what the answer read in the end."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sightline.lens.points import PointPath
from sightline.tasks.look import Look

METHODS = ("auto", "raw", "rollout")


@dataclass(frozen=True, repr=False)  # the repr of every look: one line
class PointsLook(Look):
    """Where a PS-ViT looked in one photograph: a `Look` whose evidence is `points`, their way from the grid on.

    `heat` lays the share that the answer read of each point on the cells that the point was read from at the last look.
    """

    points: PointPath | None = None

    @property
    def sentence(self) -> str:
        """How far the points went, then the sentence of every look."""
        return f"{_travelled(self._ways)} {super().sentence}"

    @property
    def summary(self) -> dict[str, Any]:
        """The result as plain values for machines: `points` are (x, y) in 0..1 at each look."""
        return super().summary | {"points": self._ways.places.round(4).tolist()}

    @property
    def _ways(self) -> PointPath:
        assert self.points is not None, "a PointsLook is made with its points"
        return self.points

    def save(self, path: str | Path) -> Path:
        """Writes a picture (.png, .jpg, .webp), an animation (.gif) or a page with a slider (.html)."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"):
            self.overlay.save(path)
            return path
        caption = f"{self.sentence} {self.note}".strip()
        return self._ways.save(path, title=f"{self.title} · {self.model}", caption=caption)


def look_at_points(
    opened: Any,
    pixels: Tensor,
    image: Image.Image,
    *,
    method: str,
    layer: int,
    head: str | int,
    query: Any,
    limit: int,
    title: str,
    command: str,
    check: bool,
) -> PointsLook:
    """Runs a PS-ViT on prepared pixels (1, 3, height, width), and follows its points over the `image` they show.

    `method` "rollout" (auto) multiplies the attention of the layers after the last look, "raw" reads one of them.
    Raises ValueError for other methods and for queries other than the class token: the points belong to no patch.
    """
    from sightline.lens import record
    from sightline.lens.heat import fuse_heads
    from sightline.tasks.look import best_labels

    if method not in METHODS:
        known = ", ".join(METHODS)
        raise ValueError(f"method {method!r} is not for models that move their points; choose one of {known}")
    if query not in (None, "class"):
        raise ValueError(f"query {query!r}: points that move have no fixed row and column; leave it out")
    model = opened.model
    with torch.no_grad(), record(model, limit=limit) as seen:
        logits = model(pixels)
    read = [site for site in seen if site.path.startswith("steps.") and site.path.endswith("points")]
    after = [site for site in seen if site.path.startswith("layers.")]
    with torch.no_grad():
        ways = model.places(model.read(pixels).points[0], *pixels.shape[-2:]).float().cpu()
    shares = torch.full((ways.shape[1],), 1 / ways.shape[1])  # no layer after the last look: all count alike
    if after and method == "raw":
        if not -len(after) <= layer < len(after):
            raise ValueError(f"layer {layer}: {len(after)} layers follow the last look, 0 to {len(after) - 1}")
        where = f"layer {layer % len(after)} ({after[layer].name})"
        shares = fuse_heads(after[layer].weights, head, where)[0, 0, 1:].float().cpu()
    elif after:
        shares = seen.rollout(after, rows=0)[0, 0, 1:].float().cpu()
    cells = seen.layout(read[-1])
    heat = (shares / shares.sum() @ read[-1].weights[0, 0].float().cpu()).view(cells.height, cells.width)
    if check:
        seen.check(model, pixels, heat=heat)
    path = PointPath(image, ways, weights=shares)
    made = PointsLook(
        heat=heat, image=image, overlay=image, recording=seen, model=opened.name,
        method="rollout" if method == "auto" else method, labels=best_labels(logits, opened.names),
        check=seen.checked.get(0), note=opened.note, title=title, command=command, points=path,
    )  # fmt: skip
    overlay = path.picture(title=f"{title} · {opened.name} · {made.method}", caption=made.sentence)
    return replace(made, overlay=overlay)


def _travelled(path: PointPath) -> str:
    """How far the points went, beside the spacing of the grid they began on, and how many left the picture."""
    if len(path) < 2:
        return "The points were read once, on the grid."
    way = path.places[-1] - path.places[0]
    far = float((way**2).sum(axis=1).mean() ** 0.5)
    spacing = path.places.shape[1] ** -0.5
    told = f"In {len(path)} looks the points went {far / spacing:.1f} spacings of their grid from where they began."
    outside = int(((path.places[-1] < 0) | (path.places[-1] > 1)).any(axis=1).sum())
    return told + (f" {outside} of {len(way)} lie beyond the edge, where little is read." if outside else "")
