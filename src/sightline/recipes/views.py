"""Random views of training pictures, on whole batches, drawn from torch's global generator.

The published recipes of self-supervision: a crop of some share of the picture, mirrored by chance, colours jittered,
sometimes grey, blurred or solarised.  Numbers are those of the papers; what differs between methods is a `View`.
Colours and blurs are kornia's, the draws are made here: its modules take 8 to 12 ms a view whatever the batch, and wait
for the GPU.  All is drawn on the CPU, so that a GPU sees the same views.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from kornia.augmentation.auto import RandAugment
from kornia.color import rgb_to_grayscale
from kornia.enhance import adjust_hue
from kornia.filters import gaussian_blur2d
from torch import Tensor, nn
from torch.nn import functional as F

Images = Float[Tensor, "batch 3 height width"]


@dataclass(frozen=True)
class View:
    """How one kind of view is made: `count` crops of `side` pixels, each of a `scale` share of the picture's area.

    `jitter` is the strength of brightness, contrast, saturation and hue, `colour` the chance of it; `grey`, `blur` and
    `solarise` are chances.  `strong` adds two random operations (RandAugment, as InfoMin does).
    """

    side: int
    scale: tuple[float, float]
    count: int = 1
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    colour: float = 0.8
    grey: float = 0.2
    blur: float = 0.5
    solarise: float = 0.0
    strong: bool = False


def multi_crop(settings: Any, system: nn.Module) -> list[View]:
    """Gives SwAV's views: two large ones and `settings.crops` small ones, with SimCLR's full jitter."""
    side: int = settings.side or system.image_size[0]  # type: ignore[index,assignment]
    jitter, blur = (0.8, 0.8, 0.8, 0.2), 0.5 * settings.blur
    large = View(side=side, scale=(settings.smallest, 1.0), jitter=jitter, blur=blur, count=2)
    if not settings.crops:
        return [large]
    scale = (settings.least, settings.smallest)
    few = View(side=settings.small or side // 2, scale=scale, jitter=jitter, blur=blur, count=settings.crops)
    return [large, few]


def cropped(images: Images, side: int, scale: tuple[float, float]) -> Float[Tensor, "batch 3 {side} {side}"]:
    """Cuts one window a picture of a `scale` share of its area, aspect 3/4 to 4/3, bicubic, and mirrors half of them.

    Drawn evenly in area, log aspect and place (Szegedy et al. 2015, section 6); windows stay within the picture.
    """
    count = len(images)
    area = torch.empty(count).uniform_(*scale)
    widest = (-area.log()).clamp(max=math.log(4 / 3))  # of an aspect whose window fits
    aspect = torch.exp(widest * torch.empty(count).uniform_(-1, 1))
    width, height = (area * aspect).sqrt(), (area / aspect).sqrt()
    across, down = (torch.empty(count).uniform_(-1, 1) * (1 - extent) for extent in (width, height))
    flip, zero = 1 - 2 * torch.randint(0, 2, (count,)), torch.zeros(count)
    rows = [torch.stack([width * flip, zero, across], 1), torch.stack([zero, height, down], 1)]
    grid = F.affine_grid(torch.stack(rows, 1).to(images.device), [count, 3, side, side], align_corners=False)
    cut = F.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return cut.clamp(0, 1)  # bicubic curves leave 0..1


def jittered(images: Images, strength: tuple[float, float, float, float]) -> Images:
    """Changes brightness, contrast, saturation and hue, by factors of each picture, in an order of the batch."""
    limits = torch.tensor(strength)[:, None, None, None, None]
    drawn = limits * torch.empty(4, len(images), 1, 1, 1).uniform_(-1, 1)
    bright, contrast, colour, turn = drawn.to(images.device)
    changes: list[Callable[[Tensor], Tensor]] = [
        lambda x: x * (1 + bright),
        lambda x: torch.lerp(rgb_to_grayscale(x).mean(dim=(2, 3), keepdim=True), x, 1 + contrast),
        lambda x: torch.lerp(rgb_to_grayscale(x), x, 1 + colour),
        lambda x: adjust_hue(x, turn.flatten() * 2 * math.pi),
    ]
    for number in torch.randperm(4).tolist():
        images = changes[number](images).clamp(0, 1)
    return images


def blurred(images: Images) -> Images:
    """Blurs each picture by a Gaussian of deviation 0.1 to 2, over a tenth of its side (SimCLR)."""
    kernel = max(3, round(images.shape[-1] / 10) // 2 * 2 + 1)
    width = torch.empty(len(images), 1).uniform_(0.1, 2.0).expand(-1, 2)
    return gaussian_blur2d(images, (kernel, kernel), width.to(images.device)).clamp(0, 1)


def some(images: Images, chance: float, change: Callable[[Tensor], Tensor]) -> Images:
    """Changes each picture with a `chance` of its own."""
    chosen = (torch.rand(len(images)) < chance).nonzero()[:, 0].to(images.device)
    return images.index_copy(0, chosen, change(images[chosen])) if len(chosen) else images


class Views(nn.Module):
    """Cuts the views of a batch: images (B, 3, H, W) in 0..1 -> a list of (B, 3, side, side), in the order given."""

    def __init__(self, *, views: Sequence[View]) -> None:
        super().__init__()
        self.views = tuple(views)
        self.two = RandAugment(2, 10) if any(view.strong for view in views) else nn.Identity()

    def changed(self, images: Images, view: View) -> Tensor:
        """Makes one view, its changes in the papers' order."""
        images = cropped(images, view.side, view.scale)
        images = some(images, view.colour, lambda x: jittered(x, view.jitter))
        if view.strong:
            images = self.two(images).clamp(0, 1)
        images = some(images, view.grey, lambda x: rgb_to_grayscale(x).expand_as(x))
        images = some(images, view.blur, blurred)
        return some(images, view.solarise, lambda x: torch.where(x < 0.5, x, 1 - x))

    @torch.no_grad()
    def forward(self, images: Images) -> list[Tensor]:
        cut: list[Tensor] = []
        for view in self.views:
            cut += self.changed(torch.cat([images] * view.count), view).chunk(view.count)
        return cut
