"""The controls of PS-ViT: the same network, parameters, data and steps, but its points do not go where it sends them.

`kind=grid`    the points stay: four looks at a fixed grid, as patches are
`kind=random`  each look moves every point by a normal draw of deviation `spread` spacings of the grid, anew each time

The offset layers are there, and nothing reads them.  `iterations=1` of recipes/ps_vit.py is the third: one look at the
grid, and all further layers plain.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sightline.recipes import ps_vit
from sightline.recipes.placed_digits import Data
from sightline.recipes.ps_vit import begin, usual_sizes
from sightline.systems.ps_vit import STRIDE, PSViT

FRAME = ps_vit


class Control(PSViT):
    """Computes class logits as PS-ViT does, from points held on the grid or moved at random.

    Raises ValueError for another `kind` and for a negative `spread`.
    """

    def __init__(
        self,
        *,
        kind: str = "grid",
        spread: float = 0.5,
        image_size: int = 64,
        points: int = 4,
        iterations: int = 4,
        dim: int = 48,
        depth: int = 6,
        heads: int = 3,
        stem: Sequence[int] = (16, 16, 32, 16),
        classes: int = 10,
    ) -> None:
        if kind not in ("grid", "random") or spread < 0:
            raise ValueError(f"kind must be grid or random, and spread 0 or more, given {kind!r} and {spread}")
        super().__init__(
            image_size=image_size, points=points, iterations=iterations, dim=dim, depth=depth, heads=heads, stem=stem,
            classes=classes,
        )  # fmt: skip
        self.deviation = spread * image_size / STRIDE / points if kind == "random" else 0.0
        for step in self.steps:
            if step.offset is not None:
                step.offset.requires_grad_(False)

    def move(
        self, points: Float[Tensor, "batch points 2"], offset: Float[Tensor, "batch points 2"]
    ) -> Float[Tensor, "batch points 2"]:
        """Leaves the points where they are, or moves them at random."""
        return points.detach() + self.deviation * torch.randn_like(points) if self.deviation else points.detach()


def build(data: Data | None, **sizes: Any) -> Control:
    """Builds the control with the sizes of recipes/ps_vit.py."""
    control = Control(**usual_sizes(data, sizes))
    begin(control)
    return control
