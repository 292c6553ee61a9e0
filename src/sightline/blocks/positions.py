"""Where a token stands: sinusoidal and learned positions; grids of them resized by each published rule."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def sinusoidal_interleaved(length: int, dim: int, *, base: float = 10000.0) -> Float[Tensor, "{length} {dim}"]:
    """Computes sin(p / base^(2i/dim)) in column 2i, the cosine in column 2i+1 (Vaswani et al. 2017, 3.5)."""
    if length < 1 or dim < 1:
        raise ValueError(f"positions need a positive length and dim, given {length=}, {dim=}")
    # in float64: an angle of a few hundred in float32 is off by 1e-5
    rate = torch.exp(torch.arange(0, dim, 2, dtype=torch.float64) * (-math.log(base) / dim))
    angle = torch.arange(length, dtype=torch.float64)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :dim].float()


def sinusoidal_concatenated(length: int, dim: int, *, base: float = 10000.0) -> Float[Tensor, "{length} {dim}"]:
    """Computes [all sines | all cosines] with wavelengths from 2 pi to 2 pi base: tensor2tensor's rule.

    The exponents are i / (dim // 2 - 1), so the slowest wave is exactly `base`; an odd dim ends in a zero
    column.
    """
    if length < 1 or dim < 2:
        raise ValueError(f"positions need length >= 1 and dim >= 2, given {length=}, {dim=}")
    waves = dim // 2
    rate = torch.exp(torch.arange(waves, dtype=torch.float32) * (-math.log(base) / max(waves - 1, 1)))
    angle = torch.arange(length, dtype=torch.float32)[:, None] * rate
    return F.pad(torch.cat([angle.sin(), angle.cos()], dim=1), (0, dim % 2))


def sinusoidal_halves(length: int, dim: int, *, base: float = 10000.0) -> Float[Tensor, "{length} {dim}"]:
    """Computes [all sines | all cosines] of the paper's own waves, p / base^(2i/dim): Marian's and XLM's rule."""
    columns = sinusoidal_interleaved(length, dim, base=base)
    return torch.cat([columns[:, 0::2], columns[:, 1::2]], dim=1)


class LearnedPositions(nn.Module):
    """Adds a learned vector for each position, (batch, length, dim) -> the same; N(0, 0.02) at first.

    Raises ValueError for more tokens than positions.
    """

    def __init__(self, *, length: int, dim: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(length, dim).normal_(std=0.02))

    def forward(self, tokens: Float[Tensor, "batch length dim"]) -> Float[Tensor, "batch length dim"]:
        if tokens.shape[1] > len(self.table):
            raise ValueError(f"{tokens.shape[1]} tokens, but only {len(self.table)} positions were learned")
        return tokens + self.table[: tokens.shape[1]]


Grid = Float[Tensor, "rows columns dim"]


def resize_timm(grid: Grid, rows: int, columns: int) -> Float[Tensor, "{rows} {columns} dim"]:
    """Resizes positions as timm does: bicubic to the given size, antialiased."""
    if columns == 1:  # torch 2.13 computes one antialiased column of several rows wrongly; one row it computes well
        turned = _interpolate(grid.transpose(0, 1), size=(1, rows), mode="bicubic", antialias=True)
        return turned.transpose(0, 1)
    return _interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True)


def resize_transformers(grid: Grid, rows: int, columns: int) -> Float[Tensor, "{rows} {columns} dim"]:
    """Resizes positions as transformers 5 does for ViT, DeiT and DINOv2: bicubic to the given size."""
    return _interpolate(grid, size=(rows, columns), mode="bicubic")


def resize_jax(grid: Grid, rows: int, columns: int) -> Float[Tensor, "{rows} {columns} dim"]:
    """Resizes positions as google-research/vision_transformer does: scipy's `zoom` of order 1.

    Linear between the corner points, which stay where they are.
    """
    return _interpolate(grid, size=(rows, columns), mode="bilinear", align_corners=True)


def resize_dino(grid: Grid, rows: int, columns: int) -> Float[Tensor, "{rows} {columns} dim"]:
    """Resizes positions as DINO and DINOv2 do: bicubic by the scale factor (n + 0.1) / grid.

    The factor itself, not the ratio of sizes, places the samples, so the result differs visibly from a
    resize to the same size.
    """
    factor = ((rows + 0.1) / grid.shape[0], (columns + 0.1) / grid.shape[1])
    return _interpolate(grid, scale_factor=factor, mode="bicubic")


def resize_dinov2_registers(grid: Grid, rows: int, columns: int) -> Float[Tensor, "{rows} {columns} dim"]:
    """Resizes positions as DINOv2 with registers does (no offset, antialiased), also in transformers."""
    return resize_timm(grid, rows, columns)


def resize_segmenter(grid: Grid, rows: int, columns: int) -> Float[Tensor, "{rows} {columns} dim"]:
    """Resizes positions as Segmenter does: bilinear to the given size."""
    return _interpolate(grid, size=(rows, columns), mode="bilinear")


RESIZE: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "timm": resize_timm,
    "transformers": resize_transformers,
    "jax": resize_jax,
    "dino": resize_dino,
    "dinov2_registers": resize_dinov2_registers,
    "segmenter": resize_segmenter,
}


class GridPositions(nn.Module):
    """Holds learned positions of a few prefix tokens and a grid of patches, and resizes the grid to an image.

    `image_size` (height, width) in pixels is the size the positions are learned at, `rule` one of RESIZE: how
    the weights' own code resizes.  Raises ValueError for an unknown rule or an image smaller than a patch.
    """

    def __init__(
        self, *, image_size: tuple[int, int], patch: int, dim: int, prefix: int = 1, rule: str = "timm"
    ) -> None:
        super().__init__()
        if rule not in RESIZE:
            raise ValueError(f"positions are resized by one of {', '.join(RESIZE)}, given {rule!r}")
        self.grid = (image_size[0] // patch, image_size[1] // patch)
        if min(self.grid) < 1:
            raise ValueError(f"image_size {tuple(image_size)} holds no patch of {patch} pixels: enlarge it")
        self.square = image_size[0] == image_size[1]
        self.patch, self.prefix, self.rule = patch, prefix, rule
        length = prefix + self.grid[0] * self.grid[1]
        self.table = nn.Parameter(torch.empty(1, length, dim).normal_(std=0.02))

    def forward(self, height: int, width: int) -> Float[Tensor, "1 positions dim"]:
        """Gives the positions of the prefix and of all patches of an image of height x width pixels."""
        rows, columns = height // self.patch, width // self.patch
        # DINO's code resizes whenever the image is not square, even to the very same grid
        anyway = self.rule == "dino" and self.square and height != width
        if (rows, columns) == self.grid and not anyway:
            return self.table
        prefix, grid = self.table.tensor_split([self.prefix], dim=1)
        resized = RESIZE[self.rule](grid[0].unflatten(0, self.grid), rows, columns)
        return torch.cat([prefix, resized.flatten(0, 1)[None]], dim=1)


def _interpolate(grid: Tensor, **how: object) -> Tensor:
    # in float32 whatever the weights are: bicubic resampling in half precision shifts positions
    channels_first = grid.float().permute(2, 0, 1)[None]
    return F.interpolate(channels_first, **how)[0].permute(1, 2, 0).to(grid.dtype)  # type: ignore[arg-type]
